use std::{error::Error, fmt, path::PathBuf, sync::Arc};

use crate::{
    clock::{Calendar, Clock, SystemClock},
    key::DailyLimit,
};

/// What a unit survives once its request is answered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Durability {
    /// Exact after the end of the process, `kill -9` included; never over the limit after a loss of
    /// power.
    #[default]
    Process,
    /// Exact after both. At present [`Process`](Self::Process) keeps this promise too: each commit
    /// is fsynced before the answer.
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
}

impl fmt::Debug for SqliteOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SqliteOptions")
            .field("path", &self.path)
            .field("calendar", &self.calendar)
            .field("durability", &self.durability)
            .field("default_daily_limit", &self.default_daily_limit)
            .finish_non_exhaustive()
    }
}

/// The file could not be opened.
#[derive(Debug)]
pub struct OpenError {
    message: String,
    source: Option<Box<dyn Error + Send + Sync>>,
}

impl OpenError {
    pub(super) fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), source: None }
    }

    pub(super) fn because(
        message: impl Into<String>,
        source: impl Into<Box<dyn Error + Send + Sync>>,
    ) -> Self {
        Self { message: message.into(), source: Some(source.into()) }
    }

    pub(super) fn thread(source: std::io::Error) -> Self {
        Self::because("the writer thread could not be started", source)
    }
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
