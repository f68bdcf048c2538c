//! Detection of a ledger that cannot be read any more.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, Instant},
};

use crate::error::StoreError;

/// Time for which nothing is admitted after a key or a count could not be read.
const DAMAGE_TIMEOUT: Duration = Duration::from_secs(10);

/// Detects damage of the ledger: after a corrupt read, nothing is admitted for a while, as the data of
/// other keys may be wrong as well.
pub(crate) struct Damage {
    created: Instant,
    /// End of the rejections, in milliseconds since `created`; 0 if no damage is known.
    until: AtomicU64,
}

impl Damage {
    pub(crate) fn new() -> Self {
        Self { created: Instant::now(), until: AtomicU64::new(0) }
    }

    /// Notes that a key or a count could not be read because the ledger is damaged.
    pub(crate) fn note(&self, error: &StoreError) {
        crate::metrics::names::STORE_FAILURES.counter(&[("part", "look_up")]).increment(1);
        let until = self.now() + DAMAGE_TIMEOUT.as_millis() as u64;
        if self.until.swap(until, Ordering::Relaxed) == 0 {
            tracing::error!(source = ?error, "read failed, the file is damaged: rejecting requests");
        }
    }

    /// Checks whether requests may be admitted.
    ///
    /// # Errors
    ///
    /// The ledger was found damaged recently.
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
        u64::try_from(self.created.elapsed().as_millis()).unwrap_or(u64::MAX / 2)
    }
}
