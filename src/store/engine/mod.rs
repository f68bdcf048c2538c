//! Exact counting over any durable back end. Units are counted in memory, by [`counter`](super::counter).
//!
//! | part | what it does |
//! |---|---|
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

mod damage;
pub(crate) mod gauges;
mod granted;
pub(crate) mod journal;
#[cfg(any(feature = "sqlite", test))]
mod lease;
mod ledger;
mod meter;
#[cfg(all(test, model))]
mod model;
mod options;
pub(crate) mod pending;
pub(crate) mod queue;
mod recovery;
mod reservation;
pub(crate) mod retention;
#[cfg(feature = "postgres")]
pub(crate) mod share;
mod shared;
#[cfg(all(test, not(model)))]
pub(crate) mod simulation;
#[cfg(feature = "postgres")]
pub(crate) mod trip;
mod watchdog;
mod writer;

pub(crate) use self::options::engine_option_setters;
pub use self::shared::Durability;
pub(crate) use self::{
    ledger::{Ledger, LedgerState, UnusedUnits},
    recovery::{Recovery, RecoveryError, this_boot},
    shared::{Counter, Engine, EngineOptions},
    watchdog::Watchdog,
    writer::Writer,
};
