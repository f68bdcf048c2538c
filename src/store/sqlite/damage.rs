//! A file that cannot be read any more.

use std::{
    error::Error,
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, Instant},
};

use rusqlite::ErrorCode;

use crate::error::StoreError;

/// For so long nothing is admitted once a key or a count could not be read.
const PAUSE: Duration = Duration::from_secs(10);

/// Whether the file was found damaged lately. What it holds of other keys may be wrong as well.
pub(super) struct Damage {
    begun: Instant,
    /// In milliseconds since `begun`; 0 if there is none.
    until: AtomicU64,
}

impl Damage {
    pub(super) fn new() -> Self {
        Self { begun: Instant::now(), until: AtomicU64::new(0) }
    }

    /// Looks whether a look-up has failed for damage.
    pub(super) fn note(&self, error: &StoreError) {
        if !tells_of_damage(error) {
            return;
        }
        crate::metrics::STORE_FAILURES.counter(&[("part", "look_up")]).increment(1);
        let until = self.now() + PAUSE.as_millis() as u64;
        if self.until.swap(until, Ordering::Relaxed) == 0 {
            tracing::error!(source = ?error, "the file is damaged: nothing is admitted");
        }
    }

    /// # Errors
    ///
    /// The file was found damaged lately.
    pub(super) fn check(&self) -> Result<(), StoreError> {
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

fn tells_of_damage(error: &StoreError) -> bool {
    use ErrorCode::{DatabaseCorrupt, NotADatabase, SystemIoFailure};
    let source = error.source().and_then(|source| source.downcast_ref::<rusqlite::Error>());
    let code = source.and_then(rusqlite::Error::sqlite_error_code);
    code.is_some_and(|code| [DatabaseCorrupt, NotADatabase, SystemIoFailure].contains(&code))
}
