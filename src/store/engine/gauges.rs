//! Gauges that durable stores set when they are read.

use std::time::Instant;

use crate::{
    metrics::names,
    store::sync::{Mutex, lock},
};

/// Percent of a day's limit at and above which keys are counted.
pub(crate) const PERCENT: [(i64, &str); 3] = [(80, "80"), (95, "95"), (100, "100")];

/// Pause after counting keys, as a multiple of the time that it took: it uses at most a hundredth of a
/// core. Counting 100,000 keys in use a day takes half a second.
const PAUSE_FACTOR: u32 = 100;

/// Time at which the keys are counted again.
pub(crate) struct NextCount(Mutex<Option<Instant>>);

impl NextCount {
    pub(crate) fn new() -> Self {
        Self(Mutex::new(None))
    }

    pub(crate) fn is_due(&self) -> bool {
        lock(&self.0).is_none_or(|due| due <= Instant::now())
    }

    pub(crate) fn pause_after(&self, began: Instant) {
        *lock(&self.0) = Some(Instant::now() + PAUSE_FACTOR * began.elapsed());
    }
}

/// Sets the gauges of records that wait for a checkpoint, and of queued jobs.
pub(crate) fn set_waiting(records: usize, jobs: usize) {
    names::PENDING_RECORDS.gauge(&[]).set(records as f64);
    names::QUEUE.gauge(&[]).set(jobs as f64);
}

/// Number of keys, and of those at or above each of [`PERCENT`].
pub(crate) struct Keys {
    pub(crate) all: i64,
    pub(crate) near: [i64; PERCENT.len()],
}

impl Keys {
    pub(crate) fn set_gauges(&self) {
        names::KEYS.gauge(&[]).set(self.all as f64);
        for ((_, percent), keys) in PERCENT.into_iter().zip(self.near) {
            names::KEYS_NEAR_LIMIT.gauge(&[("percent", percent)]).set(keys as f64);
        }
    }
}
