//! What waits to be written.

use std::{
    future::Future,
    pin::Pin,
    sync::{Condvar, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker, ready},
    time::Duration,
};

use futures_util::future::{FutureExt, Shared};
use rusqlite::Connection;
use tokio::sync::oneshot;

use super::ops::{Op, job};
use crate::{
    error::StoreError,
    store::{StoreFuture, UsageEvent},
};

/// Whether a batch was committed. Clones wait for the same batch.
#[derive(Clone)]
pub(super) struct Commit {
    outcome: Shared<oneshot::Receiver<Result<(), StoreError>>>,
    known: Option<Result<(), StoreError>>,
}

/// All that is written in one transaction.
pub(super) struct Batch {
    pub(super) ops: Vec<Op>,
    pub(super) usage: Vec<UsageEvent>,
    pub(super) committed: oneshot::Sender<Result<(), StoreError>>,
    commit: Commit,
}

pub(super) struct Queue {
    state: Mutex<State>,
    wake: Condvar,
}

struct State {
    batch: Batch,
    /// Whether ops are taken: not after a failed write, nor after the end.
    open: bool,
    stopped: bool,
    /// Whether the writer sleeps and must be woken.
    asleep: bool,
}

/// What the writer found when it woke up.
pub(super) struct Work {
    pub(super) batch: Batch,
    pub(super) stopped: bool,
}

impl Queue {
    pub(super) fn new() -> Self {
        let state = State { batch: Batch::new(), open: true, stopped: false, asleep: false };
        Self { state: Mutex::new(state), wake: Condvar::new() }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Queues an op; refused while the store cannot be written.
    pub(super) fn push(&self, op: Op) -> Result<Commit, StoreError> {
        let mut state = self.lock();
        if !state.open {
            return Err(StoreError::unavailable("the last write failed, or the store is closed"));
        }
        state.batch.ops.push(op);
        let commit = state.batch.commit.clone();
        self.wake(state);
        Ok(commit)
    }

    /// Queues a usage event: it waits for the next transaction that something urgent causes, or a
    /// moment, and outlasts failed writes.
    pub(super) fn push_usage(&self, event: UsageEvent) {
        self.lock().batch.usage.push(event);
    }

    /// Runs `work` in the next transaction; ready with its result once that is committed and
    /// `after` has run.
    pub(super) fn call<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
        after: impl FnOnce() + Send + 'static,
    ) -> StoreFuture<T> {
        let (job, result) = job(work, after);
        match self.push(Op::Job { counts: None, job }) {
            Ok(_) => StoreFuture::pending(result),
            Err(error) => StoreFuture::ready(Err(error)),
        }
    }

    fn wake(&self, mut state: MutexGuard<'_, State>) {
        if std::mem::take(&mut state.asleep) {
            drop(state);
            self.wake.notify_one();
        }
    }

    /// Waits until something urgent is queued, at most `patience`, and takes all that is queued.
    pub(super) fn take(&self, patience: Duration) -> Work {
        let mut state = self.lock();
        if state.batch.ops.is_empty() && !state.stopped {
            state.asleep = true;
            let waiting = |state: &mut State| state.asleep;
            let waited = self.wake.wait_timeout_while(state, patience, waiting);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
            state.asleep = false;
        }
        let batch = std::mem::replace(&mut state.batch, Batch::new());
        Work { batch, stopped: state.stopped }
    }

    /// Takes no more ops, and hands out those that were queued meanwhile.
    pub(super) fn close(&self) -> Batch {
        let mut state = self.lock();
        state.open = false;
        std::mem::replace(&mut state.batch, Batch::new())
    }

    pub(super) fn reopen(&self) {
        let mut state = self.lock();
        state.open = !state.stopped;
    }

    /// Whether it was closed after a failed write.
    pub(super) fn has_failed(&self) -> bool {
        let state = self.lock();
        !state.open && !state.stopped
    }

    /// The writer has ended: whoever waits is told, and nothing more is taken.
    pub(super) fn end(&self) {
        let mut state = self.lock();
        state.open = false;
        state.stopped = true;
        state.batch = Batch::new();
    }

    /// Tells the writer to end after what is queued.
    pub(super) fn stop(&self) {
        let mut state = self.lock();
        state.open = false;
        state.stopped = true;
        state.asleep = true;
        self.wake(state);
    }
}

impl Batch {
    fn new() -> Self {
        let (committed, receiver) = oneshot::channel();
        let commit = Commit { outcome: receiver.shared(), known: None };
        Self { ops: Vec::new(), usage: Vec::new(), committed, commit }
    }
}

impl Commit {
    /// Whether the batch is known to have failed.
    pub(super) fn has_failed(&mut self) -> bool {
        let mut cx = Context::from_waker(Waker::noop());
        matches!(self.poll(&mut cx), Poll::Ready(Err(_)))
    }

    /// Ready once the batch is committed or has failed; may be asked again.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), StoreError>> {
        if let Some(known) = &self.known {
            return Poll::Ready(known.clone());
        }
        let outcome = ready!(Pin::new(&mut self.outcome).poll(cx));
        let ended = |_| Err(StoreError::unavailable("the writer has ended"));
        let known = self.known.insert(outcome.unwrap_or_else(ended));
        Poll::Ready(known.clone())
    }
}
