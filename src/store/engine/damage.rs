//! A ledger that cannot be read any more.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, Instant},
};

use crate::error::StoreError;

/// The time for which nothing is admitted once a key or a count could not be read.
const PAUSE: Duration = Duration::from_secs(10);

/// Whether the ledger was found damaged lately. What it holds of other keys may be wrong as well.
pub(crate) struct Damage {
    begun: Instant,
    /// In milliseconds since `begun`; 0 if there is none.
    until: AtomicU64,
}

impl Damage {
    pub(crate) fn new() -> Self {
        Self { begun: Instant::now(), until: AtomicU64::new(0) }
    }

    /// A key or a count could not be read, as the ledger is damaged.
    pub(crate) fn note(&self, error: &StoreError) {
        crate::metrics::STORE_FAILURES.counter(&[("part", "look_up")]).increment(1);
        let until = self.now() + PAUSE.as_millis() as u64;
        if self.until.swap(until, Ordering::Relaxed) == 0 {
            tracing::error!(source = ?error, "read failed: the file is damaged, rejecting requests");
        }
    }

    /// # Errors
    ///
    /// The ledger was found damaged lately.
    pub(crate) fn check(&self) -> Result<(), StoreError> {
        let until = self.until.load(Ordering::Relaxed);
        if until == 0 {
            return Ok(());
        }
        if self.now() < until {
            return Err(StoreError::unavailable("the file is damaged"));
        }
        self.until.store(0, Ordering::Relaxed);
        Ok(())
    }

    fn now(&self) -> u64 {
        u64::try_from(self.begun.elapsed().as_millis()).unwrap_or(u64::MAX / 2)
    }
}
