//! How much of the journal survives a loss of power, and who waits for more.

use std::{
    mem,
    task::{Context, Poll, Waker},
};

use super::Lsn;
use crate::store::engine::sync::{AtomicU64, Mutex, Ordering, lock};

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
        let ready: Vec<_> = waiters.extract_if(.., |(wanted, _)| *wanted <= end).collect();
        drop(waiters);
        ready.into_iter().for_each(|(_, waker)| waker.wake());
    }

    /// Lets everybody look whether there is anything left to wait for.
    pub(super) fn wake_all(&self) {
        let waiters = mem::take(&mut *lock(&self.waiters));
        waiters.into_iter().for_each(|(_, waker)| waker.wake());
    }
}
