//! Syncing: the thread that does it, how much survives a loss of power, and who waits for more.

use std::{
    io, mem,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, Condvar, Mutex as StdMutex, PoisonError},
    task::{Context, Poll, Waker},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use super::{Journal, Lsn, Segment};
use crate::{
    metrics::{self, Counter, Histogram},
    store::engine::sync::{AtomicU64, Mutex, Ordering, lock},
};

/// The time at which the next sync is due.
#[derive(Default)]
pub(super) struct SyncTimer {
    state: StdMutex<State>,
    wake: Condvar,
}

#[derive(Default)]
struct State {
    due: Option<Instant>,
    stopped: bool,
}

impl SyncTimer {
    /// A sync is due at this time, or before.
    pub(super) fn set(&self, at: Instant) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.due.is_none_or(|due| at < due) {
            state.due = Some(at);
            drop(state);
            self.wake.notify_one();
        }
    }

    fn stop(&self) {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).stopped = true;
        self.wake.notify_one();
    }

    /// Waits until a sync is due; `false` when there will be no more.
    fn wait(&self) -> bool {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        while !state.stopped {
            let left = state.due.map(|due| due.saturating_duration_since(Instant::now()));
            state = match left {
                None => self.wake.wait(state).unwrap_or_else(PoisonError::into_inner),
                Some(left) if left.is_zero() => {
                    state.due = None;
                    return true;
                }
                Some(left) => {
                    let waited = self.wake.wait_timeout(state, left);
                    waited.unwrap_or_else(PoisonError::into_inner).0
                }
            };
        }
        false
    }
}

/// Syncs a journal whenever it is due, on a thread of its own, until it is dropped.
pub(crate) struct Syncer {
    journal: Arc<Journal>,
    thread: Option<JoinHandle<()>>,
}

impl Syncer {
    pub(crate) fn start(journal: Arc<Journal>) -> io::Result<Self> {
        let syncing = journal.clone();
        let run = move || {
            let _end = EndJournal(syncing.clone());
            while syncing.timer.wait() {
                let synced = catch_unwind(AssertUnwindSafe(|| syncing.sync()));
                // A subscriber of `tracing` that panics must not end the thread. A failure was noted
                // before it was logged.
                if synced.is_err() && !syncing.has_failed() {
                    return;
                }
            }
            syncing.sync();
        };
        let thread = thread::Builder::new().name("quota-journal".to_owned()).spawn(run)?;
        Ok(Self { journal, thread: Some(thread) })
    }

    /// Whether the thread runs.
    pub(crate) fn is_alive(&self) -> bool {
        self.thread.as_ref().is_some_and(|thread| !thread.is_finished())
    }
}

/// Nothing is appended that is never synced, also after a panic.
struct EndJournal(Arc<Journal>);

impl Drop for EndJournal {
    fn drop(&mut self) {
        self.0.end();
    }
}

impl Drop for Syncer {
    fn drop(&mut self) {
        self.journal.timer.stop();
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("journal thread panicked");
        }
    }
}

/// How much of the journal survives a loss of power, and who waits for more.
pub(super) struct DurableLsn {
    up_to: AtomicU64,
    waiters: Mutex<Vec<(Lsn, Waker)>>,
}

impl DurableLsn {
    pub(super) fn new() -> Self {
        Self { up_to: AtomicU64::new(0), waiters: Mutex::new(Vec::new()) }
    }

    /// Whether all up to `end` survives.
    pub(super) fn reaches(&self, end: Lsn) -> bool {
        self.up_to.load(Ordering::Acquire) >= end.0
    }

    /// Ready with `true` once all up to `end` survives, with `false` if that cannot be waited for.
    pub(super) fn poll(
        &self,
        end: Lsn,
        has_failed: impl FnOnce() -> bool,
        cx: &mut Context<'_>,
    ) -> Poll<bool> {
        if self.reaches(end) {
            return Poll::Ready(true);
        }
        let mut waiters = lock(&self.waiters);
        // Looked at again under the lock, which the sync takes before it wakes.
        if self.reaches(end) {
            return Poll::Ready(true);
        }
        if has_failed() {
            return Poll::Ready(false);
        }
        waiters.push((end, cx.waker().clone()));
        Poll::Pending
    }

    /// All up to `end` survives now.
    pub(super) fn advance(&self, end: Lsn) {
        self.up_to.store(end.0, Ordering::Release);
        let mut waiters = lock(&self.waiters);
        let ready: Vec<_> = waiters.extract_if(.., |(until, _)| *until <= end).collect();
        drop(waiters);
        ready.into_iter().for_each(|(_, waker)| waker.wake());
    }

    /// Lets everybody look whether there is anything left to wait for.
    pub(super) fn wake_all(&self) {
        let waiters = mem::take(&mut *lock(&self.waiters));
        waiters.into_iter().for_each(|(_, waker)| waker.wake());
    }
}

/// Measures syncs.
pub(super) struct Stopwatch {
    begun: Instant,
    /// The time at which the current sync began, in milliseconds since `begun`, and 1; or 0.
    sync_began: AtomicU64,
    duration: Histogram,
    failures: Counter,
}

impl Stopwatch {
    pub(super) fn new() -> Self {
        Self {
            begun: Instant::now(),
            sync_began: AtomicU64::new(0),
            duration: metrics::SYNC_DURATION.histogram(&[]),
            failures: metrics::STORE_FAILURES.counter(&[("part", "journal")]),
        }
    }

    pub(super) fn sync(&self, segment: &dyn Segment) -> io::Result<()> {
        let began = self.begun.elapsed();
        let millis = u64::try_from(began.as_millis()).unwrap_or(u64::MAX - 1);
        self.sync_began.store(millis + 1, Ordering::Release);
        let synced = segment.sync();
        self.sync_began.store(0, Ordering::Release);
        self.duration.record(self.begun.elapsed().saturating_sub(began));
        synced
    }

    /// How long the current sync has taken so far.
    pub(super) fn age(&self) -> Option<Duration> {
        let began = self.sync_began.load(Ordering::Acquire).checked_sub(1)?;
        Some(self.begun.elapsed().saturating_sub(Duration::from_millis(began)))
    }

    /// The journal has failed.
    pub(super) fn count_failure(&self) {
        self.failures.increment(1);
    }
}
