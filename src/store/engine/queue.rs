//! Queue of jobs that the writer runs in its transactions.

use std::{
    collections::VecDeque,
    future::Future,
    mem,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tokio::sync::oneshot;

use super::Ledger;
use crate::{error::StoreError, store::StoreFuture};

/// Work within a transaction. Returns its result and the callback for the commit.
pub(crate) type Job<L> =
    Box<dyn FnOnce(&<L as Ledger>::Tables) -> (Result<(), <L as Ledger>::Error>, OnCommit) + Send>;

/// Callback that runs after the commit, and is dropped if the transaction fails.
pub(crate) type OnCommit = Box<dyn FnOnce() + Send>;

/// Creates a job from `work`, and a future of its result, which is ready once the transaction is
/// committed and `after` has run with the result.
pub(crate) fn job<L: Ledger, T: Send + 'static>(
    work: impl FnOnce(&L::Tables) -> Result<T, L::Error> + Send + 'static,
    after: impl FnOnce(&T) + Send + 'static,
) -> (Job<L>, impl Future<Output = Result<T, StoreError>> + Send + 'static) {
    let (sender, receiver) = oneshot::channel();
    let job: Job<L> = Box::new(move |tables| match work(tables) {
        Ok(result) => {
            let on_commit: OnCommit = Box::new(move || {
                after(&result);
                // The caller may have dropped the future.
                let _ = sender.send(result);
            });
            (Ok(()), on_commit)
        }
        Err(error) => (Err(error), Box::new(move || drop(sender))),
    });
    let result = async move {
        receiver.await.map_err(|_| StoreError::unavailable("the transaction was not committed"))
    };
    (job, result)
}

/// Runs the jobs in order, and adds their callbacks to `on_commit`. A job that fails or panics is rolled
/// back to its savepoint. If the ledger fails, no caller is notified before `jobs` and `on_commit` are
/// dropped.
pub(super) fn run<L: Ledger>(
    tables: &L::Tables,
    jobs: &mut VecDeque<Job<L>>,
    on_commit: &mut Vec<OnCommit>,
) -> Result<(), L::Error> {
    while let Some(job) = jobs.pop_front() {
        let mut reply = None;
        let done = L::in_savepoint(tables, |tables| {
            match catch_unwind(AssertUnwindSafe(|| job(tables))) {
                Ok((done, on_commit)) => {
                    reply = Some(on_commit);
                    done.map(Some)
                }
                Err(_) => Ok(None),
            }
        });
        match done {
            Ok(None) => {}
            Ok(Some(())) => on_commit.extend(reply),
            Err(error) => {
                on_commit.extend(reply);
                return Err(error);
            }
        }
    }
    Ok(())
}

/// Jobs that wait for the writer.
pub(crate) struct Queue<L: Ledger> {
    /// Whether jobs and reservations are accepted. Cleared by a failed write and at shutdown.
    open: Arc<AtomicBool>,
    state: Mutex<State<L>>,
    wake: Condvar,
}

struct State<L: Ledger> {
    jobs: VecDeque<Job<L>>,
    stopped: bool,
    /// Whether the writer is waiting and must be woken.
    asleep: bool,
    /// Whether a checkpoint is needed at once, without a job.
    hurried: bool,
}

/// Jobs for the writer, and whether it should stop after them.
pub(super) struct Work<L: Ledger> {
    pub(super) jobs: VecDeque<Job<L>>,
    pub(super) stopped: bool,
    hurried: bool,
}

impl<L: Ledger> Work<L> {
    /// Returns whether somebody waits for a transaction.
    pub(super) fn is_urgent(&self) -> bool {
        self.hurried || self.stopped || !self.jobs.is_empty()
    }
}

/// Returns the error of requests while nothing is accepted.
pub(super) fn closed() -> StoreError {
    StoreError::unavailable("the last write failed, or the store is closed")
}

impl<L: Ledger> Queue<L> {
    pub(super) fn new(open: Arc<AtomicBool>) -> Self {
        let jobs = VecDeque::new();
        let state = State { jobs, stopped: false, asleep: false, hurried: false };
        Self { open, state: Mutex::new(state), wake: Condvar::new() }
    }

    fn lock(&self) -> MutexGuard<'_, State<L>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns whether the last write succeeded and the writer is running.
    pub(crate) fn is_open(&self) -> bool {
        self.open.load(Ordering::Acquire)
    }

    /// Queues a job for the next transaction.
    ///
    /// # Errors
    ///
    /// The ledger cannot be written.
    pub(crate) fn push(&self, job: Job<L>) -> Result<(), StoreError> {
        let mut state = self.lock();
        if !self.is_open() {
            return Err(closed());
        }
        state.jobs.push_back(job);
        self.wake(state);
        Ok(())
    }

    /// Runs `work` in the next transaction. The future is ready with the result once the transaction is
    /// committed and `after` has run.
    pub(crate) fn call<T: Send + 'static>(
        &self,
        work: impl FnOnce(&L::Tables) -> Result<T, L::Error> + Send + 'static,
        after: impl FnOnce(&T) + Send + 'static,
    ) -> StoreFuture<T> {
        let (job, result) = job::<L, T>(work, after);
        match self.push(job) {
            Ok(()) => StoreFuture::pending(result),
            Err(error) => StoreFuture::ready(Err(error)),
        }
    }

    fn wake(&self, mut state: MutexGuard<'_, State<L>>) {
        if mem::take(&mut state.asleep) {
            drop(state);
            self.wake.notify_one();
        }
    }

    /// Wakes the writer for a checkpoint.
    #[cfg(feature = "postgres")]
    pub(crate) fn hurry(&self) {
        let mut state = self.lock();
        state.hurried = true;
        self.wake(state);
    }

    /// Waits at most `timeout` until a job is queued, and takes all queued jobs.
    pub(super) fn take(&self, timeout: Duration) -> Work<L> {
        let mut state = self.lock();
        if state.jobs.is_empty() && !state.stopped && !state.hurried {
            state.asleep = true;
            let waiting = |state: &mut State<L>| state.asleep;
            let waited = self.wake.wait_timeout_while(state, timeout, waiting);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
            state.asleep = false;
        }
        let hurried = mem::take(&mut state.hurried);
        Work { jobs: mem::take(&mut state.jobs), stopped: state.stopped, hurried }
    }

    /// Rejects further jobs, and drops the queued ones.
    pub(crate) fn close(&self) {
        let mut state = self.lock();
        self.open.store(false, Ordering::Release);
        state.jobs.clear();
    }

    pub(super) fn reopen(&self) {
        let state = self.lock();
        self.open.store(!state.stopped, Ordering::Release);
    }

    /// Returns whether no job is queued and the writer should not stop.
    pub(crate) fn is_idle(&self) -> bool {
        let state = self.lock();
        state.jobs.is_empty() && !state.stopped
    }

    /// Returns the number of queued jobs.
    pub(crate) fn depth(&self) -> usize {
        self.lock().jobs.len()
    }

    pub(super) fn is_stopped(&self) -> bool {
        self.lock().stopped
    }

    /// Shuts the writer down once the queue is empty.
    pub(crate) fn stop(&self) {
        let mut state = self.lock();
        self.open.store(false, Ordering::Release);
        state.stopped = true;
        state.asleep = true;
        self.wake(state);
    }
}
