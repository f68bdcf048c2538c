//! A streaming proxy to one upstream.
//!
//! [`UpstreamProxyService`] checks the target ([`RequestTarget`]), rewrites it onto the
//! [`UpstreamBase`], drops the headers that end here ([`ProxyRules`]), adds the sponsor's
//! credential, and passes both bodies on frame by frame. Its rules:
//!
//! - One request in makes at most one request out; redirects are never followed. The transport may
//!   send again what the upstream cannot have seen, as `UpstreamClient` does.
//! - Failures are answers. One after the head was sent breaks the body and never ends it as if
//!   complete.
//! - A request's body that ends without an error is taken for whole. hyper's server ends one that an
//!   HTTP/2 client has reset with `NO_ERROR` in the same way; the gateway example tells them apart.
//! - Upgrades to websockets are refused (501); other offers to upgrade are not taken up (RFC 9110,
//!   section 7.8).
//! - No text of an upstream's failure reaches a client; it goes to the log.
//! - The request's extensions stay on this side, the response's start empty.
//!
//! [`CachedGet`] keeps the answer of one `GET`. With the feature `client`, `upstream_client`
//! makes the transport; without it, any service of `http` types is one.

mod cache;
#[cfg(feature = "client")]
mod client;
mod coding;
#[cfg(feature = "client")]
mod connection;
#[cfg(feature = "client")]
mod connector;
mod cooldown;
mod credential;
mod error;
mod excerpt;
#[cfg(feature = "client")]
mod exchange;
mod framing;
mod future;
mod headers;
mod host;
mod joined;
mod mask;
mod passed;
mod path;
#[cfg(feature = "client")]
mod resend;
mod rules;
mod secret;
mod service;
#[cfg(feature = "client")]
mod shards;
mod shared;
mod target;
mod timeout;
mod upgrade;
mod upload;
mod uri;

pub use cache::CachedGet;
#[cfg(feature = "client")]
pub use client::{
    ClientError, ClientOptions, UpstreamBody, UpstreamCall, UpstreamClient, upstream_client,
    upstream_client_over,
};
pub use cooldown::CredentialCooldown;
pub use credential::UpstreamCredential;
pub use error::ConnectError;
pub use future::ResponseFuture;
pub use headers::{HeaderRules, TrustedPeer};
pub use passed::PassedBody;
pub use rules::ProxyRules;
pub use service::UpstreamProxyService;
pub use target::{RequestTarget, TargetError};
pub use timeout::Timeouts;
pub use upload::RequestBody;
pub use uri::{InvalidBase, UpstreamBase};

use crate::body::ResponseBody;

/// The body of a proxied answer.
pub type ProxyBody<B> = ResponseBody<PassedBody<B, <B as http_body::Body>::Data>>;
