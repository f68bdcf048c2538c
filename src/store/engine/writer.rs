//! The one thread that writes to the ledger.

use std::{
    collections::VecDeque,
    io, mem,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, Mutex, PoisonError},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use super::{
    Engine, Ledger, UnusedUnits,
    journal::SEGMENT_LENGTH,
    pending::PendingBatch,
    queue::{self, Job, Queue, Work},
};

/// The longest time between two checkpoints.
const CHECKPOINT_INTERVAL: Duration = Duration::from_millis(500);
/// The time between two searches for counters of past days.
const EVICTION_INTERVAL: Duration = Duration::from_secs(60);

/// The writer's thread.
pub(crate) struct Writer<L: Ledger> {
    queue: Arc<Queue<L>>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl<L: Ledger> Writer<L> {
    pub(crate) fn start(engine: Arc<Engine>, queue: Arc<Queue<L>>, ledger: L) -> io::Result<Self> {
        let mut checkpointer = Checkpointer::new(engine, queue.clone(), ledger);
        // Before the store is open for others: a `sqlite3` shell does not wait for the write lock.
        checkpointer.maintain();
        let run = move || {
            let _end = StopOnDrop(checkpointer.queue.clone());
            checkpointer.run();
        };
        let thread = thread::Builder::new().name("quota-writer".to_owned()).spawn(run)?;
        Ok(Self { queue, thread: Mutex::new(Some(thread)) })
    }

    /// Whether the thread runs, or was stopped by [`stop`](Self::stop).
    pub(crate) fn is_alive(&self) -> bool {
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner);
        thread.as_ref().is_none_or(|thread| !thread.is_finished())
    }

    /// Writes what is queued and ends the thread.
    pub(crate) fn stop(&self) {
        self.queue.stop();
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(thread) = thread
            && thread.join().is_err()
        {
            tracing::error!("writer thread panicked");
        }
    }
}

impl<L: Ledger> Drop for Writer<L> {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Nothing is admitted once the writer has ended, also by a panic.
struct StopOnDrop<L: Ledger>(Arc<Queue<L>>);

impl<L: Ledger> Drop for StopOnDrop<L> {
    fn drop(&mut self) {
        self.0.stop();
        self.0.close();
    }
}

/// What the writer's thread does, step by step.
pub(super) struct Checkpointer<L: Ledger> {
    engine: Arc<Engine>,
    queue: Arc<Queue<L>>,
    ledger: L,
    pending: PendingBatch,
    evicted_at: Instant,
}

impl<L: Ledger> Checkpointer<L> {
    pub(super) fn new(engine: Arc<Engine>, queue: Arc<Queue<L>>, ledger: L) -> Self {
        let (pending, evicted_at) = (PendingBatch::default(), Instant::now());
        Self { engine, queue, ledger, pending, evicted_at }
    }

    #[cfg(test)]
    pub(super) fn ledger(&self) -> &L {
        &self.ledger
    }

    #[cfg(test)]
    pub(super) fn into_ledger(self) -> L {
        self.ledger
    }

    fn run(&mut self) {
        loop {
            let work = self.queue.take(CHECKPOINT_INTERVAL);
            let is_last = work.stopped;
            // A subscriber of `tracing` that panics must not end the thread.
            if catch_unwind(AssertUnwindSafe(|| self.round(work))).is_err() {
                self.clean_up();
            }
            if is_last {
                return;
            }
        }
    }

    fn round(&mut self, work: Work<L>) {
        self.turn(work.jobs);
        if work.stopped {
            self.finish();
        } else {
            self.maintain();
        }
    }

    fn maintain(&mut self) {
        self.ledger.maintain(&self.engine, &self.queue);
    }

    /// Cleans up after a panic. What it has left uncommitted has failed like a write that fails.
    fn clean_up(&mut self) {
        if self.ledger.roll_back() {
            self.queue.close();
        }
    }

    /// Applies what waits in the journal and runs these jobs, in one transaction.
    pub(super) fn turn(&mut self, mut jobs: VecDeque<Job<L>>) {
        if self.engine.is_open().is_err() && !self.queue.is_stopped() {
            if !self.engine.journal.is_suspended() {
                self.recover();
            }
            return;
        }
        self.pending.append(self.engine.journal.take());
        if self.pending.is_empty() && jobs.is_empty() {
            return;
        }
        let mut on_commit = Vec::new();
        let pending = &self.pending;
        let written = self.engine.transaction(&mut self.ledger, |tables| {
            L::checkpoint(tables, pending)?;
            queue::run::<L>(tables, &mut jobs, &mut on_commit)
        });
        match written {
            Ok(()) => {
                self.checkpointed();
                on_commit.into_iter().for_each(|on_commit| on_commit());
            }
            // Admission is closed before a caller learns of it, when `jobs` and `on_commit` are dropped.
            Err(error) => self.fail(&error),
        }
    }

    /// Drops what was checkpointed from memory and from the journal.
    fn checkpointed(&mut self) {
        self.engine.note_checkpoint();
        let written = mem::take(&mut self.pending);
        self.engine.meter.checkpointed(written.records);
        let is_long = written.position.is_some_and(|position| position.offset > SEGMENT_LENGTH);
        let journal = &self.engine.journal;
        let truncated = journal.truncate(&written).and_then(|()| {
            if is_long && !journal.has_failed() { journal.rotate() } else { Ok(()) }
        });
        if let Err(error) = truncated {
            tracing::warn!(%error, "journal truncation failed: old segments stay until the next checkpoint");
        }
        if self.evicted_at.elapsed() >= EVICTION_INTERVAL {
            self.evicted_at = Instant::now();
            self.engine.evict_idle_counters();
        }
    }

    fn fail(&mut self, error: &L::Error) {
        self.engine.meter.failures.increment(1);
        self.ledger.failed();
        self.queue.close();
        tracing::error!(%error, "checkpoint failed: rejecting requests until one succeeds");
    }

    /// Applies what the journal holds. If that succeeds, both can be written again.
    fn recover(&mut self) {
        self.pending.append(self.engine.journal.take());
        let pending = &self.pending;
        let written = self.engine.transaction(&mut self.ledger, |tables| {
            L::probe(tables)?;
            L::checkpoint(tables, pending)
        });
        if let Err(error) = written {
            self.queue.close();
            tracing::debug!(%error, "checkpoint still fails");
            return;
        }
        self.checkpointed();
        if self.engine.journal.has_failed()
            && let Err(error) = self.engine.journal.rotate()
        {
            tracing::debug!(%error, "journal rotation still fails");
            return;
        }
        self.ledger.recovered();
        self.queue.reopen();
        tracing::info!("journal and database can be written again: admitting requests");
    }

    /// Applies the rest at the end of the process. What leases grant and was not used is free again.
    pub(super) fn finish(&mut self) {
        self.engine.journal.end();
        self.pending.append(self.engine.journal.take());
        let pending = &self.pending;
        let written = self.engine.transaction(&mut self.ledger, |tables| {
            L::checkpoint(tables, pending)?;
            L::end_leases(tables, UnusedUnits::Returned)?;
            L::close_journal(tables)
        });
        match written {
            Ok(()) => self.checkpointed(),
            Err(error) => {
                tracing::error!(%error, "last checkpoint failed: the next start reads the journal");
            }
        }
    }
}
