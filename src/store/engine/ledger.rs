use std::{error::Error, time::Duration};

use super::{
    Engine,
    journal::{Commit, DatabaseId, ReplayFrom},
    pending::PendingBatch,
    queue::Queue,
};

/// A durable back end of the engine: tables that store a batch of the journal together with the position
/// at which it ends.
///
/// The engine owns the counts while it runs. It loads a count once, decides in memory, appends to the
/// journal, and applies the changes with [`checkpoint`](Self::checkpoint), in a transaction that also
/// stores the position in the journal. So each record is applied exactly once, whenever the process ends.
/// One thread owns the ledger; [`state`](Self::state) also runs on readers.
///
/// # Several nodes
///
/// With a single process, which owns all counts, leases are granted in the journal. A ledger that several nodes
/// share grants them itself, as a [`SharedLedger`](super::trip::SharedLedger), and its checkpoints report what
/// was used of them.
pub(crate) trait Ledger: Sized + Send + 'static {
    /// Maximum interval after which a checkpoint is due. Whether one is due is looked at each half second.
    const MAX_INTERVAL: Duration;
    /// View of the tables by a reader or by the open transaction.
    type Tables;
    /// Error of the back end.
    type Error: Error + Send + Sync + 'static;

    /// Runs `work` in one transaction, as the commit of this number. Returns the state of the commits once
    /// this one is durable. If it fails, nothing has changed, unless it
    /// [may be committed](Self::may_be_committed).
    fn transaction<T>(
        &mut self,
        number: u64,
        work: impl FnOnce(&Self::Tables) -> Result<T, Self::Error>,
    ) -> Result<(T, Commit), Self::Error>;

    /// Rolls back a transaction that a panic has left open. Returns whether one was open.
    fn roll_back(&mut self) -> bool;

    /// Returns whether the transaction that has failed with this error may be committed nevertheless, as a connection
    /// that breaks during a commit leaves open.
    fn may_be_committed(error: &Self::Error) -> bool {
        let _ = error;
        false
    }

    /// Called after a transaction has failed, before the next one: returns the state of the tables once it is certain
    /// that no earlier transaction is committed any more.
    fn resume(&mut self) -> Result<LedgerState, Self::Error>;

    /// Runs a part of a transaction in a savepoint. If `work` returns `None`, or fails because of its own
    /// rows, it is rolled back to the savepoint and the result is `None`. Any other error fails the
    /// transaction.
    fn in_savepoint<T>(
        tables: &Self::Tables,
        work: impl FnOnce(&Self::Tables) -> Result<Option<T>, Self::Error>,
    ) -> Result<Option<T>, Self::Error>;

    /// Returns the identity of the tables, and the position up to which the journal was applied.
    fn state(tables: &Self::Tables) -> Result<LedgerState, Self::Error>;

    /// Applies a batch and stores its position.
    fn checkpoint(tables: &Self::Tables, batch: &PendingBatch) -> Result<(), Self::Error>;

    /// Ends all leases. `unused` says whether their unused units count as used.
    fn end_leases(tables: &Self::Tables, unused: UnusedUnits) -> Result<(), Self::Error>;

    /// Counts the open requests as failed.
    fn fail_open_requests(tables: &Self::Tables) -> Result<(), Self::Error>;

    /// Stores the current boot of the machine.
    fn set_boot(tables: &Self::Tables, boot: Option<&str>) -> Result<(), Self::Error>;

    /// Marks the journal as fully applied: the tables are complete without it.
    fn close_journal(tables: &Self::Tables) -> Result<(), Self::Error>;

    /// Writes a value that changes no count, to test whether the tables can be written.
    fn probe(tables: &Self::Tables) -> Result<(), Self::Error>;

    /// Runs periodic maintenance of the back end. Called after each turn of the writer.
    fn maintain(&mut self, engine: &Engine, queue: &Queue<Self>) {
        let _ = (engine, queue);
    }

    /// Called after a transaction has failed, before any caller is notified.
    fn failed(&mut self) {}

    /// Called once the tables can be written again.
    fn recovered(&mut self) {}
}

/// State of a ledger and its position in the journal.
#[derive(Clone, Debug)]
pub(crate) struct LedgerState {
    /// Identity of the database, to which the journal must belong.
    pub(crate) database: DatabaseId,
    /// Number of the last commit.
    pub(crate) commits: u64,
    /// Position from which the journal was not applied yet.
    pub(crate) replay_from: ReplayFrom,
    /// Boot of the machine on which the ledger was last in use, if known.
    pub(crate) boot: Option<String>,
}

/// What to do with the unused units of leases.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum UnusedUnits {
    /// They are returned, as the journal has every use.
    Returned,
    /// They count as used, as records of uses may be lost after a power failure.
    Spent,
}
