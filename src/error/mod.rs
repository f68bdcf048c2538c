//! Responses that the middleware makes in the inner service's place.
//!
//! A layer that rejects a request builds a [`Rejection`] (what happened), mostly from the
//! [`catalog`], and passes it to its [`Reject`] renderer (how that looks on the wire), with the
//! layer's [reason](Rejection::reason) and the [request](RejectedRequest). Rejections are responses,
//! never errors of the service. What happened also travels in the response's extensions, as
//! [`Rejected`], and the reason why an upstream gave no response as [`UpstreamFault`].

pub mod catalog;
pub(crate) mod grpc;
mod json;
mod rejection;
mod store;
mod upstream;

pub use grpc::GrpcStatus;
#[cfg(any(feature = "admin", feature = "openai", feature = "usage"))]
pub(crate) use json::json;
pub use rejection::{
    ProblemJson, Reject, RejectFn, Rejected, RejectedRequest, Rejection, Retry, reject_fn,
};
pub use store::{StoreError, StoreErrorKind};
pub use upstream::UpstreamFault;
