//! Middleware that limits the requests of each subject: of a key, a tenant or an address.
//!
//! | layer | limits | counts in |
//! |---|---|---|
//! | [`DailyQuotaLayer`] | requests or other units a day, or a month | a store |
//! | [`RateLimitLayer`] | requests a minute, or in another period | the memory of the process |
//! | [`InFlightLimitLayer`] | requests in flight | the memory of the process |
//!
//! [`FairShareLayer`] (feature `fair-share`) limits the requests of all subjects together, and lets them wait in turn.
//!
//! The rules of the two that need no store are with them. A rejection has the name of its limit as
//! [`policy`](crate::error::Rejection::policy): `daily` or the name of another quota, `minute`, `in_flight`.
//!
//! # Rules of the quota
//!
//! - One unit is reserved before the inner service is called. Of N concurrent requests with R units
//!   left exactly min(N, R) reach it; the others are rejected with 429.
//! - The inner service is called at once, but its response head is held until the reservation is
//!   durable ([`CommitPoint`]), so that no request that got a response is ever lost.
//! - While the store fails, requests are rejected with 503: nothing is served uncounted.
//! - A unit is refunded only where the [`ChargePolicy`] says so, and only to the day that it was
//!   reserved on.
//! - Days are those of the store's calendar. A [quota](DailyQuotaLayer::quota) of its own may be counted by another
//!   [`Period`](crate::clock::Period), such as the calendar month: what is said of days holds of that.
//! - The subject is the key in the request's [`RequestContext`](crate::request::RequestContext),
//!   which `TrialKeyAuthLayer` puts there, or the result of [`DailyQuotaLayer::subject`] or
//!   [`subject_async`](DailyQuotaLayer::subject_async). A request without a subject is rejected with 500 and
//!   logged; one that is [`Subject::Exempt`] passes uncounted.
//! - A request costs one unit, or the result of [`DailyQuotaLayer::cost`]. Its handler may take more or charge less
//!   through its [`RequestReservation`].
//! - A [shadow](DailyQuotaLayer::shadow) counts and rejects nothing.
//! - Responses to a limited subject have the rate limit headers `RateLimit-Policy` and `RateLimit`
//!   (draft-ietf-httpapi-ratelimit-headers), or those of [`DailyQuotaLayer::headers`]. Of several
//!   [quotas](DailyQuotaLayer::quota) these list all. A rejection shows the exhausted quota alone, also through the
//!   quotas outside of it, which refund their units, and also if a handler rejects the request because it could not
//!   take further units. It has no `Retry-After`, by which clients would sleep for hours.
//!
//! # Order
//!
//! The layer that identifies the subject is outside of the quota and of the limits. A limit is best outside of the quota,
//! as what it rejects has not reserved a unit then. Outside in a `ServiceBuilder` is what comes before; each
//! `layer` of an axum `Router` is outside of those before it, so that it comes after. Use `Router::route_layer`:
//! `Router::layer` also stands around the fallback, and a 404 of the router costs a unit. A 405 costs one with
//! both, and none with `MethodRouter::route_layer`. For scripts of other origins, `CorsLayer::expose_headers` names
//! the rate limit headers.
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
//!     key::{Limit, KeyId},
//!     quota::DailyQuotaLayer,
//!     store::{QuotaSubject, memory::MemoryStore},
//! };
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let limit = Limit::Units(1);
//! let quota = DailyQuotaLayer::new(MemoryStore::new()).subject(move |request| {
//!     let tenant = request.headers.get("x-tenant")?.to_str().ok()?;
//!     Some(QuotaSubject::new(KeyId::from(tenant), limit))
//! });
//! let service = ServiceBuilder::new()
//!     .layer(quota)
//!     .service(service_fn(|_: Request<Full<Bytes>>| async {
//!         Ok::<_, Infallible>(Response::new(Full::<Bytes>::from("hello")))
//!     }));
//!
//! let request = || Request::get("/").header("x-tenant", "acme").body(Full::default());
//! let first = service.clone().oneshot(request()?).await?;
//! assert_eq!(first.headers()["ratelimit-policy"], "\"daily\";q=1;w=86400");
//! assert_eq!(service.oneshot(request()?).await?.status(), 429);
//! # Ok(())
//! # }
//! ```

mod body;
#[cfg(feature = "fair-share")]
mod fair_share;
mod future;
mod in_flight;
mod layer;
mod limit;
mod policy;
mod rate;
mod rejection;
mod request_reservation;
mod reservation;
mod rule;
mod service;
mod units;

pub use body::ResponseBody;
#[cfg(feature = "fair-share")]
pub use fair_share::{FairShare, FairShareBody, FairShareFuture, FairShareLayer};
pub use future::ResponseFuture;
pub use in_flight::{InFlightLimit, InFlightLimitBody, InFlightLimitFuture, InFlightLimitLayer};
pub use layer::DailyQuotaLayer;
pub use policy::{
    ChargeDecision, ChargePolicy, ChargeUnlessUndone, CommitPoint, InnerError, ResponseEnd, Subject,
};
pub use rate::{RateLimit, RateLimitBody, RateLimitFuture, RateLimitLayer};
pub use rejection::{LimitRejection, QuotaRejection};
pub use request_reservation::RequestReservation;
pub use rule::QuotaRule;
pub use service::DailyQuota;
