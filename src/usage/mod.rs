//! Middleware that tells of every request once, at its true end.
//!
//! # Rules
//!
//! - One [`UsageEvent`] a request, refused ones included: when the body's last frame was handed
//!   on, when it failed, or when the client left.
//! - Bodies are watched, never changed, copied or re-serialised. Tokens and model are what the
//!   answer itself tells, as [below](#tokens). The model asked for is the first `model` of a JSON
//!   request's object.
//! - It may stand outside or inside of the auth and quota layers; what a layer refuses is told of
//!   only if it stands outside of that. Key and units are read from the request's
//!   [`RequestContext`](crate::request::RequestContext).
//! - [`RequestContext::on_event`](crate::request::RequestContext::on_event) reports the event of one
//!   request only.
//!
//! # Tokens
//!
//! - Read are 2xx answers to `POST` in JSON or in server-sent events. An answer to anything else shows
//!   again what was billed before. An answer in gzip or deflate is read through a decoded copy, of at
//!   most 16 MiB; of one that is longer, or in another coding, nothing is known. The client gets it as
//!   it came.
//! - Read are `usage` and `model` of the object that is the answer or an event's data, and of its
//!   members `response` (the events of `/v1/responses`) and `message` (Anthropic's `message_start`).
//!   Where none of these has a `usage`, that of `x_groq` or of the first of `choices` (Kimi) is read.
//!   What lies elsewhere may be the client's own words. The first model told of counts.
//! - A figure that is told several times counts as told last, and one that is left out or zero then
//!   stays, but for the total. Of two sets of names, `prompt_tokens` and `completion_tokens` win, unless
//!   they are zero. A figure may be written as `11`, `11.0` or `1.1e1`.
//! - The prompt is all input that was billed: where Anthropic's names tell cached input beside
//!   `input_tokens`, their sum. Cached tokens are those that were read from a cache.
//! - A total that is not told, or 0, is the sum. One that is told may be more than prompt and completion
//!   together, as some hold thoughts besides, but not less.
//! - Tokens are unknown if there is no figure for prompt or completion (embeddings need none for that,
//!   if the total is the prompt), if the figures cannot be, or if any `usage` cannot be read. Cached and
//!   reasoning tokens that cannot be are unknown by themselves.
//! - Of a stream that broke off or whose client has left, tokens are known if it had told the last of
//!   them: in an event with empty `choices`, in `response` or `x_groq`, or before `[DONE]` or
//!   `message_stop`. JSON tells them once, so they stand however it ends.
//!
//! # Example
//!
//! ```
//! use std::{convert::Infallible, sync::{Arc, Mutex}};
//! use bytes::Bytes;
//! use http::{Request, Response};
//! use http_body_util::{BodyExt, Full};
//! use tower::{ServiceBuilder, ServiceExt, service_fn};
//! use tower_quota::{store::{RequestOutcome, UsageEvent, UsageSink}, usage::{RequestBody, UsageRecorderLayer}};
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
//! const ANSWER: &str = r#"{"model":"m","usage":{"prompt_tokens":2,"completion_tokens":3,"total_tokens":5}}"#;
//! let events = Events::default();
//! let service = ServiceBuilder::new()
//!     .layer(UsageRecorderLayer::new(events.clone()))
//!     .service(service_fn(|_: Request<RequestBody<Full<Bytes>>>| async {
//!         Ok::<_, Infallible>(Response::new(Full::<Bytes>::from(ANSWER)))
//!     }));
//!
//! let answer = service.oneshot(Request::post("/").body(Full::default())?).await?;
//! assert_eq!(answer.into_body().collect().await?.to_bytes(), ANSWER);
//! let events = events.0.lock().expect("no panic while locked");
//! assert_eq!(events[0].outcome, RequestOutcome::Succeeded);
//! assert_eq!(events[0].tokens.map(|tokens| tokens.total), Some(5));
//! # Ok(())
//! # }
//! ```

mod answer;
#[cfg(feature = "drain")]
pub mod drain;
mod event;
mod figures;
mod future;
mod inflate;
mod layer;
mod member;
mod meter;
mod page;
mod recorder;
mod report;
mod service;
mod tokens;
mod upload;

pub use crate::store::{RequestOutcome, Tokens, UsageEvent, UsageSink};
#[cfg(feature = "drain")]
pub use drain::{DrainLayer, DrainLimits};
pub use future::ResponseFuture;
pub use layer::UsageRecorderLayer;
pub use page::{prefers_html, usage_page};
pub use recorder::UsageObserver;
pub use report::{UsageBody, UsageFuture, UsageService, usage_service};
pub use service::UsageRecorder;
pub use upload::{RequestBody, UploadObserver};
