//! The service for whoever has the link of a claim.
//!
//! # Rules
//!
//! - A link gives its key once. Opening it gives the key a new secret, so none is kept anywhere; the
//!   old one stops. Looking at it does not open it, so programs that preview links take nothing.
//! - The token stands behind the `#` of the link, which no browser sends, and comes in the body.
//! - `POST` with `{"token": "…"}` tells what the link gives, with `"open": true` it gives it. A link
//!   that was opened, has expired or was withdrawn is 410, an unknown one 404.
//! - With an `Idempotency-Key`, whoever lost the answer and asks again under the same name within an hour gets
//!   it, as long as the process lives. Who does not know the name gets nothing.
//! - `GET` is the page that the link opens. It holds no data.
//! - Every answer is `Cache-Control: no-store`.
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
//! let ask = |path: &str| {
//!     let request = Request::post(path).header("x-admin-token", "correct-horse-battery-staple");
//!     admin.clone().oneshot(request.body(Full::<Bytes>::default()).expect("a request"))
//! };
//! let made = ask("/admin/keys").await?.into_body().collect().await?.to_bytes();
//! let made: serde_json::Value = serde_json::from_slice(&made)?;
//! let path = format!("/admin/keys/{}/claim", made["id"].as_str().expect("an id"));
//! let link = ask(&path).await?.into_body().collect().await?.to_bytes();
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

pub use service::{ClaimBody, ClaimFuture, ClaimService, claim_service};
