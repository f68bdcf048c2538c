//! Middleware that lets only holders of an issued key through.
//!
//! # Rules
//!
//! - The key is read where the [`CredentialSource`] says: `Authorization: Bearer <key>` (RFC 6750; the
//!   scheme in any case), `x-trial-key` or `x-api-key` by default. Two different credentials in one
//!   request are rejected with 400.
//! - White space, quotes and brackets around the key are ignored. A value that cannot be a key is
//!   rejected with 401 and a message that says what is wrong with it ([`MalformedCredential`]).
//! - What the source reads is removed, and so is every other header and every query pair that holds
//!   the key: the inner service does not see it there. All other headers pass unchanged, `Authorization`
//!   too if the source does not read it.
//! - A request without a credential is rejected with 401, unless the key is
//!   [optional](TrialKeyAuthLayer::optional).
//! - The key's record is put into the request's
//!   [`RequestContext`](crate::request::RequestContext), for the inner service and for layers
//!   outside. Of a rejected key only the id is put there.
//! - While the store fails, requests are rejected with 503, never with 401.
//!
//! # Example
//!
//! ```
//! use std::convert::Infallible;
//! use bytes::Bytes;
//! use http::{Request, Response};
//! use http_body_util::Full;
//! use tower::{ServiceBuilder, ServiceExt, service_fn};
//! use tower_quota::{
//!     auth::TrialKeyAuthLayer,
//!     key::{Limit, KeyId, KeyRecord, SecretKey},
//!     request::RequestContext,
//!     store::memory::MemoryStore,
//! };
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let store = MemoryStore::new();
//! let key = SecretKey::parse("trial-key-manual-123")?;
//! store.insert(&key, KeyRecord::new(KeyId::from("alice"), Limit::Unlimited))?;
//!
//! let hello = service_fn(|request: Request<Full<Bytes>>| async move {
//!     let key = request.extensions().get::<RequestContext>().and_then(RequestContext::key);
//!     let name = key.map(|key| key.id.to_string()).unwrap_or_default();
//!     Ok::<_, Infallible>(Response::new(Full::<Bytes>::from(format!("hello {name}"))))
//! });
//! let service = ServiceBuilder::new().layer(TrialKeyAuthLayer::new(store)).service(hello);
//!
//! let request = Request::get("/").header("authorization", "Bearer trial-key-manual-123");
//! assert_eq!(service.clone().oneshot(request.body(Full::default())?).await?.status(), 200);
//! let request = Request::get("/").header("authorization", "Bearer trial-key-guessed");
//! assert_eq!(service.oneshot(request.body(Full::default())?).await?.status(), 401);
//! # Ok(())
//! # }
//! ```

mod credential;
mod future;
mod layer;
mod rejection;
mod service;

pub use credential::{Bearer, Cookie, Credential, CredentialSource, Header, Or};
pub use future::{ResponseBody, ResponseFuture};
pub use layer::TrialKeyAuthLayer;
pub use rejection::{AuthRejection, MalformedCredential};
pub use service::TrialKeyAuth;
