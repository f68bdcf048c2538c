//! Writer thread, the only one that writes to the ledger.

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
    queue::{self, Job, OnCommit, Queue, Work},
};

/// Minimum time between two checkpoints for which no job waits.
const ROUND_INTERVAL: Duration = Duration::from_millis(500);
/// The time between two checkpoints is at least this multiple of the time that the first one took, up to
/// [`Ledger::MAX_INTERVAL`], unless its records already [share](SHARED_BY) the rows of their keys.
const INTERVAL_FACTOR: u32 = 20;
/// Number of records a key with which a checkpoint gains nothing by more of them.
const SHARED_BY: usize = 16;
/// Number of records with which a checkpoint does not wait any longer, as they are in memory.
const MAX_RECORDS: usize = 1 << 17;
/// Time between two attempts to write again after a failure.
const RETRY_INTERVAL: Duration = Duration::from_millis(100);
/// Interval between two evictions of idle counters.
const EVICTION_INTERVAL: Duration = Duration::from_secs(60);

/// Handle of the writer thread.
pub(crate) struct Writer<L: Ledger> {
    queue: Arc<Queue<L>>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl<L: Ledger> Writer<L> {
    pub(crate) fn start(engine: Arc<Engine>, queue: Arc<Queue<L>>, ledger: L) -> io::Result<Self> {
        let mut checkpointer = Checkpointer::new(engine, queue.clone(), ledger);
        // Runs before the store is open for others, as a `sqlite3` shell does not wait for the write lock.
        checkpointer.maintain();
        let run = move || {
            let _end = StopOnDrop(checkpointer.queue.clone());
            checkpointer.run();
        };
        let thread = thread::Builder::new().name("quota-writer".to_owned()).spawn(run)?;
        Ok(Self { queue, thread: Mutex::new(Some(thread)) })
    }

    /// Returns whether the thread is running, or was stopped by [`stop`](Self::stop).
    pub(crate) fn is_alive(&self) -> bool {
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner);
        thread.as_ref().is_none_or(|thread| !thread.is_finished())
    }

    /// Runs the queued jobs and ends the thread.
    pub(crate) fn stop(&self) {
        self.queue.stop();
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(thread) = thread
            && thread.join().is_err()
        {
            tracing::error!("writer thread panicked: rejecting requests until restart");
        }
    }
}

impl<L: Ledger> Drop for Writer<L> {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Closes the queue when the writer ends or panics, so that nothing is admitted any more.
struct StopOnDrop<L: Ledger>(Arc<Queue<L>>);

impl<L: Ledger> Drop for StopOnDrop<L> {
    fn drop(&mut self) {
        self.0.stop();
        self.0.close();
    }
}

/// State and steps of the writer thread.
pub(super) struct Checkpointer<L: Ledger> {
    engine: Arc<Engine>,
    queue: Arc<Queue<L>>,
    ledger: L,
    pending: PendingBatch,
    /// Transaction with the pending records that has failed, and may be committed nevertheless.
    in_doubt: Option<InDoubt>,
    /// Last reason in the log for which requests are rejected.
    logged: Option<String>,
    evicted_at: Instant,
    /// Time between the last checkpoint and the next one.
    interval: Duration,
    /// Time before which a checkpoint waits for more records.
    due_at: Instant,
}

/// Transaction whose outcome is not known yet.
struct InDoubt {
    /// Number of its commit.
    number: u64,
    /// Callbacks of its jobs, whose callers wait for the outcome.
    on_commit: Vec<OnCommit>,
}

impl<L: Ledger> Checkpointer<L> {
    pub(super) fn new(engine: Arc<Engine>, queue: Arc<Queue<L>>, ledger: L) -> Self {
        let now = Instant::now();
        Self {
            engine,
            queue,
            ledger,
            pending: PendingBatch::default(),
            in_doubt: None,
            logged: None,
            evicted_at: now,
            interval: Duration::ZERO,
            due_at: now,
        }
    }

    #[cfg(all(test, not(model)))]
    pub(super) fn ledger(&self) -> &L {
        &self.ledger
    }

    #[cfg(all(test, not(model)))]
    pub(super) fn into_ledger(self) -> L {
        self.ledger
    }

    fn run(&mut self) {
        loop {
            let is_open = self.engine.is_open().is_ok();
            let work = self.queue.take(if is_open { ROUND_INTERVAL } else { RETRY_INTERVAL });
            let is_last = work.stopped;
            // A panic in a subscriber of `tracing` must not end the thread.
            if catch_unwind(AssertUnwindSafe(|| self.round(work))).is_err() {
                self.clean_up();
            }
            if is_last {
                return;
            }
        }
    }

