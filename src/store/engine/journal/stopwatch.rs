//! How long syncs take, and how long the present one has taken.

use std::{
    io,
    time::{Duration, Instant},
};

use super::Segment;
use super::meter::Meter;
use crate::store::engine::sync::{AtomicU64, Ordering};

pub(super) struct Stopwatch {
    begun: Instant,
    /// When the sync began that is at work, in milliseconds since `begun`, and 1; or 0.
    sync_began: AtomicU64,
    meter: Meter,
}

impl Stopwatch {
    pub(super) fn new() -> Self {
        Self { begun: Instant::now(), sync_began: AtomicU64::new(0), meter: Meter::new() }
    }

    pub(super) fn sync(&self, segment: &dyn Segment) -> io::Result<()> {
        let began = self.begun.elapsed();
        let millis = u64::try_from(began.as_millis()).unwrap_or(u64::MAX - 1);
        self.sync_began.store(millis + 1, Ordering::Release);
        let synced = segment.sync();
        self.sync_began.store(0, Ordering::Release);
        self.meter.duration.record(self.begun.elapsed().saturating_sub(began));
        synced
    }

    /// How long the sync has been at work that is.
    pub(super) fn age(&self) -> Option<Duration> {
        let began = self.sync_began.load(Ordering::Acquire).checked_sub(1)?;
        Some(self.begun.elapsed().saturating_sub(Duration::from_millis(began)))
    }

    /// The journal has failed.
    pub(super) fn count_failure(&self) {
        self.meter.failures.increment(1);
    }
}
