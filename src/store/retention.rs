//! Schedule of the deletion of expired requests, in batches.

use std::time::{Duration, Instant};

/// Maximum number of rows that one transaction reads.
pub(crate) const BATCH_SIZE: usize = 1000;
/// Maximum duration of a run of consecutive transactions.
pub(crate) const MAX_BUSY_TIME: Duration = Duration::from_millis(50);
/// Interval between two runs while expired rows are left.
const BUSY_INTERVAL: Duration = Duration::from_millis(100);
/// Interval between two runs while no expired row is left.
const IDLE_INTERVAL: Duration = Duration::from_secs(60);

/// Progress of the deletion of expired requests.
#[derive(Default)]
pub(crate) struct Retention {
    /// Number of the last row that was read.
    after: i64,
    /// Time of the next run.
    next: Option<Instant>,
}

impl Retention {
    pub(crate) fn is_due(&self) -> bool {
        self.next.is_none_or(|next| next <= Instant::now())
    }

    /// Returns the number of the row after which the next run begins.
    pub(crate) fn after(&self) -> i64 {
        self.after
    }

    /// Schedules the next run: after this row, or from the start if `None`.
    pub(crate) fn continue_after(&mut self, after: Option<i64>) {
        let pause = if after.is_some() { BUSY_INTERVAL } else { IDLE_INTERVAL };
        (self.after, self.next) = (after.unwrap_or_default(), Some(Instant::now() + pause));
    }
}
