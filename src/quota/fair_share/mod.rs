//! A limit of requests at once whose places go to waiting keys in turn, see [`FairShareLayer`].

mod layer;
mod places;
mod service;

pub use layer::FairShareLayer;
pub use service::{FairShare, FairShareBody, FairShareFuture};
