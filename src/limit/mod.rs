//! Small limiters that other modules share.

#[cfg(any(feature = "admin", feature = "engine"))]
mod gcra;
#[cfg(feature = "quota")]
mod in_flight;
#[cfg(any(feature = "admin", feature = "engine"))]
mod slots;

#[cfg(any(feature = "admin", feature = "engine"))]
pub(crate) use gcra::Gcra;
#[cfg(feature = "quota")]
pub(crate) use in_flight::{InFlight, InFlightGuard};
#[cfg(any(feature = "admin", feature = "engine"))]
pub(crate) use slots::Slots;
