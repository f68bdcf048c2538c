//! Deletion of expired requests, in batches.

use std::time::{Duration, Instant, SystemTime};

use super::{Engine, Ledger, queue::Queue};

/// Maximum number of rows that one transaction reads.
const BATCH_SIZE: usize = 1000;
/// Maximum duration of a run of consecutive transactions.
const MAX_BUSY_TIME: Duration = Duration::from_millis(50);
/// Interval between two runs while expired rows are left.
const BUSY_INTERVAL: Duration = Duration::from_millis(100);
/// Interval between two runs while no expired row is left.
const IDLE_INTERVAL: Duration = Duration::from_secs(60);

/// Rows that one transaction reads, and deletes if they have expired.
pub(crate) struct ExpiryBatch {
    /// Number of the row before the first.
    pub(crate) after: i64,
    /// Time before which a request has expired.
    pub(crate) cutoff: SystemTime,
    pub(crate) now: SystemTime,
    /// Maximum number of rows.
    pub(crate) limit: usize,
}

/// Progress of the deletion of expired requests.
#[derive(Default)]
pub(crate) struct Retention {
    /// Number of the last row that was read.
    after: i64,
    /// Time of the next run.
    next: Option<Instant>,
}

impl Retention {
    /// Deletes expired rows of single requests, if it is time to. No other write has to wait for more than one batch.
    ///
    /// `delete` deletes those of a batch, and returns the number of its last row if there may be more.
    pub(crate) fn run<L: Ledger>(
        &mut self,
        ledger: &mut L,
        engine: &Engine,
        queue: &Queue<L>,
        delete: impl Fn(&L::Tables, &ExpiryBatch) -> Result<Option<i64>, L::Error>,
    ) {
        let Some(cutoff) = engine.retention_cutoff() else { return };
        let began = Instant::now();
        if !queue.is_open() || self.next.is_some_and(|next| began < next) {
            return;
        }
        loop {
            let now = engine.clock.now();
            let batch = ExpiryBatch { after: self.after, cutoff, now, limit: BATCH_SIZE };
            let deleted = engine.transaction(ledger, |tables| delete(tables, &batch));
            let after = deleted.unwrap_or_else(|error| {
                tracing::warn!(%error, "deletion of expired requests failed: trying again later");
                None
            });
            self.continue_after(after);
            if after.is_none() || began.elapsed() >= MAX_BUSY_TIME || !queue.is_idle() {
                return;
            }
        }
    }

    /// Schedules the next run: after this row, or from the start if `None`.
    fn continue_after(&mut self, after: Option<i64>) {
        let pause = if after.is_some() { BUSY_INTERVAL } else { IDLE_INTERVAL };
        (self.after, self.next) = (after.unwrap_or_default(), Some(Instant::now() + pause));
    }
}
