//! The service behind claim links.
//!
//! # Rules
//!
//! - A link reveals its key once. Opening it gives the key a new secret, so that no secret has to be
//!   stored until then; the old secret stops working. Loading the page does not open the link, so a
//!   link preview does not use it up.
//! - The token is the fragment of the link, after `#`, which browsers do not send. The page sends it in
//!   the request body.
//! - `POST` with `{"token": "…"}` describes the key; with `"open": true` it opens the link. A link that
//!   was opened, has expired or was withdrawn gets 410, an unknown one 404.
//! - With an `Idempotency-Key`, a client that lost the response gets it again for the same request
//!   within an hour, as long as the process runs. Without the same `Idempotency-Key` it gets 410.
//! - `GET` is the page that the link opens. It holds no data.
//! - Every response is `Cache-Control: no-store`.
//!
//! # Example
//!
//! ```
//! use bytes::Bytes;
//! use http::Request;
//! use http_body_util::{BodyExt, Full};
//! use tower::ServiceExt;
//! use tower_quota::{
//!     admin::{AdminTokens, admin_service, claim_service},
//!     store::memory::MemoryStore,
//! };
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let store = MemoryStore::new();
//! let admin = admin_service(store.clone(), AdminTokens::parse("correct-horse-battery-staple")?);
//! let post = |path: &str| {
//!     let request = Request::post(path).header("x-admin-token", "correct-horse-battery-staple");
//!     admin.clone().oneshot(request.body(Full::<Bytes>::default()).expect("a request"))
//! };
//! let created = post("/admin/keys").await?.into_body().collect().await?.to_bytes();
//! let created: serde_json::Value = serde_json::from_slice(&created)?;
//! let path = format!("/admin/keys/{}/claim", created["id"].as_str().expect("an id"));
//! let link = post(&path).await?.into_body().collect().await?.to_bytes();
//! let link: serde_json::Value = serde_json::from_slice(&link)?;
//! let (_, token) = link["url"].as_str().and_then(|url| url.split_once('#')).expect("a token");
//!
//! let body = serde_json::json!({"token": token, "open": true}).to_string();
//! let open = || {
//!     let request = Request::post("/claim").body(Full::<Bytes>::from(body.clone()));
//!     claim_service(store.clone()).oneshot(request.expect("a request"))
//! };
//! assert_eq!(open().await?.status(), 200);
//! assert_eq!(open().await?.status(), 410);
//! # Ok(())
//! # }
//! ```

mod page;
mod service;

pub use service::{ClaimBody, ClaimService, claim_service};
