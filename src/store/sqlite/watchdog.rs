//! The thread that looks for what no write would notice.

use std::{
    io, mem,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc,
        mpsc::{RecvTimeoutError, Sender, channel},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use super::file::FileLock;
use crate::store::engine::journal::Journal;

/// How often it looks.
const ROUND: Duration = Duration::from_millis(500);
/// A disk that takes longer for a sync is as good as one that fails.
const SYNC_PATIENCE: Duration = Duration::from_millis(1500);

/// Suspends the journal while the disk does not answer, and while the database or the journal is no
/// longer where the next start will look for it.
pub(super) struct Watchdog {
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Watchdog {
    pub(super) fn start(journal: Arc<Journal>, lock: FileLock) -> io::Result<Self> {
        let (stop, stopped) = channel::<()>();
        let run = move || {
            let mut known = None;
            while let Err(RecvTimeoutError::Timeout) = stopped.recv_timeout(ROUND) {
                // A subscriber of `tracing` that panics must not end the thread.
                let _ = catch_unwind(AssertUnwindSafe(|| look(&journal, &lock, &mut known)));
            }
        };
        let thread = thread::Builder::new().name("quota-watchdog".to_owned()).spawn(run)?;
        Ok(Self { stop: Some(stop), thread: Some(thread) })
    }

    /// Whether the thread runs.
    pub(super) fn is_alive(&self) -> bool {
        self.thread.as_ref().is_some_and(|thread| !thread.is_finished())
    }
}

/// Acts on what has changed since the last look, and logs it after that.
fn look(journal: &Journal, lock: &FileLock, known: &mut Option<&'static str>) {
    journal.check_length();
    let trouble = trouble(journal, lock);
    match (trouble, mem::replace(known, trouble)) {
        (Some(reason), None) => {
            journal.suspend();
            tracing::error!(reason, "nothing is admitted");
        }
        (None, Some(reason)) => {
            journal.resume();
            tracing::info!(reason, "no longer: admitting again");
        }
        _ => {}
    }
}

/// What is wrong.
fn trouble(journal: &Journal, lock: &FileLock) -> Option<&'static str> {
    if journal.sync_age().is_some_and(|age| age > SYNC_PATIENCE) {
        Some("the disk does not answer")
    } else if !lock.is_in_place() {
        Some("the database was removed or replaced; put it back, or restart")
    } else if !journal.is_in_place() {
        Some("the journal was removed or replaced; put it back, or restart")
    } else {
        None
    }
}

impl Drop for Watchdog {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the watchdog has panicked");
        }
    }
}
