//! Exact counting over any durable back end.
//!
//! | part | what it does |
//! |---|---|
//! | `counter` | counts the units of a subject's day in memory, under a lock held for a few instructions |
//! | `lease` | units that may be used without another sync, so that limits hold after a power failure |
//! | `journal` | appends each change before it takes effect, and syncs it |
//! | `reservation` | units of a request from its admission until its end |
//! | `pending`, `writer` | sum up the records of the journal, and checkpoint them into the ledger |
//! | `ledger` | the trait that a back end implements: [`Ledger`] |
//! | `recovery` | applies the records of an earlier process at the start |
//! | `watchdog`, `damage` | detect stalled syncs, moved files and corrupt reads |
//!
//! The engine is independent of the database. `simulation` runs it against failing disks, `model` checks
//! every interleaving of its locks.

mod admission;
#[cfg(any(feature = "memory", feature = "sqlite"))]
#[cfg_attr(not(all(feature = "memory", feature = "sqlite")), allow(dead_code))]
pub(crate) mod counter;
#[cfg(feature = "sqlite")]
mod damage;
#[cfg(feature = "sqlite")]
pub(crate) mod journal;
#[cfg(feature = "sqlite")]
mod lease;
#[cfg(feature = "sqlite")]
mod ledger;
#[cfg(feature = "sqlite")]
mod meter;
#[cfg(all(test, model))]
mod model;
#[cfg(feature = "sqlite")]
pub(crate) mod pending;
#[cfg(feature = "sqlite")]
pub(crate) mod queue;
#[cfg(feature = "sqlite")]
mod recovery;
#[cfg(feature = "sqlite")]
mod reservation;
#[cfg(feature = "sqlite")]
mod shared;
#[cfg(all(test, feature = "sqlite", not(model)))]
pub(crate) mod simulation;
#[cfg(any(feature = "memory", feature = "sqlite"))]
pub(crate) mod sync;
#[cfg(feature = "sqlite")]
mod watchdog;
#[cfg(feature = "sqlite")]
mod writer;

pub use self::admission::Admission;
#[cfg(feature = "sqlite")]
pub use self::shared::Durability;
#[cfg(feature = "sqlite")]
pub(crate) use self::{
    ledger::{Ledger, LedgerState, UnusedUnits},
    recovery::{Recovery, RecoveryError},
    shared::{Counter, Engine, EngineOptions},
    watchdog::Watchdog,
    writer::Writer,
};
