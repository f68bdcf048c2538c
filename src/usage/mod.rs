//! Middleware that records one event for each request, at the end of its response.
//!
//! # Rules
//!
//! - There is one [`UsageEvent`](crate::store::UsageEvent) for each request, rejected ones included: when the last frame of the
//!   response body was sent, when the body failed, or when the client left.
//! - Bodies are observed, never changed, copied or re-serialised. Tokens and model are those that the
//!   response reports in the [format](UsageRecorderLayer::format) of the API, such as
//!   `openai::OpenAiUsage`; without one they are unknown. A response in gzip or deflate is read through a
//!   decoded copy of at most 16 MiB; of one that is longer, or in another coding, nothing is known. The
//!   client gets the response as it came.
//! - Requests are passed on as they are, so their length and model are unknown, unless
//!   [`UsageRecorderLayer::watch_requests`] wraps their bodies. The requested model is the first `model` of
//!   the object that a JSON request is.
//! - The recorder may stand outside or inside of the auth and quota layers; it records the requests that a
//!   layer rejects only if it stands outside of that layer. Key and units are read from the request's
//!   [`RequestContext`](crate::request::RequestContext); without a key, the event has the id of the quota's
//!   [subject](crate::request::RequestContext::subject).
//! - A call of gRPC has failed if the response's `grpc-status` says so, in its trailers or its head. The
//!   event's code is the status: `grpc_internal`.
//! - [`RequestContext::on_event`](crate::request::RequestContext::on_event) reports the event of one
//!   request only.
//!
//! # Example
//!
//! ```
//! use std::{convert::Infallible, sync::{Arc, Mutex}};
//! use bytes::Bytes;
//! use http::{Request, Response};
//! use http_body_util::{BodyExt, Full};
//! use tower::{ServiceBuilder, ServiceExt, service_fn};
//! use tower_quota::{
//!     openai::OpenAiUsage,
//!     store::{RequestOutcome, UsageEvent, UsageSink},
//!     usage::UsageRecorderLayer,
//! };
//!
//! #[derive(Clone, Default)]
//! struct Events(Arc<Mutex<Vec<UsageEvent>>>);
//!
//! impl UsageSink for Events {
//!     fn record(&self, event: UsageEvent) {
//!         self.0.lock().expect("no panic while locked").push(event);
//!     }
//! }
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! const RESPONSE: &str = r#"{"model":"m","usage":{"prompt_tokens":2,"completion_tokens":3,"total_tokens":5}}"#;
//! let events = Events::default();
//! let service = ServiceBuilder::new()
//!     .layer(UsageRecorderLayer::new(events.clone()).format(OpenAiUsage))
//!     .service(service_fn(|_: Request<Full<Bytes>>| async {
//!         Ok::<_, Infallible>(Response::new(Full::<Bytes>::from(RESPONSE)))
//!     }));
//!
//! let response = service.oneshot(Request::post("/").body(Full::default())?).await?;
//! assert_eq!(response.into_body().collect().await?.to_bytes(), RESPONSE);
//! let events = events.0.lock().expect("no panic while locked");
//! assert_eq!(events[0].outcome, RequestOutcome::Succeeded);
//! assert_eq!(events[0].tokens.map(|tokens| tokens.total), Some(5));
//! # Ok(())
//! # }
//! ```

#[cfg(feature = "drain")]
mod drain;
mod format;
mod inflate;
mod layer;
mod metrics;
mod page;
mod recorder;
mod report;
mod request_body;
pub(crate) mod scanner;
mod service;

#[cfg(feature = "drain")]
pub use drain::{Drain, DrainBody, DrainFuture, DrainLayer, DrainLimits};
pub use format::{ReportedUsage, UsageFormat, UsageParser};
pub use layer::{UsageRecorderLayer, WatchRequests};
pub use page::{prefers_html, usage_page};
pub use report::{UsageBody, UsageFuture, UsageService, usage_service};
pub use request_body::RequestBody;
pub use service::{ResponseBody, ResponseFuture, UsageRecorder};
