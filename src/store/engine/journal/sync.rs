//! The sync thread, the durable LSN, and its waiters.

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
    metrics::{Counter, Histogram, names},
    store::sync::{AtomicU64, Mutex, Ordering, lock},
};

/// Minimum time between two syncs, in which the records of many requests gather for the next one. Most upstreams take
/// longer to respond.
const PAUSE: Duration = Duration::from_millis(2);

/// Time at which the next sync is due.
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
    /// Schedules a sync at this time, unless an earlier one is scheduled.
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

    /// Waits until a sync is due, at least until `pause_ends`. Returns `false` once the timer is stopped.
    fn wait(&self, pause_ends: Instant) -> bool {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        while !state.stopped {
            let due = state.due.map(|due| due.max(pause_ends));
            let left = due.map(|due| due.saturating_duration_since(Instant::now()));
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

/// Thread that syncs a journal whenever a sync is due. Dropping this stops it.
pub(crate) struct Syncer {
    journal: Arc<Journal>,
    thread: Option<JoinHandle<()>>,
}

impl Syncer {
    pub(crate) fn start(journal: Arc<Journal>) -> io::Result<Self> {
        let syncing = journal.clone();
        let run = move || {
            let _end = CloseOnDrop(syncing.clone());
            let mut pause_ends = Instant::now();
            while syncing.timer.wait(pause_ends) {
                let synced = catch_unwind(AssertUnwindSafe(|| syncing.sync()));
                // A panic in a subscriber of `tracing` must not end the thread. The journal is marked as
                // failed before a failure is logged.
                if synced.is_err() && !syncing.has_failed() {
                    return;
                }
                if synced.is_ok_and(|synced| synced) {
                    pause_ends = Instant::now() + PAUSE;
                }
            }
            syncing.sync();
        };
        let thread = thread::Builder::new().name("quota-journal".to_owned()).spawn(run)?;
        Ok(Self { journal, thread: Some(thread) })
    }

    /// Returns whether the thread is running.
    pub(crate) fn is_alive(&self) -> bool {
        self.thread.as_ref().is_some_and(|thread| !thread.is_finished())
    }
}

/// Closes the journal when the thread ends or panics, so that no record is accepted that would never be
/// synced.
struct CloseOnDrop(Arc<Journal>);

impl Drop for CloseOnDrop {
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
            tracing::error!("journal thread panicked: rejecting requests until restart");
        }
    }
}

/// LSN up to which the journal is durable, and the tasks that wait for a higher one.
pub(super) struct DurableLsn {
    up_to: AtomicU64,
    waiters: Mutex<Vec<(Lsn, Waker)>>,
}

impl DurableLsn {
    pub(super) fn new() -> Self {
        Self { up_to: AtomicU64::new(0), waiters: Mutex::new(Vec::new()) }
    }

    /// Returns whether all records up to `end` are durable.
    pub(super) fn reaches(&self, end: Lsn) -> bool {
        self.up_to.load(Ordering::Acquire) >= end.0
    }

    /// Completes with `true` once all records up to `end` are durable, or with `false` if the journal has failed.
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
        // Checked again under the lock, which the sync takes before it wakes the waiters.
        if self.reaches(end) {
            return Poll::Ready(true);
        }
        if has_failed() {
            return Poll::Ready(false);
        }
        waiters.push((end, cx.waker().clone()));
        Poll::Pending
    }

    /// Advances the durable LSN to `end`.
    pub(super) fn advance(&self, end: Lsn) {
        self.up_to.store(end.0, Ordering::Release);
        let mut waiters = lock(&self.waiters);
        let ready: Vec<_> = waiters.extract_if(.., |(until, _)| *until <= end).collect();
        drop(waiters);
        ready.into_iter().for_each(|(_, waker)| waker.wake());
    }

    /// Wakes all waiters.
    pub(super) fn wake_all(&self) {
        let waiters = mem::take(&mut *lock(&self.waiters));
        waiters.into_iter().for_each(|(_, waker)| waker.wake());
    }
}

/// Measures the duration of syncs, and counts failures.
pub(super) struct Stopwatch {
    created: Instant,
    /// Start of the current sync in milliseconds since `created`, plus 1; 0 if no sync is running.
    sync_began: AtomicU64,
    duration: Histogram,
    failures: Counter,
}

impl Stopwatch {
    pub(super) fn new() -> Self {
        Self {
            created: Instant::now(),
            sync_began: AtomicU64::new(0),
            duration: names::SYNC_DURATION.histogram(&[]),
            failures: names::STORE_FAILURES.counter(&[("part", "journal")]),
        }
    }

    pub(super) fn sync(&self, segment: &dyn Segment) -> io::Result<()> {
        let began = self.created.elapsed();
        let millis = u64::try_from(began.as_millis()).unwrap_or(u64::MAX - 1);
        self.sync_began.store(millis + 1, Ordering::Release);
        let synced = segment.sync();
        self.sync_began.store(0, Ordering::Release);
        self.duration.record(self.created.elapsed().saturating_sub(began));
        synced
    }

    /// Returns how long the current sync has been running, if there is one.
    pub(super) fn age(&self) -> Option<Duration> {
        let began = self.sync_began.load(Ordering::Acquire).checked_sub(1)?;
        Some(self.created.elapsed().saturating_sub(Duration::from_millis(began)))
    }

    /// Counts a failure of the journal.
    pub(super) fn count_failure(&self) {
        self.failures.increment(1);
    }
}
