//! What the journal tells through the `metrics` facade.

use crate::metrics::{self, Counter, Histogram};

pub(super) struct Meter {
    pub(super) duration: Histogram,
    pub(super) failures: Counter,
}

impl Meter {
    pub(super) fn new() -> Self {
        Self {
            duration: metrics::SYNC_DURATION.histogram(&[]),
            failures: metrics::STORE_FAILURES.counter(&[("part", "journal")]),
        }
    }
}
