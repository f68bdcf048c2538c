//! The service behind claim links, see [`ClaimService`].

mod page;
mod service;

pub use service::{ClaimBody, ClaimService, claim_service};
