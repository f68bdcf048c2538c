//! Middleware that gives each subject so many requests a day, exactly.
//!
//! # Rules
//!
//! - One unit is taken before the inner service is called. For N concurrent requests with R units
//!   left exactly min(N, R) reach it; the rest are answered 429.
//! - The inner service is called at once, but its response head is held until the unit is
//!   durable ([`CommitPoint`]), so that no answered request is ever lost.
//! - A store that cannot count is 503: nothing is served uncounted.
//! - [`DailyQuotaLayer::max_in_flight`] also limits how many requests of one subject are under way
//!   at once, until their bodies have ended; one more is answered 429 and costs nothing.
//! - The unit is given back only as the [`ChargePolicy`] says, and only to the day it came from.
//! - The subject is the key that `TrialKeyAuthLayer` found, or what [`DailyQuotaLayer::subject`]
//!   makes of the request. Without a subject nothing is served (500, and a log line).
//! - A limited subject's answers carry the rate headers: `RateLimit-Policy` and `RateLimit`
//!   (draft-ietf-httpapi-ratelimit-headers) and the `x-ratelimit-*-requests` that OpenAI's clients
//!   read.
//!
//! # Example
//!
//! ```
//! use std::convert::Infallible;
//! use bytes::Bytes;
//! use http::{Request, Response, request::Parts};
//! use http_body_util::Full;
//! use tower::{ServiceBuilder, ServiceExt, service_fn};
//! use tower_quota::{
//!     key::{DailyLimit, KeyId},
//!     quota::DailyQuotaLayer,
//!     store::{QuotaSubject, memory::MemoryStore},
//! };
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let limit = DailyLimit::new(1)?;
//! let by_tenant = move |request: &Parts| {
//!     let tenant = request.headers.get("x-tenant")?.to_str().ok()?;
//!     Some(QuotaSubject::new(KeyId::from(tenant), limit))
//! };
//! let service = ServiceBuilder::new()
//!     .layer(DailyQuotaLayer::new(MemoryStore::new()).subject(by_tenant))
//!     .service(service_fn(|_: Request<Full<Bytes>>| async {
//!         Ok::<_, Infallible>(Response::new(Full::<Bytes>::from("hello")))
//!     }));
//!
//! let request = || Request::get("/").header("x-tenant", "acme").body(Full::default());
//! let first = service.clone().oneshot(request()?).await?;
//! assert_eq!(first.headers()["x-ratelimit-remaining-requests"], "0");
//! assert_eq!(service.oneshot(request()?).await?.status(), 429);
//! # Ok(())
//! # }
//! ```

mod charge;
mod future;
mod in_flight;
mod layer;
mod rejection;
mod service;
mod shared;
mod subject;
mod unit;

pub use charge::{ChargeDecision, ChargePolicy, ChargeUnlessUndone};
pub use future::ResponseFuture;
pub use layer::DailyQuotaLayer;
pub use rejection::QuotaRejection;
pub use service::DailyQuota;
pub use shared::CommitPoint;
pub use subject::{KeySubject, SubjectSource};
pub use unit::UnitObserver;
