//! Jobs that wait for the writer.

use std::{
    collections::VecDeque,
    mem,
    sync::{
        Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use rusqlite::Connection;

use super::jobs::{Job, job};
use crate::{error::StoreError, store::StoreFuture};

#[derive(Default)]
pub(super) struct Queue {
    /// Set while jobs are taken: not after a failed write, nor after the end.
    open: AtomicBool,
    state: Mutex<State>,
    wake: Condvar,
}

#[derive(Default)]
struct State {
    jobs: VecDeque<Job>,
    stopped: bool,
    /// Whether the writer sleeps and must be woken.
    asleep: bool,
}

/// What the writer found when it woke up.
pub(super) struct Work {
    pub(super) jobs: VecDeque<Job>,
    pub(super) stopped: bool,
}

/// Why nothing is taken.
pub(super) fn closed() -> StoreError {
    StoreError::unavailable("the last write failed, or the store is closed")
}

impl Queue {
    pub(super) fn new() -> Self {
        Self { open: AtomicBool::new(true), ..Self::default() }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the last write succeeded, and the writer is there.
    pub(super) fn is_open(&self) -> bool {
        self.open.load(Ordering::Acquire)
    }

    /// Runs a job in the next transaction. Refused while the file cannot be written.
    pub(super) fn push(&self, job: Job) -> Result<(), StoreError> {
        let mut state = self.lock();
        if !self.is_open() {
            return Err(closed());
        }
        state.jobs.push_back(job);
        self.wake(state);
        Ok(())
    }

    /// Runs `work` in the next transaction; ready with its result once that is committed and
    /// `after` has run.
    pub(super) fn call<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
        after: impl FnOnce(&T) + Send + 'static,
    ) -> StoreFuture<T> {
        let (job, result) = job(work, after);
        match self.push(job) {
            Ok(()) => StoreFuture::pending(result),
            Err(error) => StoreFuture::ready(Err(error)),
        }
    }

    fn wake(&self, mut state: MutexGuard<'_, State>) {
        if mem::take(&mut state.asleep) {
            drop(state);
            self.wake.notify_one();
        }
    }

    /// Waits until a job is queued, at most `patience`, and takes all that are.
    pub(super) fn take(&self, patience: Duration) -> Work {
        let mut state = self.lock();
        if state.jobs.is_empty() && !state.stopped {
            state.asleep = true;
            let waiting = |state: &mut State| state.asleep;
            let waited = self.wake.wait_timeout_while(state, patience, waiting);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
            state.asleep = false;
        }
        Work { jobs: mem::take(&mut state.jobs), stopped: state.stopped }
    }

    /// Takes no more jobs, and refuses those that wait.
    pub(super) fn close(&self) {
        let mut state = self.lock();
        self.open.store(false, Ordering::Release);
        state.jobs.clear();
    }

    pub(super) fn reopen(&self) {
        let state = self.lock();
        self.open.store(!state.stopped, Ordering::Release);
    }

    /// Whether no job waits.
    pub(super) fn is_idle(&self) -> bool {
        let state = self.lock();
        state.jobs.is_empty() && !state.stopped
    }

    /// How many jobs wait.
    pub(super) fn depth(&self) -> usize {
        self.lock().jobs.len()
    }

    pub(super) fn is_stopped(&self) -> bool {
        self.lock().stopped
    }

    /// Tells the writer to end after what is queued.
    pub(super) fn stop(&self) {
        let mut state = self.lock();
        self.open.store(false, Ordering::Release);
        state.stopped = true;
        state.asleep = true;
        self.wake(state);
    }
}