    fn round(&mut self, work: Work<L>) {
        self.collect();
        let is_due = self.is_due();
        if is_due || work.is_urgent() {
            let (begun, was_open) = (Instant::now(), self.engine.is_open().is_ok());
            self.turn(work.jobs);
            let interval = (begun.elapsed() * INTERVAL_FACTOR).min(L::MAX_INTERVAL);
            // One that a job has brought forward has few records.
            self.interval = if is_due { interval } else { interval.max(self.interval) };
            // What could not be written while admission was closed is in memory only.
            self.due_at = if was_open { begun + self.interval } else { begun };
        }
        if work.stopped {
            self.finish();
        } else {
            self.maintain();
        }
    }

    /// Takes the records from the journal, unless those taken before may be committed.
    pub(super) fn collect(&mut self) {
        if self.in_doubt.is_none() {
            self.pending.append(self.engine.journal.take());
        }
    }

    /// Returns whether a checkpoint is due, or another attempt after a failure.
    fn is_due(&self) -> bool {
        let position = self.pending.position.unwrap_or_default();
        Instant::now() >= self.due_at
            || self.pending.records >= SHARED_BY * self.pending.subjects_len().max(1)
            || self.pending.records >= MAX_RECORDS
            || position.offset > SEGMENT_LENGTH
            || self.engine.is_open().is_err()
    }

    fn maintain(&mut self) {
        self.ledger.maintain(&self.engine, &self.queue);
    }

    /// Rolls back after a panic. An uncommitted transaction is treated as a failed write.
    fn clean_up(&mut self) {
        if self.ledger.roll_back() {
            self.queue.close();
        }
    }

    /// Applies the pending records and runs these jobs, in one transaction.
    pub(super) fn turn(&mut self, mut jobs: VecDeque<Job<L>>) {
        if self.engine.is_open().is_err() && !self.queue.is_stopped() {
            if !self.engine.journal.is_suspended() {
                self.recover();
            }
            return;
        }
        // At shutdown nothing is recovered.
        if self.in_doubt.is_some() && self.resolve().is_err() {
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
            // Closes admission before `jobs` and `on_commit` are dropped, which notifies the callers.
            Err(error) => self.fail(&error, on_commit),
        }
    }

    /// Removes the checkpointed records from memory and from the journal.
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

    fn fail(&mut self, error: &L::Error, on_commit: Vec<OnCommit>) {
        self.engine.meter.failures.increment(1);
        self.ledger.failed();
        self.queue.close();
        self.doubt(error, on_commit);
        self.log_failure(error);
    }

    /// Logs why requests are rejected, once for each reason in a row.
    fn log_failure(&mut self, error: &L::Error) {
        let reason = error.to_string();
        if self.logged.as_ref() != Some(&reason) {
            self.logged = Some(reason);
            tracing::error!(%error, "checkpoint failed: rejecting requests until one succeeds");
        }
    }

    /// Applies the pending records after a failure. If that succeeds, admits requests again.
    fn recover(&mut self) {
        if let Err(error) = self.resolve() {
            self.queue.close();
            self.log_failure(&error);
            return;
        }
        self.pending.append(self.engine.journal.take());
        let pending = &self.pending;
        let written = self.engine.transaction(&mut self.ledger, |tables| {
            L::probe(tables)?;
            L::checkpoint(tables, pending)
        });
        if let Err(error) = written {
            self.queue.close();
            self.doubt(&error, Vec::new());
            self.log_failure(&error);
            return;
        }
        self.checkpointed();
        if self.engine.journal.has_failed()
            && let Err(error) = self.engine.journal.rotate()
        {
            tracing::debug!(%error, "journal rotation failed again: still rejecting requests");
            return;
        }
        self.ledger.recovered();
        self.queue.reopen();
        self.logged = None;
        tracing::info!("journal and database can be written again: admitting requests");
    }

    /// Remembers that the pending records may be committed.
    fn doubt(&mut self, error: &L::Error, on_commit: Vec<OnCommit>) {
        if L::may_be_committed(error) {
            let number = self.engine.journal.next_commit();
            self.in_doubt = Some(InDoubt { number, on_commit });
        }
    }

    /// Learns whether the transaction in doubt was committed. If so, completes it.
    fn resolve(&mut self) -> Result<(), L::Error> {
        let state = self.ledger.resume()?;
        self.engine.journal.note_commits(state.commits);
        let Some(InDoubt { number, on_commit }) = self.in_doubt.take() else { return Ok(()) };
        if state.commits >= number {
            self.checkpointed();
            on_commit.into_iter().for_each(|on_commit| on_commit());
        }
        Ok(())
    }

