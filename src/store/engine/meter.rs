//! Metrics of the writer.

use std::time::Instant;

use crate::metrics::{Counter, Histogram, names};

pub(super) struct Meter {
    duration: Histogram,
    batch: Histogram,
    pub(super) failures: Counter,
}

/// Records the time from its creation until it is dropped.
pub(super) struct Timer {
    began: Instant,
    duration: Histogram,
}

impl Meter {
    pub(super) fn new() -> Self {
        Self {
            duration: names::COMMIT_DURATION.histogram(&[]),
            batch: names::BATCH.histogram(&[]),
            failures: names::STORE_FAILURES.counter(&[("part", "database")]),
        }
    }

    /// Starts measuring a transaction.
    pub(super) fn time(&self) -> Timer {
        Timer { began: Instant::now(), duration: self.duration.clone() }
    }

    /// Records the number of journal records that a checkpoint has applied.
    pub(super) fn checkpointed(&self, records: usize) {
        if records > 0 {
            self.batch.record(records as f64);
        }
    }
}

impl Drop for Timer {
    fn drop(&mut self) {
        self.duration.record(self.began.elapsed());
    }
}
