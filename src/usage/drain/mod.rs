//! Reading on when a client has left, for the usage that an upstream tells last.
//!
//! # Rules
//!
//! - [`DrainLayer`] stands outside of the usage recorder. When an answer, or the wait for it, is
//!   dropped before its end, what stands inside goes on in a task of its own, within
//!   [`DrainLimits`]; beyond those, and where too many are drained already, it is dropped as without
//!   the layer.
//! - The layer calls [`RequestContext::set_abandoned`](crate::request::RequestContext::set_abandoned),
//!   so the event still says that the client disconnected.
//! - Nothing is boxed or counted while the layer is off.
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
//! let drain = DrainLayer::new(DrainLimits::new().time(Duration::from_secs(10)));
//! let service = drain.layer(service_fn(|_: Request<Full<Bytes>>| async {
//!     Ok::<_, Infallible>(Response::new(Full::<Bytes>::from("read to its end all the same")))
//! }));
//! drop(service.oneshot(Request::new(Full::default())).await?);
//! drain.finish(Duration::from_secs(1)).await;
//! # Ok(())
//! # }
//! ```

mod body;
mod future;
mod layer;
mod service;

pub use body::DrainBody;
pub use future::DrainFuture;
pub use layer::{DrainLayer, DrainLimits};
pub use service::Drain;
