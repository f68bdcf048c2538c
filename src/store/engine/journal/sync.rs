//! The thread that syncs.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, Condvar, Mutex, PoisonError},
    thread::{self, JoinHandle},
    time::Instant,
};

use super::Journal;

/// Tells the thread when the next sync is due.
#[derive(Default)]
pub(super) struct Bell {
    state: Mutex<State>,
    wake: Condvar,
}

#[derive(Default)]
struct State {
    due: Option<Instant>,
    stopped: bool,
}

impl Bell {
    /// A sync is due at this time, or before.
    pub(super) fn ring_at(&self, at: Instant) {
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
    pub(crate) fn start(journal: Arc<Journal>) -> std::io::Result<Self> {
        let syncing = journal.clone();
        let run = move || {
            let _end = EndJournal(syncing.clone());
            while syncing.bell.wait() {
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

/// Nothing is written that nobody would sync, also after a panic.
struct EndJournal(Arc<Journal>);

impl Drop for EndJournal {
    fn drop(&mut self) {
        self.0.end();
    }
}

impl Drop for Syncer {
    fn drop(&mut self) {
        self.journal.bell.stop();
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the journal's thread has panicked");
        }
    }
}
