//! Middleware that records one event for each request, at the end of its response.
//!
//! # Rules
//!
//! - There is one [`UsageEvent`](crate::store::UsageEvent) for each request, rejected ones included: when the last frame of the
//!   response body was sent, when the body failed, or when the client left.
//! - Bodies are observed, never changed, copied or re-serialised. Tokens and model are those that the
//!   response reports, as [below](#tokens).
//! - Requests are passed on as they are, so their length and model are unknown, unless
//!   [`UsageRecorderLayer::watch_requests`] wraps their bodies. The requested model is the first `model` of
//!   the object that a JSON request is.
//! - The recorder may stand outside or inside of the auth and quota layers; it records the requests that a
//!   layer rejects only if it stands outside of that layer. Key and units are read from the request's
//!   [`RequestContext`](crate::request::RequestContext).
//! - [`RequestContext::on_event`](crate::request::RequestContext::on_event) reports the event of one
//!   request only.
//!
//! # Tokens
//!
//! - Usage is read of 2xx responses to `POST` in JSON or in server-sent events. A response to another
//!   method repeats what was billed before. A response in gzip or deflate is read through a decoded copy of
//!   at most 16 MiB; of one that is longer, or in another coding, nothing is known. The client gets the
//!   response as it came.
//! - Read are `usage` and `model` of the object that the response or an event's data is, and of its
//!   members `response` (the events of `/v1/responses`) and `message` (Anthropic's `message_start`).
//!   If none of these has a `usage`, that of `x_groq` or of the first of `choices` (Kimi) is read.
//!   Anything else may be the client's own words. The first model that is reported counts.
//! - The last report of a figure counts. One that is missing or zero in a later report stays, except for the
//!   total. Of two sets of names, `prompt_tokens` and `completion_tokens` win, unless they are zero. A figure
//!   may be written as `11`, `11.0` or `1.1e1`.
//! - The prompt is all input that was billed: where Anthropic's names count cached input beside
//!   `input_tokens`, their sum. Cached tokens are those that were read from a cache.
//! - A total that is missing, or 0, is the sum. One that is reported may be more than prompt and completion
//!   together, as some include reasoning besides, but not less.
//! - Tokens are unknown if there is no figure for prompt or completion (embeddings need none for the
//!   completion if the total is the prompt), if the figures are impossible, or if any `usage` cannot be
//!   read. Cached and reasoning tokens that are impossible are unknown by themselves.
//! - Of a stream that broke off or whose client has left, tokens are known if it had reported the last of
//!   them: in an event with empty `choices`, in `response` or `x_groq`, or before `[DONE]` or
//!   `message_stop`. JSON reports them once, so they count however it ends.
//!
//! # Example
//!
//! ```
//! use std::{convert::Infallible, sync::{Arc, Mutex}};
//! use bytes::Bytes;
//! use http::{Request, Response};
//! use http_body_util::{BodyExt, Full};
//! use tower::{ServiceBuilder, ServiceExt, service_fn};
//! use tower_quota::{store::{RequestOutcome, UsageEvent, UsageSink}, usage::UsageRecorderLayer};
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
//!     .layer(UsageRecorderLayer::new(events.clone()))
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
pub mod drain;
mod layer;
mod metrics;
mod page;
mod parse;
mod recorder;
mod report;
mod request_body;
mod service;

#[cfg(feature = "drain")]
pub use drain::{DrainLayer, DrainLimits};
pub use layer::{UsageRecorderLayer, WatchRequests};
pub use page::{prefers_html, usage_page};
pub use report::{UsageBody, UsageFuture, UsageService, usage_service};
pub use request_body::RequestBody;
pub use service::{ResponseBody, ResponseFuture, UsageRecorder};