    /// Applies the rest of the journal at shutdown, and returns the unused units of leases.
    pub(super) fn finish(&mut self) {
        self.engine.journal.end();
        if let Err(error) = self.resolve() {
            tracing::error!(%error, "last checkpoint failed: the next start will apply the journal");
            return;
        }
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
                tracing::error!(%error, "last checkpoint failed: the next start will apply the journal");
            }
        }
    }
}

#[cfg(all(test, not(model)))]
mod tests {
    use std::{
        sync::atomic::{AtomicU32, Ordering},
        time::SystemTime,
    };

    use super::*;
    use crate::{
        clock::{Calendar, SystemClock},
        key::Limit,
        store::{
            Demand,
            counter::{Count, CounterKey},
            engine::{
                Durability, EngineOptions,
                journal::{Commit, DatabaseId, FileDisk, Journal},
                simulation::{MemoryLedger, SimLedger},
            },
        },
    };

    /// A checkpointer whose commits take a while, and the number of these.
    struct Slow {
        checkpointer: Checkpointer<MemoryLedger>,
        commits: Arc<AtomicU32>,
        _directory: tempfile::TempDir,
    }

    impl Slow {
        fn new(commit: Duration) -> Self {
            let directory = tempfile::tempdir().unwrap();
            let disk = Box::new(FileDisk::beside(&directory.path().join("quota.db")));
            let commits = Arc::new(AtomicU32::new(0));
            let counted = commits.clone();
            let ledger = MemoryLedger::create(&[], move || {
                counted.fetch_add(1, Ordering::Relaxed);
                thread::sleep(commit);
                true
            });
            let journal =
                Journal::begin(disk, 1, DatabaseId::default(), Commit::default()).unwrap();
            let options = EngineOptions {
                calendar: Calendar::utc(),
                clock: Arc::new(SystemClock),
                durability: Durability::Process,
                retention_days: 0,
            };
            let engine = Arc::new(Engine::new(options, journal));
            let queue = Arc::new(engine.queue());
            let checkpointer = Checkpointer::new(engine, queue, ledger);
            Self { checkpointer, commits, _directory: directory }
        }

        /// Appends a record to the journal, and makes a round of the writer. Returns the number of commits so far.
        fn round(&mut self) -> u32 {
            let engine = &self.checkpointer.engine;
            let key = CounterKey::daily("alice".into());
            let counter = engine.insert_counter(key, Count::new(engine.today()));
            let demand = Demand::new("alice".into(), Limit::Unlimited, SystemTime::now());
            engine.reserve(counter, &demand).unwrap();
            let work = self.checkpointer.queue.take(Duration::ZERO);
            self.checkpointer.round(work);
            self.commits.load(Ordering::Relaxed)
        }
    }

    #[test]
    fn a_checkpoint_that_takes_long_waits_for_more_records_but_not_for_long() {
        let mut slow = Slow::new(Duration::from_millis(50));
        assert_eq!(slow.round(), 1);
        let interval = slow.checkpointer.interval;
        assert!((Duration::from_secs(1)..=Duration::from_secs(3)).contains(&interval));
        assert_eq!(slow.round(), 1, "it waits");
        assert_eq!(slow.checkpointer.pending.records, 1, "the records are taken");
        slow.checkpointer.due_at = Instant::now();
        assert_eq!(slow.round(), 2);

        let mut slower = Slow::new(Duration::from_millis(200));
        slower.round();
        assert_eq!(slower.checkpointer.interval, Duration::from_secs(3));
    }

    #[test]
    fn a_checkpoint_waits_for_no_more_records_of_keys_in_heavy_use() {
        let mut slow = Slow::new(Duration::from_millis(200));
        slow.round();
        for _ in 1..SHARED_BY {
            assert_eq!(slow.round(), 1);
        }
        assert_eq!(slow.round(), 2);
    }

    #[test]
    fn a_job_does_not_wait_and_makes_later_checkpoints_no_more_frequent() {
        let mut slow = Slow::new(Duration::from_millis(200));
        slow.round();
        let _reply = slow.checkpointer.queue.call(|_| Ok(()), |()| ());
        assert_eq!(slow.round(), 2);
        assert_eq!(slow.checkpointer.pending.records, 0, "it applies all records");
        assert_eq!(slow.checkpointer.interval, Duration::from_secs(3));
        assert_eq!(slow.round(), 2);
    }
}
