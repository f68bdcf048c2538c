//! Recovery of the records of an earlier process, at a start or for a copy of the database.

use std::io;

use super::{
    Ledger, LedgerState, UnusedUnits,
    journal::{Commit, Disk, Flaw, Journal, Position, Replay, ReplayFrom, ReplayRange, replay},
    pending::PendingBatch,
};

/// Journal records that are missing from the ledger.
pub(crate) struct Recovery {
    batch: PendingBatch,
    replay: Replay,
    state: LedgerState,
    /// Whether the machine has not been restarted since: then no written byte is lost.
    same_boot: bool,
    /// Whether the journal has all records that were written, so that what its leases have left was not used.
    is_complete: bool,
}

/// Reason why the journal could not be applied to its ledger.
pub(crate) enum RecoveryError<E> {
    /// The ledger could not be read or written.
    Ledger(E),
    /// The journal could not be read.
    Read(io::Error),
    /// The journal could not be written.
    Write(io::Error),
}

impl Recovery {
    /// Reads the journal from the ledger's position up to `until`.
    pub(crate) fn read<L: Ledger>(
        tables: &L::Tables,
        disk: &dyn Disk,
        until: Option<Position>,
        boot: Option<&str>,
    ) -> Result<Self, RecoveryError<L::Error>> {
        let state = L::state(tables).map_err(RecoveryError::Ledger)?;
        let mut batch = PendingBatch::default();
        let range = ReplayRange { from: state.replay_from, until };
        let replay = replay(disk, range, state.database, |record| batch.add(record));
        let replay = replay.map_err(RecoveryError::Read)?;
        let same_boot = boot.is_some() && state.boot.as_deref() == boot;
        Ok(Self { batch, replay, state, same_boot, is_complete: same_boot })
    }

    /// Takes the journal for a copy, in which records may be missing.
    #[cfg(feature = "postgres")]
    pub(crate) fn take_for_copy(&mut self) {
        self.is_complete = false;
    }

    /// Applies the rest of the journal to the ledger and starts a new segment.
    ///
    /// On the same boot of the machine no record of the last process is missing, so the unused units of
    /// its leases are returned. After another boot, or in a copy, records may be missing, and those units count as used.
    /// Requests that never ended count as failed.
    pub(crate) fn start<L: Ledger>(
        mut self,
        ledger: &mut L,
        disk: Box<dyn Disk>,
        boot: Option<&str>,
    ) -> Result<Journal, RecoveryError<L::Error>> {
        let known = match self.state.replay_from {
            ReplayFrom::Start => 0,
            ReplayFrom::Position(Position { segment, .. }) | ReplayFrom::After(segment) => segment,
        };
        let segments = disk.segments().map_err(RecoveryError::Read)?;
        let last = segments.into_iter().max().unwrap_or(0).max(known);
        let journal = Journal::begin(disk, last + 1, self.state.database, self.last_commit())
            .map_err(RecoveryError::Write)?;
        self.batch.append(journal.take());
        let ((), Commit { number, .. }) = ledger
            .transaction(journal.next_commit(), |tables| {
                self.apply::<L>(tables)?;
                L::set_boot(tables, boot)
            })
            .map_err(RecoveryError::Ledger)?;
        let Commit { checkpointed, .. } = self.last_commit();
        journal.note_commit(Commit { number, checkpointed });
        journal.truncate(&self.batch).map_err(RecoveryError::Write)?;
        Ok(journal)
    }

    /// Applies the batch to the tables, then ends the leases and open requests of the earlier process.
    pub(crate) fn apply<L: Ledger>(&self, tables: &L::Tables) -> Result<(), L::Error> {
        L::checkpoint(tables, &self.batch)?;
        let unused = if self.is_complete { UnusedUnits::Returned } else { UnusedUnits::Spent };
        L::end_leases(tables, unused)?;
        L::fail_open_requests(tables)
    }

    /// Returns the ledger's last commit, and the last one that is known to be in the database file.
    pub(crate) fn last_commit(&self) -> Commit {
        let Commit { checkpointed, .. } = self.replay.commit;
        Commit { number: self.state.commits, checkpointed: checkpointed.min(self.state.commits) }
    }

    /// Returns the last commit that the journal has recorded.
    pub(crate) fn noted_commit(&self) -> Commit {
        self.replay.commit
    }

    /// Returns the end of the last valid record, or the start of the journal.
    #[cfg(feature = "sqlite")]
    pub(crate) fn end(&self) -> Position {
        self.replay.end.unwrap_or_default()
    }

    /// Returns the flaws that a power failure cannot cause.
    pub(crate) fn flaws(&self) -> impl Iterator<Item = &Flaw> {
        self.replay.flaws.iter().filter(|flaw| !self.is_power_loss(flaw))
    }

    /// Returns whether the flaw is the result of a power failure, which may lose unsynced pages in any order.
    /// No response depends on those.
    fn is_power_loss(&self, flaw: &Flaw) -> bool {
        flaw.may_be_power_loss() && !self.same_boot
    }

    /// Logs the dropped tails of segments, on which no response depends.
    pub(crate) fn log_dropped(&self) {
        for (Position { segment, offset }, bytes) in &self.replay.torn {
            tracing::warn!(
                segment,
                offset,
                bytes,
                "incomplete record at the end of a segment: journal tail dropped"
            );
        }
        for flaw in self.replay.flaws.iter().filter(|flaw| self.is_power_loss(flaw)) {
            let segment = flaw.segment();
            tracing::warn!(segment, %flaw, "journal segment is incomplete, its end did not survive: journal tail dropped");
        }
    }
}

/// Returns the identifier of the current boot of the machine, if the system has one.
pub(crate) fn this_boot() -> Option<String> {
    let id = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
    Some(id.trim().to_owned()).filter(|id| !id.is_empty())
}
