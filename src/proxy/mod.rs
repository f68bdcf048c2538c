//! A streaming proxy to one upstream.
//!
//! [`UpstreamProxyService`] checks the target ([`RequestTarget`]), rewrites it onto the
//! [`UpstreamBase`], removes hop-by-hop headers and those that the [`ProxyRules`] name, adds the
//! sponsor's credential, and streams both bodies frame by frame. Its rules:
//!
//! - Each incoming request causes at most one request to the upstream; redirects are never followed.
//!   The transport may retry what the upstream cannot have seen, as `UpstreamClient` does.
//! - Failures are responses. A failure after the response head breaks the body off and never ends it
//!   as if it were complete.
//! - A request body that ends without an error is complete. hyper's server also ends a body without
//!   an error when an HTTP/2 client resets its stream with `NO_ERROR`; the gateway example detects
//!   that.
//! - Upgrades to websockets are rejected (501); other offers to upgrade are ignored (RFC 9110, section
//!   7.8).
//! - No text of an upstream's failure reaches a client; it is logged.
//! - The request's extensions are not forwarded, and the response's extensions start empty.
//!
//! [`CachedGet`] caches the response of one `GET`. With the feature `client`, `upstream_client`
//! creates the transport; without it, any service of `http` types will do.

mod body;
mod cached_get;
#[cfg(feature = "client")]
mod client;
mod credential;
mod error;
mod forward;
mod future;
mod headers;
mod rules;
mod service;
mod target;
mod timeout;

pub use body::{RequestBody, ResponseBody};
pub use cached_get::CachedGet;
#[cfg(feature = "client")]
pub use client::{
    ClientError, ClientOptions, UpstreamBody, UpstreamCall, UpstreamClient, upstream_client,
    upstream_client_over,
};
pub use credential::{CredentialCooldown, UpstreamCredential};
pub use error::ConnectError;
pub use future::ResponseFuture;
pub use headers::HeaderRules;
pub use rules::ProxyRules;
pub use service::UpstreamProxyService;
pub use target::{InvalidBase, RequestTarget, TargetError, UpstreamBase};
pub use timeout::Timeouts;
