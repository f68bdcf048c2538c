//! Small limiters that other modules share.

#[cfg(any(feature = "admin", feature = "sqlite"))]
mod gcra;
#[cfg(feature = "quota")]
mod in_flight;
#[cfg(any(feature = "admin", feature = "sqlite"))]
mod slots;

#[cfg(any(feature = "admin", feature = "sqlite"))]
pub(crate) use gcra::Gcra;
#[cfg(feature = "quota")]
pub(crate) use in_flight::{InFlight, InFlightGuard};
#[cfg(any(feature = "admin", feature = "sqlite"))]
pub(crate) use slots::Slots;
