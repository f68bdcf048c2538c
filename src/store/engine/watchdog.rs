//! Watchdog thread: detects stalled syncs and moved files.

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

use super::journal::Journal;

/// Interval between two checks.
const CHECK_INTERVAL: Duration = Duration::from_millis(500);
/// Maximum duration of a sync before the disk counts as failed.
const SYNC_TIMEOUT: Duration = Duration::from_millis(1500);

/// Suspends the journal while the disk does not respond, or while the database or the journal is missing
/// at its path.
pub(crate) struct Watchdog {
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Watchdog {
    /// Starts the thread. `is_in_place` returns whether the database is still at its path.
    pub(crate) fn start(
        journal: Arc<Journal>,
        is_in_place: impl Fn() -> bool + Send + 'static,
    ) -> io::Result<Self> {
        let (stop, stopped) = channel::<()>();
        let run = move || {
            let mut known = None;
            while let Err(RecvTimeoutError::Timeout) = stopped.recv_timeout(CHECK_INTERVAL) {
                // A panic in a subscriber of `tracing` must not end the thread.
                let _ = catch_unwind(AssertUnwindSafe(|| {
                    check(&journal, &is_in_place, &mut known);
                }));
            }
        };
        let thread = thread::Builder::new().name("quota-watchdog".to_owned()).spawn(run)?;
        Ok(Self { stop: Some(stop), thread: Some(thread) })
    }

    /// Returns whether the thread is running.
    pub(crate) fn is_alive(&self) -> bool {
        self.thread.as_ref().is_some_and(|thread| !thread.is_finished())
    }
}

/// Suspends or resumes the journal if the state has changed since the last check, then logs it.
fn check(journal: &Journal, is_in_place: &dyn Fn() -> bool, known: &mut Option<&'static str>) {
    journal.check_length();
    let problem = problem(journal, is_in_place);
    match (problem, mem::replace(known, problem)) {
        (Some(reason), None) => {
            journal.suspend();
            tracing::error!(reason, "journal suspended: rejecting requests");
        }
        (None, Some(reason)) => {
            journal.resume();
            tracing::info!(reason, "journal resumed: admitting requests");
        }
        _ => {}
    }
}

fn problem(journal: &Journal, is_in_place: &dyn Fn() -> bool) -> Option<&'static str> {
    if journal.sync_age().is_some_and(|age| age > SYNC_TIMEOUT) {
        Some("the disk does not respond")
    } else if !is_in_place() {
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
            tracing::error!(
                "watchdog thread panicked: stalled syncs and moved files are not detected until restart"
            );
        }
    }
}
