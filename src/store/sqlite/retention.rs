//! When expired requests are deleted, some at a time.

use std::time::{Duration, Instant};

/// Number of rows that one transaction looks at.
pub(super) const BATCH_SIZE: usize = 1000;
/// The longest time for which one transaction follows the other.
pub(super) const MAX_BUSY_TIME: Duration = Duration::from_millis(50);
/// The time between two runs while rows are left that have expired.
const PAUSE: Duration = Duration::from_millis(100);
/// The time between two runs while none is left.
const IDLE_INTERVAL: Duration = Duration::from_secs(60);

/// How far expired requests are deleted, and when the next ones are.
#[derive(Default)]
pub(super) struct Retention {
    /// The row behind which the next run begins.
    after: i64,
    next: Option<Instant>,
}

impl Retention {
    pub(super) fn is_due(&self) -> bool {
        self.next.is_none_or(|next| next <= Instant::now())
    }

    /// The row behind which the next run begins.
    pub(super) fn after(&self) -> i64 {
        self.after
    }

    /// The next run begins behind this row, soon; without one, from the first row after a while.
    pub(super) fn continue_after(&mut self, after: Option<i64>) {
        let pause = if after.is_some() { PAUSE } else { IDLE_INTERVAL };
        (self.after, self.next) = (after.unwrap_or_default(), Some(Instant::now() + pause));
    }
}
