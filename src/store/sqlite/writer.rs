//! The one thread that writes to the file.

use std::{
    collections::VecDeque,
    io, mem,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, Mutex, PoisonError},
    thread::{self, JoinHandle},
    time::{Duration, Instant, SystemTime},
};

use rusqlite::Connection;

use super::meter::Meter;
use super::{
    adopt, checkpoint,
    core::Core,
    file::WRITE_BUSY_TIMEOUT,
    jobs::{self, Job},
    queue::Work,
    retention::{MAX_BUSY_TIME, Retention},
    wal::Wal,
};
use crate::store::engine::{
    journal::{Commit, SEGMENT_LENGTH},
    pending::PendingBatch,
};

/// How often the journal is folded and `api_keys` is looked at for edits from outside.
const TURN: Duration = Duration::from_millis(500);
/// How often counters of past days are forgotten.
const SWEEP: Duration = Duration::from_secs(60);

pub(super) struct Writer {
    core: Arc<Core>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Writer {
    pub(super) fn start(core: Arc<Core>, connection: Connection, wal: Wal) -> io::Result<Self> {
        let mut state = State::new(core.clone(), connection, Some(wal));
        // Before the store is open for others: a `sqlite3` shell does not wait for the write lock.
        state.watch();
        state.forget_requests();
        let run = move || {
            let _end = StopQueue(state.core.clone());
            state.run();
        };
        let thread = thread::Builder::new().name("quota-writer".to_owned()).spawn(run)?;
        Ok(Self { core, thread: Mutex::new(Some(thread)) })
    }

    /// Whether the thread runs, or was stopped by [`stop`](Self::stop).
    pub(super) fn is_alive(&self) -> bool {
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner);
        thread.as_ref().is_none_or(|thread| !thread.is_finished())
    }

