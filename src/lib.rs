//! Tower middleware for issued keys, exact daily quotas and a usage ledger, a streaming upstream
//! proxy and an admin service.
//!
//! | module | provides |
//! |---|---|
//! | [`auth`] | `TrialKeyAuthLayer`: passes only requests with an issued key |
//! | [`quota`] | `DailyQuotaLayer`: an exact number of requests a day for each key |
//! | [`usage`] | `UsageRecorderLayer`: one event for each request, when its body has ended; the key holder's report |
//! | [`proxy`] | `UpstreamProxyService`: forwards to one upstream and streams the response back |
//! | [`admin`] | `admin_service()`: issues and changes keys; reports, audit trail, web page |
//! | [`openai`] | presets for OpenAI-compatible APIs: errors, header rules, the format of usage; and `StreamUsageLayer`: requests the usage of streams and hides it from clients that did not request it |
//! | [`store`] | the store traits, `MemoryStore`, `SqliteStore` |
//! | [`metrics`] | names and descriptions of what is counted through the `metrics` facade |
//! | [`request`] | `RequestContext`: what the layers and your services know of one request |
//! | [`key`], [`clock`], [`error`], [`body`] | what the others share |
//!
//! Each layer can be used alone, in any order, around any inner service: the layers meet in
//! the request's [`RequestContext`](request::RequestContext) only.
//!
//! # Features
//!
//! | feature | adds | default |
//! |---|---|---|
//! | `auth` | [`auth`] | yes |
//! | `quota` | [`quota`] | yes |
//! | `memory` | [`MemoryStore`](store::memory::MemoryStore): counts are lost when the process ends | yes |
//! | `sqlite` | [`SqliteStore`](store::sqlite::SqliteStore): exact after `kill -9`; compiles SQLite, needs a C compiler | |
//! | `usage` | [`usage`]; decodes gzip and deflate by flate2 | |
//! | `drain` | [`DrainLayer`](usage::DrainLayer): reads responses to their end after the client has left, in a Tokio task | |
//! | `proxy` | [`proxy`]; needs Tokio's timers | |
//! | `client` | [`upstream_client`](proxy::upstream_client): the transport of [`proxy`] over hyper and rustls | |
//! | `admin` | [`admin`]; the web page and OpenAPI are compiled in | |
//! | `openai` | [`openai`] | |
//! | `metrics` | counts through the `metrics` facade; next to no cost without a recorder | |
//! | `serde` | `Serialize` of ids, days, usage events and figures | |
//! | `full` | all of them | |
//!
//! # The whole stack
//!
//! ```
//! use std::convert::Infallible;
//! use bytes::Bytes;
//! use http::{HeaderValue, Request, Response};
//! use http_body_util::{BodyExt, Full};
//! use tower::{ServiceBuilder, ServiceExt, service_fn};
//! use tower_quota::{
//!     auth::TrialKeyAuthLayer,
//!     key::{Limit, KeyId, KeyRecord, SecretKey},
//!     openai::{self, OpenAiErrors, OpenAiRateHeaders, OpenAiUsage},
//!     proxy::UpstreamProxyService,
//!     quota::DailyQuotaLayer,
//!     store::memory::MemoryStore,
//!     usage::UsageRecorderLayer,
//! };
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
//! let store = MemoryStore::new();
//! let key = SecretKey::generate("alice", "2026-11-22".parse()?)?;
//! store.insert(&key, KeyRecord::new(KeyId::generate(), Limit::Units(1)))?;
//!
//! // Any service that sends a request to the upstream; `proxy::upstream_client` returns a real one.
//! async fn transport<B>(request: Request<B>) -> Result<Response<Full<Bytes>>, Infallible> {
//!     assert_eq!(request.uri(), "https://api.deepseek.com/v1/chat/completions");
//!     assert_eq!(request.headers()["authorization"], "Bearer sk-sponsor");
//!     Ok(Response::new("hello".into()))
//! }
//! let upstream = UpstreamProxyService::new(service_fn(transport), "https://api.deepseek.com/v1".parse()?)
//!     .mount("/v1")
//!     .credential(HeaderValue::from_static("Bearer sk-sponsor"))
//!     .rules(openai::proxy_rules())
//!     .reject(OpenAiErrors);
//! let gateway = ServiceBuilder::new()
//!     .layer(TrialKeyAuthLayer::new(store.clone()).reject(OpenAiErrors))
//!     .layer(UsageRecorderLayer::new(store.clone()).format(OpenAiUsage))
//!     .layer(DailyQuotaLayer::new(store).headers(OpenAiRateHeaders).reject(OpenAiErrors))
//!     .service(upstream);
//!
//! let request = || {
//!     Request::post("/v1/chat/completions")
//!         .header("host", "gateway.example")
//!         .header("authorization", format!("Bearer {}", key.expose()))
//!         .body(Full::<Bytes>::default())
//! };
//! let response = gateway.clone().oneshot(request()?).await?;
//! assert_eq!(response.headers()["x-ratelimit-remaining-requests"], "0");
//! assert_eq!(response.into_body().collect().await?.to_bytes(), "hello");
//! assert_eq!(gateway.oneshot(request()?).await?.status(), 429);
//! # Ok(())
//! # }
//! ```
#![cfg_attr(docsrs, feature(doc_cfg))]
#![cfg_attr(not(test), warn(clippy::unwrap_used))]

#[macro_use]
mod macros;

#[cfg(feature = "admin")]
pub mod admin;
#[cfg(feature = "auth")]
pub mod auth;
pub mod body;
pub mod clock;
#[cfg(any(feature = "openai", feature = "proxy", feature = "usage"))]
mod content;
#[cfg(any(feature = "auth", feature = "proxy"))]
mod copies;
pub mod error;
pub mod key;
mod limit;
pub mod metrics;
#[cfg(feature = "openai")]
pub mod openai;
#[cfg(any(feature = "admin", feature = "usage"))]
mod page;
#[cfg(feature = "proxy")]
pub mod proxy;
#[cfg(feature = "quota")]
pub mod quota;
pub mod request;
pub mod store;
#[cfg(feature = "usage")]
pub mod usage;
