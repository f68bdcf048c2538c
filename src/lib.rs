//! Exact quotas for Tower services: issued keys, a number of requests a day for each, a ledger of
//! what was used, and a streaming gateway made of these.
//!
//! - **Exact**: with R units left and any number of concurrent requests, exactly R are admitted.
//! - **Durable** with [`SqliteStore`](store::sqlite::SqliteStore): a request that got a response is counted
//!   after a `kill -9`.
//! - **Composable**: each layer works alone and around any inner service, body and error, under hyper, axum,
//!   tonic or anything else that is a Tower service.
//!
//! # From an empty project to a 429
//!
//! ```sh
//! cargo new app && cd app
//! cargo add axum tower tower-quota
//! cargo add tokio --features full
//! ```
//!
//! In `src/main.rs`, for a key with two requests a day:
//!
//! ```no_run
//! use axum::{Router, routing::get};
//! use tokio::net::TcpListener;
//! use tower::ServiceBuilder;
//! use tower_quota::{
//!     auth::TrialKeyAuthLayer,
//!     key::{KeyId, KeyRecord, Limit, SecretKey},
//!     quota::DailyQuotaLayer,
//!     store::memory::MemoryStore,
//! };
//!
//! #[tokio::main]
//! async fn main() -> Result<(), Box<dyn std::error::Error>> {
//!     let store = MemoryStore::new();
//!     let key = SecretKey::parse("trial-alice-key-123")?;
//!     store.insert(&key, KeyRecord::new(KeyId::from("alice"), Limit::Units(2)))?;
//!
//!     let quota = ServiceBuilder::new()
//!         .layer(TrialKeyAuthLayer::new(store.clone()))
//!         .layer(DailyQuotaLayer::new(store));
//!     let app = Router::new().route("/", get(|| async { "hello\n" })).route_layer(quota);
//!
//!     let listener = TcpListener::bind("127.0.0.1:0").await?;
//!     let address = listener.local_addr()?;
//!     println!("curl -i -H 'Authorization: Bearer {}' http://{address}", key.expose());
//!     Ok(axum::serve(listener, app).await?)
//! }
//! ```
//!
//! `cargo run` prints a command. Its first two responses are 200 with the headers of the quota, the third is
//! 429:
//!
//! ```text
//! HTTP/1.1 200 OK
//! ratelimit-policy: "daily";q=2;w=86400
//! ratelimit: "daily";r=1;t=31250
//!
//! hello
//! ```
//!
//! Counts and keys outlast the process in a [`SqliteStore`](store::sqlite::SqliteStore): `cargo add tower-quota --features sqlite`,
//! and in place of the first lines
//!
//! ```no_run
//! use tower_quota::{error::StoreErrorKind, store::sqlite::SqliteStore};
//!
//! # use tower_quota::key::{KeyId, KeyRecord, Limit, SecretKey};
//! # #[tokio::main]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let store = SqliteStore::open("quota.db")?;
//! let key = SecretKey::parse("trial-alice-key-123")?;
//! match store.insert(&key, KeyRecord::new(KeyId::from("alice"), Limit::Units(2))).await {
//!     // An earlier start has issued it.
//!     Err(error) if error.kind() == StoreErrorKind::Conflict => {}
//!     issued => issued?,
//! }
//! # Ok(())
//! # }
//! ```
//!
//! Keys are rows of the table `api_keys`, which [`admin_service()`](admin::admin_service) or your own SQL inserts, too.
//!
//! # Modules
//!
//! | module | provides |
//! |---|---|
//! | [`auth`] | `TrialKeyAuthLayer`: passes only requests with an issued key |
//! | [`quota`] | `DailyQuotaLayer`: an exact number of requests a day for each key, tenant or address; `RateLimitLayer` and `InFlightLimitLayer`: of requests a minute, and in flight |
//! | [`usage`] | `UsageRecorderLayer`: one event for each request, when its body has ended; the key holder's report |
//! | [`proxy`] | `UpstreamProxyService`: forwards to one upstream and streams the response back |
//! | [`admin`] | `admin_service()`: issues and changes keys; reports, audit trail, web page |
//! | [`openai`] | presets for OpenAI-compatible APIs: errors, header rules, the format of usage; and `StreamUsageLayer`: requests the usage of streams and hides it from clients that did not request it |
//! | [`server`] | `serve()`: HTTP/1 and HTTP/2 that holds against slow, broken and hostile clients |
//! | [`store`] | the store traits, `MemoryStore`, `SqliteStore` |
//! | [`metrics`] | names and descriptions of what is counted through the `metrics` facade |
//! | [`request`] | `RequestContext`: what the layers and your services know of one request |
//! | [`key`], [`clock`], [`error`], [`body`] | what the others share |
//!
//! # Which store
//!
//! | store | keeps counts over | for |
//! |---|---|---|
//! | [`MemoryStore`](store::memory::MemoryStore) | nothing: they end with the process | tests; quotas that may start again with a restart |
//! | [`SqliteStore`](store::sqlite::SqliteStore) | `kill -9`; after a loss of power no more than the limit is admitted | one machine |
//! | [`PostgresStore`](store::postgres::PostgresStore) | the same, with a journal on the machine that counts | keys and reports in a database that others look after |
//! | your own [`QuotaStore`](store::QuotaStore) and [`KeyStore`](store::KeyStore) | what it keeps them over | keys and counts that live elsewhere |
//!
//! # Order of layers
//!
//! A `ServiceBuilder` runs its first layer first; axum's `Router::layer` and `route_layer`, called several times,
//! run the last one first. So put them into one `ServiceBuilder`:
//!
//! | order | effect |
//! |---|---|
//! | `CorsLayer`, then auth | preflights need no key, and rejections can be read by browsers |
//! | auth, then quota | the quota counts on the key. The other way around it has no subject and responds 500 |
//! | auth, limits, quota | what a [`RateLimitLayer`](quota::RateLimitLayer) or an [`InFlightLimitLayer`](quota::InFlightLimitLayer) rejects has not reserved a unit |
//! | usage, auth, quota | events of all requests, also of rejected ones |
//! | auth, usage, quota | events of requests with a valid key |
//! | auth, quota, usage | events of admitted requests |
//! | `TimeoutLayer`, then quota | a request that times out stays counted; the other way around, it is refunded if the timeout is an error or a 5xx |
//!
//! In axum, `route_layer` leaves requests to unknown paths out, which would cost a unit before they get their 404.
//!
//! The layers meet in the request's [`RequestContext`](request::RequestContext) only.
//!
//! # Features
//!
//! | feature | adds | default |
//! |---|---|---|
//! | `auth` | [`auth`] | yes |
//! | `quota` | [`quota`] | yes |
//! | `memory` | [`MemoryStore`](store::memory::MemoryStore): counts are lost when the process ends | yes |
//! | `sqlite` | [`SqliteStore`](store::sqlite::SqliteStore): exact after `kill -9`; compiles SQLite, needs a C compiler | |
//! | `postgres` | [`PostgresStore`](store::postgres::PostgresStore): the same over PostgreSQL 13 or later, with TLS by rustls | |
//! | `fair-share` | [`FairShareLayer`](quota::FairShareLayer): limits requests at once, and lets others wait in turn by key; needs Tokio's timers | |
//! | `usage` | [`usage`]; decodes gzip and deflate by flate2 | |
//! | `drain` | [`DrainLayer`](usage::DrainLayer): reads responses to their end after the client has left, in a Tokio task | |
//! | `proxy` | [`proxy`]; needs Tokio's timers | |
//! | `client` | [`upstream_client`](proxy::upstream_client): the transport of [`proxy`] over hyper and rustls | |
//! | `admin` | [`admin`]; the web page and OpenAPI are compiled in | |
//! | `openai` | [`openai`] | |
//! | `server` | [`server`] over hyper and Tokio | |
//! | `metrics` | counts through the `metrics` facade; next to no cost without a recorder | |
//! | `serde` | `Serialize` of ids, days, usage events and figures | |
//! | `full` | all of them | |
//!
//! # The gateway
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
#[cfg(feature = "server")]
pub mod server;
pub mod store;
#[cfg(feature = "usage")]
pub mod usage;
