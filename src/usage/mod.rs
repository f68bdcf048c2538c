//! Middleware that tells of every request once, at its true end.
//!
//! # Rules
//!
//! - One [`UsageEvent`] a request, refused ones included: when the body's last frame was handed
//!   on, when it failed, or when the client left.
//! - Bodies are watched, never changed, copied or re-serialised. Tokens and model are what the
//!   answer itself tells, in JSON or in server-sent events; a compressed answer tells none. The model
//!   asked for is the `model` of a JSON request.
//! - It may stand outside or inside of the auth and quota layers; what a layer refuses is told of
//!   only if it stands outside of that. The key's id is read from the request's or the response's
//!   extensions, units (and, outside of auth, the key's id) from [`Units`](crate::store::Units).
//! - Whoever wants to hear of one request only puts an [`OnEvent`] into its extensions.
//!
//! # Example
//!
//! ```
//! use std::{convert::Infallible, sync::{Arc, Mutex}};
//! use bytes::Bytes;
//! use http::{Request, Response};
//! use http_body_util::{BodyExt, Full};
//! use tower::{ServiceBuilder, ServiceExt, service_fn};
//! use tower_quota::{store::{Outcome, UsageEvent, UsageSink}, usage::{RequestBody, UsageRecorderLayer}};
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
//! let answer = service.oneshot(Request::new(Full::default())).await?;
//! assert_eq!(answer.into_body().collect().await?.to_bytes(), ANSWER);
//! let events = events.0.lock().expect("no panic while locked");
//! assert_eq!(events[0].outcome, Outcome::Succeeded);
//! assert_eq!(events[0].tokens.map(|tokens| tokens.total), Some(5));
//! # Ok(())
//! # }
//! ```

#[cfg(feature = "drain")]
pub mod drain;
mod figures;
mod future;
mod layer;
mod member;
#[cfg(feature = "metrics")]
mod meter;
mod on_event;
mod page;
mod recorder;
mod report;
mod scan;
mod service;
mod tokens;
mod upload;

pub use crate::store::{Outcome, Tokens, UsageEvent, UsageSink};
#[cfg(feature = "drain")]
pub use drain::{DrainLayer, DrainLimits};
pub use future::ResponseFuture;
pub use layer::UsageRecorderLayer;
pub use on_event::OnEvent;
pub use page::{usage_page, wants_page};
pub use recorder::UsageObserver;
pub use report::{UsageBody, UsageFuture, UsageService, usage_service};
pub use service::UsageRecorder;
pub use upload::{RequestBody, UploadObserver};
