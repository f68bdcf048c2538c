//! A service that forwards requests to one upstream and streams its answers back.
//!
//! # Rules
//!
//! - The path below the mount is joined to the [`UpstreamBase`] at a segment boundary; the query is
//!   kept to the byte. A path that could lead elsewhere is refused ([`RequestTarget`]).
//! - Hop-by-hop headers stop here in both directions (RFC 9110, section 7.6.1), and so do those
//!   that the [`ProxyRules`] name. The upstream's credential is added last.
//! - Bodies, trailers and lengths pass through as they are; nothing is buffered.
//! - A failure is an answer, rendered by the [`Reject`](crate::error::Reject) and marked with an
//!   [`UpstreamFault`](crate::error::UpstreamFault) in its extensions. A failure after the head
//!   breaks the body.
//! - Redirects are never followed, and protocols never switched.
//!
//! The transport is any `Service<Request<B>, Response = Response<_>>`; with the feature `client`
//! there is a ready one, [`UpstreamClient`].
//!
//! # Example
//!
//! ```
//! use std::convert::Infallible;
//! use bytes::Bytes;
//! use http::{HeaderValue, Request, Response};
//! use http_body_util::Full;
//! use tower::{ServiceExt, service_fn};
//! use tower_quota::proxy::UpstreamProxyService;
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let transport = service_fn(|request: Request<Full<Bytes>>| async move {
//!     assert_eq!(request.uri(), "https://api.example.com/v1/chat?x=1");
//!     assert_eq!(request.headers()["authorization"], "Bearer sk-sponsor");
//!     Ok::<_, Infallible>(Response::new(Full::<Bytes>::from("hello")))
//! });
//! let service = UpstreamProxyService::new(transport, "https://api.example.com/v1".parse()?)
//!     .mount("/api")
//!     .credential(HeaderValue::from_static("Bearer sk-sponsor"));
//!
//! let request = Request::get("/api/chat?x=1").body(Full::default())?;
//! assert_eq!(service.oneshot(request).await?.status(), 200);
//! # Ok(())
//! # }
//! ```

mod cache;
#[cfg(feature = "client")]
mod client;
mod error;
mod future;
mod headers;
mod mask;
mod rules;
mod service;
mod shared;
mod target;
mod timeout;
mod uri;

pub use cache::{CachedBody, CachedGet, CachedGetFuture};
#[cfg(feature = "client")]
pub use client::{ClientError, ClientOptions, UpstreamBody, UpstreamClient};
pub use error::ConnectError;
pub use future::ResponseFuture;
pub use mask::MaskedBody;
pub use rules::ProxyRules;
pub use service::UpstreamProxyService;
pub use shared::Timeouts;
pub use target::{RequestTarget, TargetError};
pub use timeout::{IdleTimeout, IdleTimeoutError};
pub use uri::{InvalidUpstreamBase, UpstreamBase};