    /// Writes what is queued and ends the thread.
    pub(super) fn stop(&self) {
        self.core.queue.stop();
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(thread) = thread
            && thread.join().is_err()
        {
            tracing::error!("the writer thread has panicked");
        }
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Nothing is admitted once the writer has ended, also by a panic.
struct StopQueue(Arc<Core>);

impl Drop for StopQueue {
    fn drop(&mut self) {
        self.0.queue.stop();
        self.0.queue.close();
    }
}

pub(super) struct State {
    core: Arc<Core>,
    connection: Connection,
    wal: Option<Wal>,
    meter: Meter,
    pending: PendingBatch,
    data_version: Option<i64>,
    watched: Option<Instant>,
    swept: Instant,
    retention: Retention,
    /// Whether clear text may be left in the WAL.
    scrub: bool,
}

impl State {
    /// `wal` is that of a database in a file.
    pub(super) fn new(core: Arc<Core>, connection: Connection, wal: Option<Wal>) -> Self {
        Self {
            core,
            connection,
            wal,
            meter: Meter::new(),
            pending: PendingBatch::default(),
            data_version: None,
            watched: None,
            swept: Instant::now(),
            retention: Retention::default(),
            scrub: true,
        }
    }

    #[cfg(test)]
    pub(super) fn connection(&self) -> &Connection {
        &self.connection
    }

    #[cfg(test)]
    pub(super) fn into_connection(self) -> Connection {
        self.connection
    }

    fn run(&mut self) {
        loop {
            let work = self.core.queue.take(TURN);
            let is_last = work.stopped;
            // A subscriber of `tracing` that panics must not end the thread.
            if catch_unwind(AssertUnwindSafe(|| self.round(work))).is_err() {
                self.undo();
            }
            if is_last {
                return;
            }
        }
    }

    fn round(&mut self, work: Work) {
        self.turn(work.jobs);
        if work.stopped {
            self.finish();
            return;
        }
        self.watch();
        self.forget_requests();
    }

    /// Cleans up after a panic. What it has left uncommitted has failed like a write that fails.
    fn undo(&mut self) {
        if self.connection.is_autocommit() {
            return;
        }
        self.core.queue.close();
        // Where it fails the next transaction does, too, and nothing is admitted.
        let _ = self.connection.execute_batch("ROLLBACK");
    }

    /// Folds what is in the journal and runs these jobs, in one transaction.
    pub(super) fn turn(&mut self, mut jobs: VecDeque<Job>) {
        if self.core.is_open().is_err() && !self.core.queue.is_stopped() {
            if !self.core.journal.is_suspended() {
                self.recover();
            }
            return;
        }
        self.pending.append(self.core.journal.take());
        if self.pending.is_empty() && jobs.is_empty() {
            return;
        }
        let mut replies = Vec::new();
        let written = self.transaction(|state| {
            checkpoint::write(&state.connection, &state.pending)?;
            jobs::run(&state.connection, &mut jobs, &mut replies)
        });
        match written {
            Ok(()) => {
                self.folded();
                replies.into_iter().for_each(|reply| reply());
            }
            // Admission is closed before anybody is told, by the end of `jobs` and `replies`.
            Err(error) => self.fail(&error),
        }
    }

    fn transaction<T>(
        &mut self,
        work: impl FnOnce(&Self) -> rusqlite::Result<T>,
    ) -> rusqlite::Result<T> {
        let _timer = self.meter.time();
        let commit = self.core.journal.next_commit();
        if let Some(wal) = &mut self.wal {
            wal.check(commit - 1)?;
        }
        let done = jobs::transaction(&self.connection, || {
            let done = work(self)?;
            checkpoint::write_commit(&self.connection, commit)?;
            Ok(done)
        })?;
        let commit = match &mut self.wal {
            Some(wal) => wal.note_commit(commit),
            None => Commit { number: commit, checkpointed: 0 },
        };
        self.core.journal.note_commit(commit);
        Ok(done)
    }

    /// What was folded is no longer needed in the journal.
    fn folded(&mut self) {
        self.core.note_written();
        let folded = mem::take(&mut self.pending);
        self.meter.folded(folded.records);
        let long = folded.position.is_some_and(|position| position.offset > SEGMENT_LENGTH);
        let journal = &self.core.journal;
        let tidied = journal
            .truncate(&folded)
            .and_then(|()| if long && !journal.has_failed() { journal.rotate() } else { Ok(()) });
        if let Err(error) = tidied {
            tracing::warn!(%error, "the journal could not be shortened");
        }
        self.sweep();
    }

    fn sweep(&mut self) {
        if self.swept.elapsed() >= SWEEP {
            self.swept = Instant::now();
            self.core.forget_idle_counters();
        }
    }

    fn fail(&mut self, error: &rusqlite::Error) {
        self.meter.failures.increment(1);
        self.rescue();
        self.core.queue.close();
        tracing::error!(%error, "the file could not be written: nothing is admitted until it can");
    }

    /// Folds what the journal holds. If that succeeds, both can be written again.
    fn recover(&mut self) {
        self.pending.append(self.core.journal.take());
        let written = self.transaction(|state| {
            jobs::probe(&state.connection)?;
            checkpoint::write(&state.connection, &state.pending)
        });
        if let Err(error) = written {
            self.core.queue.close();
            tracing::debug!(%error, "the file still cannot be written");
            return;
        }
        self.folded();
        if self.core.journal.has_failed()
            && let Err(error) = self.core.journal.rotate()
        {
            tracing::debug!(%error, "the journal still cannot be written");
            return;
        }
        self.core.forget_keys();
        self.core.queue.reopen();
        tracing::info!("the store can be written again");
    }

    /// Moves what was committed to a WAL that has lost its name into the database. It is still open here,
    /// and nowhere else.
    fn rescue(&self) {
        if self.wal.as_ref().is_some_and(|wal| !wal.is_in_place()) {
            let moved = self.connection.execute_batch("PRAGMA wal_checkpoint(PASSIVE)");
            if let Err(error) = moved {
                tracing::debug!(%error, "checkpoint failed: commits are in the removed WAL only");
            }
        }
    }

    /// Folds the rest. What was charged ahead and not used is not needed any more.
    pub(super) fn finish(&mut self) {
        self.core.journal.end();
        self.pending.append(self.core.journal.take());
        let written = self.transaction(|state| {
            checkpoint::write(&state.connection, &state.pending)?;
            checkpoint::return_leases(&state.connection)?;
            checkpoint::close_journal(&state.connection)
        });
        match written {
            Ok(()) => self.folded(),
            // It stays in the journal for the next start.
            Err(error) => tracing::error!(%error, "the journal could not be folded at the end"),
        }
    }

    /// Forgets single requests that are kept no longer, a few at a time so that nobody waits for it.
    fn forget_requests(&mut self) {
        let Some(before) = self.core.retention_cutoff() else { return };
        if !self.core.queue.is_open() || !self.retention.is_due() {
            return;
        }
        let began = Instant::now();
        while self.forget_some(before)
            && began.elapsed() < MAX_BUSY_TIME
            && self.core.queue.is_idle()
        {}
    }

    /// Whether there may be more.
    fn forget_some(&mut self, before: SystemTime) -> bool {
        let now = self.core.clock.now();
        let forgotten =
            self.transaction(|state| state.retention.forget(&state.connection, before, now));
        let after = forgotten.unwrap_or_else(|error| {
            tracing::warn!(%error, "old requests could not be forgotten");
            None
        });
        self.retention.go_on(after);
        after.is_some()
    }

    /// Looks for what another process has changed, and adopts keys typed in clear.
    fn watch(&mut self) {
        let due = self.watched.is_none_or(|watched| watched.elapsed() >= TURN);
        if !due || !self.core.queue.is_open() {
            return;
        }
        self.watched = Some(Instant::now());
        if let Err(error) = self.look_for_edits() {
            tracing::warn!(%error, "api_keys could not be looked at");
        }
    }

    fn look_for_edits(&mut self) -> rusqlite::Result<()> {
        let version = self.connection.query_row("PRAGMA data_version", [], |row| row.get(0))?;
        if self.data_version != Some(version) {
            self.core.forget_keys();
            if adopt::is_needed(&self.connection)? {
                let default = self.core.default_daily_limit;
                let adopted = self.transaction(|state| adopt::all(&state.connection, default))?;
                tracing::info!(adopted, "keys typed in clear were hashed");
                self.core.forget_keys();
            }
            self.scrub = true;
            self.data_version = Some(version);
        }
        self.scrub_wal()
    }

    /// Empties the WAL, where clear text may be left. Never waits for a reader that keeps it: the
    /// next look tries again.
    fn scrub_wal(&mut self) -> rusqlite::Result<()> {
        if self.scrub {
            self.connection.busy_timeout(Duration::ZERO)?;
            let sql = "PRAGMA wal_checkpoint(TRUNCATE)";
            let busy = self.connection.query_row(sql, [], |row| row.get::<_, i64>(0));
            self.connection.busy_timeout(WRITE_BUSY_TIMEOUT)?;
            if let Some(wal) = &mut self.wal {
                wal.note_length();
            }
            self.scrub = busy? != 0;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use crate::store::{
        AdminStore,
        sqlite::{SqliteOptions, SqliteStore},
    };

    #[tokio::test]
    async fn a_store_whose_writer_has_ended_is_not_alive() {
        let dir = tempfile::tempdir().unwrap();
        let store = SqliteStore::open(SqliteOptions::new(dir.path().join("quota.db"))).unwrap();
        assert!(store.is_alive());
        store.0.core.queue.stop();
        while store.is_alive() {
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test]
    async fn a_store_that_was_closed_is_as_it_should_be() {
        let dir = tempfile::tempdir().unwrap();
        let store = SqliteStore::open(SqliteOptions::new(dir.path().join("quota.db"))).unwrap();
        store.close().await.unwrap();
        assert!(store.is_alive());
    }
}
