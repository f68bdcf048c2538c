//! Middleware that reads responses to their end when their clients have left, for the usage that an
//! upstream reports last.
//!
//! # Rules
//!
//! - [`DrainLayer`] stands outside of the usage recorder. When a response, or its future, is dropped before
//!   its end, a task reads the rest within [`DrainLimits`]. Beyond those, and if too many responses are being
//!   drained already, it is dropped as without the layer.
//! - The layer calls [`RequestContext::set_abandoned`](crate::request::RequestContext::set_abandoned),
//!   so the event says nevertheless that the client left.
//! - While the layer is off, nothing is boxed or counted.
//!
//! # Example
//!
//! ```
//! use std::{convert::Infallible, time::Duration};
//! use bytes::Bytes;
//! use http::{Request, Response};
//! use http_body_util::Full;
//! use tower::{Layer, ServiceExt, service_fn};
//! use tower_quota::usage::{DrainLayer, DrainLimits};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Infallible> {
//! let drain = DrainLayer::new(DrainLimits::new().max_time(Duration::from_secs(10)));
//! let service = drain.layer(service_fn(|_: Request<Full<Bytes>>| async {
//!     Ok::<_, Infallible>(Response::new(Full::<Bytes>::from("read to its end nevertheless")))
//! }));
//! drop(service.oneshot(Request::new(Full::default())).await?);
//! drain.finish(Duration::from_secs(1)).await;
//! # Ok(())
//! # }
//! ```

mod body;
mod layer;
mod service;

pub use body::DrainBody;
pub use layer::{DrainLayer, DrainLimits};
pub use service::{Drain, DrainFuture};
