//! What the middleware says when it answers in the inner service's place.
//!
//! A layer that refuses a request builds a [`Rejection`] (what happened) and hands it to its
//! [`Reject`] renderer (how that looks on the wire). Rejections are responses, never errors of
//! the service. The reason also travels in the response's extensions as [`Rejected`], and the
//! reason why an upstream did not answer as [`UpstreamFault`].

mod fault;
mod reject;
mod rejection;
mod store;

pub use fault::UpstreamFault;
pub(crate) use reject::json;
pub use reject::{ProblemJson, Reject};
pub use rejection::{Rejected, Rejection, Retry};
pub use store::{StoreError, StoreErrorKind};
