//! What a start, or a copy, makes of what an earlier process has left in the journal.

use std::io;

use super::{
    Ledger, LedgerState, UnusedUnits,
    journal::{Commit, Disk, Flaw, Journal, Position, Replay, ReplayFrom, ReplayRange, replay},
    pending::PendingBatch,
};

/// What the journal holds and its ledger does not.
pub(crate) struct Recovery {
    batch: PendingBatch,
    replay: Replay,
    state: LedgerState,
    /// Whether the machine has run since without a break: then every byte is as it was written.
    same_boot: bool,
}

/// Why a journal could not be read into its ledger.
pub(crate) enum RecoveryError<E> {
    /// The ledger could not be read or written.
    Ledger(E),
    /// The journal could not be read.
    Read(io::Error),
    /// The journal could not be written.
    Write(io::Error),
}

impl Recovery {
    /// Reads the journal from the ledger's position on, up to `until`.
    pub(crate) fn read<L: Ledger>(
        tables: &L::Tables,
        disk: &dyn Disk,
        until: Option<Position>,
        boot: Option<&str>,
    ) -> Result<Self, RecoveryError<L::Error>> {
        let state = L::state(tables).map_err(RecoveryError::Ledger)?;
        let mut batch = PendingBatch::default();
        let range = ReplayRange { from: state.replay_from, until };
        let replay = replay(disk, range, state.database, |record| batch.add(&record));
        let replay = replay.map_err(RecoveryError::Read)?;
        let same_boot = boot.is_some() && state.boot.as_deref() == boot;
        Ok(Self { batch, replay, state, same_boot })
    }

    /// Applies the rest of the journal to the ledger, and begins a new segment.
    ///
    /// On the same boot of the machine every record of the last process is there, so the units that
    /// its leases grant and nobody has used are free again. After another boot records may be missing,
    /// and those units count as used. Requests that never ended have failed.
    pub(crate) fn start<L: Ledger>(
        mut self,
        ledger: &mut L,
        disk: Box<dyn Disk>,
        boot: Option<&str>,
    ) -> Result<Journal, RecoveryError<L::Error>> {
        let known = match self.state.replay_from {
            ReplayFrom::Begin => 0,
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

    /// Applies the batch to the tables, as what a process has left that has ended.
    pub(crate) fn apply<L: Ledger>(&self, tables: &L::Tables) -> Result<(), L::Error> {
        L::checkpoint(tables, &self.batch)?;
        let unused = if self.same_boot { UnusedUnits::Returned } else { UnusedUnits::Spent };
        L::end_leases(tables, unused)?;
        L::fail_open_requests(tables)
    }

    /// The ledger's last commit, and what its file is known to hold of them.
    pub(crate) fn last_commit(&self) -> Commit {
        let Commit { checkpointed, .. } = self.replay.commit;
        Commit { number: self.state.commits, checkpointed: checkpointed.min(self.state.commits) }
    }

    /// The last commit that the journal knows of.
    pub(crate) fn noted_commit(&self) -> Commit {
        self.replay.commit
    }

    /// The end of the journal's last good record; before all if there is none to be read.
    pub(crate) fn end(&self) -> Position {
        self.replay.end.unwrap_or_default()
    }

    /// What is wrong with the journal, and no loss of power explains.
    pub(crate) fn flaws(&self) -> impl Iterator<Item = &Flaw> {
        self.replay.flaws.iter().filter(|flaw| !self.is_of_power(flaw))
    }

    /// A loss of power leaves pages behind in any order, and what responses depend on lies before them.
    fn is_of_power(&self, flaw: &Flaw) -> bool {
        flaw.may_be_of_power() && !self.same_boot
    }

    /// Logs the ends of segments that are not read, and on which no response depends.
    pub(crate) fn log_dropped(&self) {
        for (Position { segment, offset }, bytes) in &self.replay.torn {
            tracing::warn!(
                segment,
                offset,
                bytes,
                "journal tail dropped: its write did not finish"
            );
        }
        for flaw in self.replay.flaws.iter().filter(|flaw| self.is_of_power(flaw)) {
            let segment = flaw.segment();
            tracing::warn!(segment, %flaw, "journal tail dropped: its end did not survive");
        }
    }
}
