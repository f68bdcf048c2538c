use std::{error::Error, fmt, io, path::PathBuf, sync::Arc, time::Duration};

use super::start;
use crate::{
    clock::{Calendar, Clock, SystemClock},
    key::DailyLimit,
};

/// What a unit survives once its request is answered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Durability {
    /// Exact after the end of the process, `kill -9` included; never over the limit after a loss of
    /// power, when at most 512 units a key (and a sixteenth of what was left of its day) count as
    /// used that were not.
    #[default]
    Process,
    /// Exact after both: every unit is synced before its answer.
    Power,
}

/// How a [`SqliteStore`](super::SqliteStore) is opened.
#[derive(Clone)]
pub struct SqliteOptions {
    pub(super) path: PathBuf,
    pub(super) calendar: Calendar,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) durability: Durability,
    pub(super) default_daily_limit: DailyLimit,
    pub(super) retention_days: u32,
    pub(super) boot: Option<String>,
    pub(super) accept_loss: bool,
}

impl SqliteOptions {
    /// The file at `path`, made if it does not exist; days of UTC, [`Durability::Process`], and 200
    /// requests a day for rows typed in without a limit.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self {
            path: path.into(),
            calendar: Calendar::utc(),
            clock: Arc::new(SystemClock),
            durability: Durability::default(),
            default_daily_limit: DailyLimit::new(200).unwrap_or(DailyLimit::UNLIMITED),
            retention_days: 0,
            boot: start::this_boot(),
            accept_loss: false,
        }
    }

    /// When the day turns.
    #[must_use]
    pub fn calendar(self, calendar: Calendar) -> Self {
        Self { calendar, ..self }
    }

    /// Where reports, expiry and audit take the time from.
    #[must_use]
    pub fn clock(self, clock: impl Clock) -> Self {
        Self { clock: Arc::new(clock), ..self }
    }

    /// What a unit survives.
    #[must_use]
    pub fn durability(self, durability: Durability) -> Self {
        Self { durability, ..self }
    }

    /// The limit of rows typed in without one.
    #[must_use]
    pub fn default_daily_limit(self, default_daily_limit: DailyLimit) -> Self {
        Self { default_daily_limit, ..self }
    }

    /// For how many days single requests are kept beside the daily sums, which are kept for ever. 0,
    /// the default, keeps none.
    #[must_use]
    pub fn retention_days(self, retention_days: u32) -> Self {
        Self { retention_days, ..self }
    }

    /// Opens a file of which answered requests or changes are provably missing
    /// ([`OpenErrorKind::Loss`]) with what is left. [`SqliteStore::losses`](super::SqliteStore::losses)
    /// tells what that was.
    #[must_use]
    pub fn accept_loss(self, accept_loss: bool) -> Self {
        Self { accept_loss, ..self }
    }

    pub(super) fn retention(&self) -> Option<Duration> {
        const DAY: u64 = 24 * 60 * 60;
        let days = u64::from(self.retention_days);
        (days > 0).then(|| Duration::from_secs(days * DAY))
    }

    /// Names the present boot of the machine, where the system does not tell (as Linux does): if it
    /// is another than the file was last opened on, power may have been lost since.
    #[must_use]
    pub fn boot(self, boot: impl Into<String>) -> Self {
        Self { boot: Some(boot.into()), ..self }
    }
}

impl fmt::Debug for SqliteOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SqliteOptions")
            .field("path", &self.path)
            .field("calendar", &self.calendar)
            .field("durability", &self.durability)
            .field("default_daily_limit", &self.default_daily_limit)
            .field("retention_days", &self.retention_days)
            .finish_non_exhaustive()
    }
}

/// The file could not be opened.
#[derive(Debug)]
pub struct OpenError {
    kind: OpenErrorKind,
    message: String,
    source: Option<Box<dyn Error + Send + Sync>>,
}

/// What kind of failure an [`OpenError`] is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum OpenErrorKind {
    /// Answered requests or changes are provably missing: a file was damaged, or replaced by an older
    /// one. Put the right one back, or go on without them by
    /// [`SqliteOptions::accept_loss`].
    Loss,
    /// The disk is full, or another process holds SQLite's write lock: opening may succeed later with
    /// nothing changed by an operator.
    Temporary,
    /// Anything else.
    Other,
}

impl OpenError {
    pub(super) fn new(message: impl Into<String>) -> Self {
        Self { kind: OpenErrorKind::Other, message: message.into(), source: None }
    }

    pub(super) fn loss(message: String) -> Self {
        Self { kind: OpenErrorKind::Loss, ..Self::new(message) }
    }

    /// What kind of failure it is.
    pub fn kind(&self) -> OpenErrorKind {
        self.kind
    }

    pub(super) fn because(
        message: impl Into<String>,
        source: impl Into<Box<dyn Error + Send + Sync>>,
    ) -> Self {
        Self { source: Some(source.into()), ..Self::new(message) }
    }

    pub(super) fn sqlite(source: rusqlite::Error) -> Self {
        Self::because("SQLite could not be set up", source)
    }

    /// The same, as [`OpenErrorKind::Temporary`] if its source is so. `disk_is_full` is asked where
    /// SQLite does not say why.
    pub(super) fn judged(self, disk_is_full: impl FnOnce() -> bool) -> Self {
        use rusqlite::ErrorCode::{
            CannotOpen, DatabaseBusy, DatabaseLocked, DiskFull, SystemIoFailure,
        };
        let Some(source) = &self.source else { return self };
        let is_temporary = if let Some(error) = source.downcast_ref::<rusqlite::Error>() {
            match error.sqlite_error_code() {
                Some(DiskFull | DatabaseBusy | DatabaseLocked) => true,
                Some(CannotOpen | SystemIoFailure) => disk_is_full(),
                _ => false,
            }
        } else {
            source.downcast_ref::<io::Error>().is_some_and(is_full)
        };
        if is_temporary { Self { kind: OpenErrorKind::Temporary, ..self } } else { self }
    }

    pub(super) fn thread(source: io::Error) -> Self {
        Self::because("the writer thread could not be started", source)
    }
}

/// Whether the disk is full, or the quota of its user.
pub(super) fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

impl fmt::Display for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        match &self.source {
            Some(source) => write!(f, ": {source}"),
            None => Ok(()),
        }
    }
}

impl Error for OpenError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.source.as_ref().map(|source| &**source as &(dyn Error + 'static))
    }
}

#[cfg(test)]
mod tests {
    use rusqlite::ffi;

    use super::*;

    fn sqlite(code: i32) -> OpenError {
        OpenError::because("it", rusqlite::Error::SqliteFailure(ffi::Error::new(code), None))
    }

    #[test]
    fn only_a_full_disk_and_a_held_lock_are_temporary() {
        let is_temporary =
            |error: OpenError, full: bool| error.judged(|| full).kind() == OpenErrorKind::Temporary;
        for code in [ffi::SQLITE_FULL, ffi::SQLITE_BUSY, ffi::SQLITE_LOCKED] {
            assert!(is_temporary(sqlite(code), false));
        }
        // SQLite tells neither EDQUOT nor a file that it has no room to make from other failures.
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
