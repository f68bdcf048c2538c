//! Where keys and counts are kept.

use std::{
    fmt,
    path::{Path, PathBuf},
};

use clap::{ArgAction, Args};
use tower_quota::{
    clock::Calendar,
    key::{KeyLimit, KeyLimits, Limit},
    store::{postgres::PostgresOptions, sqlite::SqliteOptions},
};

use super::{
    BadSetting, SecretFile,
    secret_file::secret_file,
    shown::without_password,
    values::{self, shown},
};
use crate::{
    file_system::{self, FileSystem},
    store::StoreOptions,
};

/// The database and what its tables need.
#[derive(Args, Clone)]
pub(crate) struct DatabaseSettings {
    /// SQLite file, as a path or sqlite: URL, or a postgres:// URL; also SQLITE_PATH
    #[arg(long = "database-url", env = "DATABASE_URL", value_name = "URL", default_value = "quota.db", value_parser = values::database)]
    pub(crate) database: Database,
    /// Password for a postgres:// URL that has none; also PGPASSWORD
    #[arg(long = "database-password", env = "DATABASE_PASSWORD", value_name = "PASSWORD", value_parser = values::password, hide_env_values = true)]
    pub(crate) password: Option<String>,
    /// File with DATABASE_PASSWORD
    #[arg(long = "database-password-file", env = "DATABASE_PASSWORD_FILE", value_name = "PATH", value_parser = secret_file(values::password))]
    pub(crate) password_file: Option<SecretFile<String>>,
    /// Beginning of the names of the journal's files, on a local disk; with PostgreSQL only
    #[arg(long = "journal-path", env = "JOURNAL_PATH", value_name = "PATH", default_value = "quota", value_parser = shown(values::journal))]
    pub(crate) journal_path: PathBuf,
    /// Whether the journal may be on a file system that is lost with the machine or container: false or true
    #[arg(long = "journal-accept-volatile", env = "JOURNAL_ACCEPT_VOLATILE", value_name = "WHETHER", default_value = "false", value_parser = shown(values::true_or_false), action = ArgAction::Set)]
    pub(crate) journal_accept_volatile: bool,
    /// Daily limit of keys that are issued without daily_limit; 0 is unlimited
    #[arg(long = "daily-req-limit", env = "DAILY_REQ_LIMIT", value_name = "NUMBER", default_value = "200", value_parser = shown(values::request_limit))]
    pub(crate) default_daily_limit: Limit,
    /// Monthly limit of keys that are issued without monthly_limit; 0 is unlimited
    #[arg(long = "monthly-req-limit", env = "MONTHLY_REQ_LIMIT", value_name = "NUMBER", default_value = "0", value_parser = shown(values::request_limit))]
    pub(crate) default_monthly_limit: Limit,
    /// Requests per minute of keys that are issued without minute_limit; 0 is unlimited
    #[arg(long = "minute-req-limit", env = "MINUTE_REQ_LIMIT", value_name = "NUMBER", default_value = "0", value_parser = shown(values::request_limit))]
    pub(crate) default_minute_limit: Limit,
    /// Requests in flight of keys that are issued without max_in_flight; 0 is unlimited
    #[arg(long = "max-in-flight-per-key", env = "MAX_IN_FLIGHT_PER_KEY", value_name = "NUMBER", default_value = "0", value_parser = shown(values::request_limit))]
    pub(crate) default_max_in_flight: Limit,
    /// IANA time zone of the quota's days
    #[arg(long = "quota-timezone", env = "QUOTA_TIMEZONE", value_name = "ZONE", default_value = "UTC", value_parser = shown(values::time_zone))]
    pub(crate) calendar: Calendar,
}

/// The database of `DATABASE_URL`. Shown without user and password.
#[derive(Clone)]
pub(crate) enum Database {
    /// The file of a SQLite database.
    Sqlite(PathBuf),
    /// The URL of a PostgreSQL database.
    Postgres(String),
}

impl DatabaseSettings {
    /// Returns the options with which the gateway and its commands open the database.
    ///
    /// # Errors
    ///
    /// Fails if the journal of a PostgreSQL database has no directory, or one that may be lost.
    pub(crate) fn options(&self) -> Result<StoreOptions, BadSetting> {
        match &self.database {
            Database::Sqlite(path) => Ok(StoreOptions::Sqlite(self.sqlite_options(path))),
            Database::Postgres(url) => {
                self.check_journal()?;
                Ok(StoreOptions::Postgres(Box::new(self.postgres_options(url)?)))
            }
        }
    }

    /// Returns the limits, besides the daily one, of keys that are issued without them.
    pub(crate) fn default_limits(&self) -> KeyLimits {
        KeyLimits::default()
            .with(KeyLimit::Monthly, self.default_monthly_limit)
            .with(KeyLimit::Minute, self.default_minute_limit)
            .with(KeyLimit::InFlight, self.default_max_in_flight)
    }

    /// Returns the options for this SQLite file.
    pub(crate) fn sqlite_options(&self, path: &Path) -> SqliteOptions {
        SqliteOptions::new(path)
            .calendar(self.calendar.clone())
            .default_daily_limit(self.default_daily_limit)
            .default_limits(self.default_limits())
    }

    /// Returns the options for the PostgreSQL database at this URL.
    ///
    /// # Errors
    ///
    /// Fails if it is not such a URL.
    pub(crate) fn postgres_options(&self, url: &str) -> Result<PostgresOptions, BadSetting> {
        let options = PostgresOptions::new(url, &self.journal_path)
            .map_err(|error| BadSetting::new("DATABASE_URL", error))?
            .calendar(self.calendar.clone())
            .default_daily_limit(self.default_daily_limit)
            .default_limits(self.default_limits());
        Ok(match &self.password {
            Some(password) => options.password(password),
            None => options,
        })
    }

    /// Returns the directory of the journal of a PostgreSQL database.
    pub(crate) fn journal_directory(&self) -> &Path {
        let parent = self.journal_path.parent().filter(|parent| *parent != Path::new(""));
        parent.unwrap_or(Path::new("."))
    }

    /// Checks that the directory of the journal exists, and outlives the process.
    pub(crate) fn check_journal(&self) -> Result<(), BadSetting> {
        let directory = self.journal_directory();
        let failed = |problem: &dyn fmt::Display| {
            Err(BadSetting::new("JOURNAL_PATH", format!("{}{problem}", directory.display())))
        };
        if let Err(error) = directory.metadata() {
            return failed(&format_args!(" cannot be used: {error}; create the directory"));
        }
        if self.journal_accept_volatile {
            return Ok(());
        }
        let problem = match file_system::of(directory) {
            FileSystem::Memory => "is in memory (tmpfs)",
            FileSystem::Overlay => "is in a container's own layer (overlay)",
            FileSystem::Network(_) | FileSystem::Local => return Ok(()),
        };
        failed(&format_args!(
            " {problem}, and the latest counts are lost with it; set a path on a disk or a volume, or \
             JOURNAL_ACCEPT_VOLATILE=true"
        ))
    }
}

impl fmt::Display for Database {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sqlite(path) => path.display().fmt(f),
            Self::Postgres(url) => f.write_str(&without_password(url)),
        }
    }
}
