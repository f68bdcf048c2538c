//! Responses that are read to their end after their clients have left, see [`DrainLayer`].

mod body;
mod layer;
mod service;

pub use body::DrainBody;
pub use layer::{DrainLayer, DrainLimits};
pub use service::{Drain, DrainFuture};
