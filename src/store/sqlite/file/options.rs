use std::{fmt, io, path::PathBuf, sync::Arc};

use crate::{
    clock::{Calendar, Clock, SystemClock},
    key::{DefaultLimits, Limit},
    store::{
        engine::{Durability, EngineOptions, engine_option_setters, this_boot},
        open_error::OpenError,
    },
};

/// Options for opening a [`SqliteStore`](crate::store::sqlite::SqliteStore).
#[derive(Clone)]
pub struct SqliteOptions {
    pub(crate) path: PathBuf,
    pub(crate) calendar: Calendar,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) durability: Durability,
    pub(crate) default_limits: DefaultLimits,
    pub(crate) retention_days: u32,
    pub(crate) boot: Option<String>,
    pub(crate) accept_loss: bool,
}

impl SqliteOptions {
    /// Creates options for the file at `path`, which is created if it does not exist. The defaults
    /// are the days of UTC, [`Durability::Process`], and 200 requests per day for rows without a
    /// limit.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self {
            path: path.into(),
            calendar: Calendar::utc(),
            clock: Arc::new(SystemClock),
            durability: Durability::default(),
            default_limits: DefaultLimits::daily(Limit::Units(200)),
            retention_days: 0,
            boot: this_boot(),
            accept_loss: false,
        }
    }

    engine_option_setters!();

    /// Sets the clock for reports, expiry and the audit trail.
    #[must_use]
    pub fn clock(self, clock: impl Clock) -> Self {
        Self { clock: Arc::new(clock), ..self }
    }

    /// Opens a file from which requests or changes are provably missing
    /// ([`OpenErrorKind::Loss`](crate::store::sqlite::OpenErrorKind::Loss)) anyway.
    /// [`SqliteStore::losses`](crate::store::sqlite::SqliteStore::losses) describes what is missing.
    #[must_use]
    pub fn accept_loss(self, accept_loss: bool) -> Self {
        Self { accept_loss, ..self }
    }

    pub(crate) fn engine(&self) -> EngineOptions {
        EngineOptions {
            calendar: self.calendar.clone(),
            clock: self.clock.clone(),
            durability: self.durability,
            retention_days: self.retention_days,
        }
    }

    /// Identifies the current boot of the machine, on systems that do not provide an identifier
    /// (Linux does). If it differs from the boot on which the file was last opened, there may have
    /// been a power failure.
    #[must_use]
    pub fn boot(self, boot: impl Into<String>) -> Self {
        Self { boot: Some(boot.into()), ..self }
    }
}

/// Creates options with the defaults for the file at this path.
impl<P: Into<PathBuf>> From<P> for SqliteOptions {
    fn from(path: P) -> Self {
        Self::new(path)
    }
}

impl fmt::Debug for SqliteOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SqliteOptions")
            .field("path", &self.path)
            .field("calendar", &self.calendar)
            .field("durability", &self.durability)
            .field("default_limits", &self.default_limits)
            .field("retention_days", &self.retention_days)
            .finish_non_exhaustive()
    }
}

/// Changes the kind of an error to [`OpenErrorKind::Temporary`] if its source is temporary. `disk_is_full` is
/// called if SQLite's error code does not say why a write failed.
pub(crate) fn classify(error: OpenError, disk_is_full: impl FnOnce() -> bool) -> OpenError {
    use rusqlite::ErrorCode::{
        CannotOpen, DatabaseBusy, DatabaseLocked, DiskFull, SystemIoFailure,
    };
    error.temporary_if(|source| {
        if let Some(error) = source.downcast_ref::<rusqlite::Error>() {
            match error.sqlite_error_code() {
                Some(DiskFull | DatabaseBusy | DatabaseLocked) => true,
                Some(CannotOpen | SystemIoFailure) => disk_is_full(),
                _ => false,
            }
        } else {
            source.downcast_ref::<io::Error>().is_some_and(is_full)
        }
    })
}

/// Whether the disk or the user's disk quota is full.
pub(crate) fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

#[cfg(test)]
mod tests {
    use rusqlite::ffi;

    use super::*;
    use crate::store::open_error::OpenErrorKind;

    fn sqlite(code: i32) -> OpenError {
        OpenError::because("it", rusqlite::Error::SqliteFailure(ffi::Error::new(code), None))
    }

    #[test]
    fn only_a_full_disk_and_a_held_lock_are_temporary() {
        let is_temporary =
            |error: OpenError, full| classify(error, || full).kind() == OpenErrorKind::Temporary;
        for code in [ffi::SQLITE_FULL, ffi::SQLITE_BUSY, ffi::SQLITE_LOCKED] {
            assert!(is_temporary(sqlite(code), false));
        }
        // These codes also stand for EDQUOT and for a file that does not fit on the disk.
        for code in [ffi::SQLITE_IOERR_WRITE, ffi::SQLITE_IOERR_SHMSIZE, ffi::SQLITE_CANTOPEN] {
            assert!(is_temporary(sqlite(code), true) && !is_temporary(sqlite(code), false));
        }
        for code in [ffi::SQLITE_CORRUPT, ffi::SQLITE_NOTADB, ffi::SQLITE_READONLY] {
            assert!(!is_temporary(sqlite(code), true));
        }
        let io = |errno| OpenError::because("it", io::Error::from_raw_os_error(errno));
        #[cfg(target_os = "linux")]
        for (errno, temporary) in [(28, true), (122, true), (2, false), (13, false), (5, false)] {
            assert_eq!(is_temporary(io(errno), true), temporary, "errno {errno}");
        }
        assert!(!is_temporary(OpenError::new("of another program"), true));
    }
}
