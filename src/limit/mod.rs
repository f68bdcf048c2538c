//! Small limiters that other modules share.

#[cfg(any(feature = "admin", feature = "engine", feature = "quota"))]
mod gcra;
#[cfg(feature = "quota")]
mod in_flight;
#[cfg(any(feature = "admin", feature = "engine"))]
mod slots;

#[cfg(feature = "quota")]
pub(crate) use gcra::ExactGcra;
#[cfg(any(feature = "admin", feature = "engine"))]
pub(crate) use gcra::Gcra;
#[cfg(feature = "quota")]
pub(crate) use in_flight::{InFlight, InFlightGuard};
#[cfg(any(feature = "admin", feature = "engine"))]
pub(crate) use slots::Slots;
