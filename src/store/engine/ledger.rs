use std::error::Error;

use super::{
    Engine,
    counter::{Count, CounterKey},
    journal::{Commit, DatabaseId, ReplayFrom},
    pending::PendingBatch,
    queue::Queue,
};
use crate::clock::Day;

/// What the engine needs of a durable back end: tables that take a batch of the journal together
/// with the batch's position in it.
///
/// The engine owns the counts while it runs. It loads a count once, decides in memory, appends to the
/// journal, and writes what has changed with [`checkpoint`](Self::checkpoint), in a transaction that
/// also stores how far the journal is read. So each record counts once, whenever the process ends.
/// One thread owns the ledger; [`load`](Self::load) and [`state`](Self::state) run on readers, too.
///
/// # Several nodes
///
/// Here a lease is granted by the journal alone, as one process owns all counts. With a ledger that
/// several nodes share, a lease is granted by the ledger, and two calls are added:
///
/// - `grant(key, want)`: raises what this node may spend by `want` units at least, if the limit leaves
///   them, in a synchronous commit. It compares and raises the lease's sequence number, since a
///   statement may outlive its client.
/// - `recall(key)`: when nothing is left while other nodes hold leases: they stop in memory, then return
///   what they have not spent.
///
/// Counters, reservations, the journal and recovery stay as they are.
pub(crate) trait Ledger: Sized + Send + 'static {
    /// The tables as one reader, or the transaction that is open, sees them.
    type Tables;
    /// A failure of the back end.
    type Error: Error + Send + Sync + 'static;

    /// Runs `work` in one transaction, as the commit of this number, and returns what is known of
    /// commits once it survives a loss of power. If it fails, nothing has changed.
    fn transaction<T>(
        &mut self,
        number: u64,
        work: impl FnOnce(&Self::Tables) -> Result<T, Self::Error>,
    ) -> Result<(T, Commit), Self::Error>;

    /// Rolls back a transaction that a panic has left open. Returns whether there was one.
    fn roll_back(&mut self) -> bool;

    /// Runs a part of a transaction. If it returns `None`, or fails for a reason that lies in its
    /// rows, the part alone is undone and the result is `None`. Other failures are the transaction's.
    fn in_savepoint<T>(
        tables: &Self::Tables,
        work: impl FnOnce(&Self::Tables) -> Result<Option<T>, Self::Error>,
    ) -> Result<Option<T>, Self::Error>;

    /// Whose tables they are, and how far the journal was read into them.
    fn state(tables: &Self::Tables) -> Result<LedgerState, Self::Error>;

    /// The count of this day, or of a later one that the counter has reached already.
    fn load(tables: &Self::Tables, key: &CounterKey, day: Day) -> Result<Count, Self::Error>;

    /// Applies a batch, and stores its position.
    fn checkpoint(tables: &Self::Tables, batch: &PendingBatch) -> Result<(), Self::Error>;

    /// Resets the counter on this day. Returns the number of the reset.
    fn reset(tables: &Self::Tables, key: &CounterKey, day: Day) -> Result<u32, Self::Error>;

    /// Ends all leases: what they grant and was not used counts as used, or not.
    fn end_leases(tables: &Self::Tables, unused: UnusedUnits) -> Result<(), Self::Error>;

    /// Counts the requests that are open as failed.
    fn fail_open_requests(tables: &Self::Tables) -> Result<(), Self::Error>;

    /// Stores on which boot of the machine the ledger is in use.
    fn set_boot(tables: &Self::Tables, boot: Option<&str>) -> Result<(), Self::Error>;

    /// Stores that nothing follows in the journal: the tables are whole without it.
    fn close_journal(tables: &Self::Tables) -> Result<(), Self::Error>;

    /// Writes something that changes no count, to find out whether the tables can be written.
    fn probe(tables: &Self::Tables) -> Result<(), Self::Error>;

    /// Does what the back end itself has to do from time to time. Called after each turn of the writer.
    fn maintain(&mut self, engine: &Engine, queue: &Queue<Self>) {
        let _ = (engine, queue);
    }

    /// Called after a transaction has failed, before anybody learns of it.
    fn failed(&mut self) {}

    /// Called once the tables can be written again.
    fn recovered(&mut self) {}
}

/// What a ledger knows of itself and its journal.
#[derive(Clone, Debug)]
pub(crate) struct LedgerState {
    /// The database that the journal must belong to.
    pub(crate) database: DatabaseId,
    /// The number of the last commit.
    pub(crate) commits: u64,
    /// How far the journal was read.
    pub(crate) replay_from: ReplayFrom,
    /// The boot of the machine on which the ledger was last in use, if that is known.
    pub(crate) boot: Option<String>,
}

/// What becomes of the units that leases grant and nobody has used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum UnusedUnits {
    /// They are free again, as every use of one is on record.
    Returned,
    /// They count as used: after a loss of power nobody knows how many of them were.
    Spent,
}
