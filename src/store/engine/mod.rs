//! Exact counting: counters in memory, leases, the journal, and what is written of them to tables.

mod admission;
#[cfg(feature = "sqlite")]
pub(crate) mod allowance;
pub(crate) mod counter;
#[cfg(feature = "sqlite")]
pub(crate) mod journal;
#[cfg(feature = "sqlite")]
pub(crate) mod lease;
#[cfg(all(test, model))]
mod model;
#[cfg(feature = "sqlite")]
pub(crate) mod pending;
pub(crate) mod sync;

pub use admission::Admission;
