//! Small limiters that other rooms share.

#[cfg(feature = "quota")]
mod in_flight;

#[cfg(feature = "quota")]
pub(crate) use in_flight::{InFlight, InFlightGuard};
