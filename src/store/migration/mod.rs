//! Moving everything of a SQLite database to a PostgreSQL database, once.
//!
//! The rows are read from an exact copy, as [`sqlite::backup`](super::sqlite::backup) makes it, and written in
//! transactions of a few thousand rows, each with the position up to which rows have been moved. A call that ends
//! early, also by `kill -9`, is continued by the next one. Until the migration is complete, no store can be opened on
//! the PostgreSQL database. The hash of all rows in `sqlite_migration` says to which contents a position belongs.

mod source;
mod tables;

use std::{error::Error, fmt};

use tokio::runtime::Handle;

use self::{source::Source, tables::TABLES};
use super::{
    postgres::{
        OpenError, PostgresOptions,
        migration::{Position, Target},
    },
    sqlite::{
        BackupError, BackupErrorKind, Observer, OnProgress, ProgressStep, SqliteOptions,
        lock_for_migration, with_canonical_path,
    },
};

/// Number of rows that are moved in one transaction.
const BATCH: usize = 4_000;

/// Result of [`migrate`].
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Migrated {
    /// State in which the migration was found.
    pub found: MigrationState,
    /// What the tables hold, in the order in which they are moved.
    pub tables: Vec<MigratedTable>,
}

/// How much of a migration was done before a call of [`migrate`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MigrationState {
    /// The PostgreSQL database was empty.
    New,
    /// This number of rows had been moved.
    Begun(u64),
    /// Everything had been moved.
    Complete,
}

/// What a table holds, in both databases.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct MigratedTable {
    /// Name of the table.
    pub name: &'static str,
    /// Number of its rows.
    pub rows: u64,
    /// Sums of its most important columns.
    pub sums: Vec<(&'static str, i128)>,
}

/// Error for a migration that is not complete.
#[derive(Debug)]
#[non_exhaustive]
pub enum MigrationError {
    /// The SQLite database is in use, or cannot be read.
    Source(BackupError),
    /// The PostgreSQL database cannot be used, or has other rows.
    Target(OpenError),
    /// [`OnProgress`] has stopped the work. What has been moved stays, and another call continues.
    Stopped,
}

impl From<BackupError> for MigrationError {
    fn from(error: BackupError) -> Self {
        if error.kind() == BackupErrorKind::Stopped { Self::Stopped } else { Self::Source(error) }
    }
}

impl From<OpenError> for MigrationError {
    fn from(error: OpenError) -> Self {
        Self::Target(error)
    }
}

impl fmt::Display for MigrationError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Source(error) => error.fmt(f),
            Self::Target(error) => error.fmt(f),
            Self::Stopped => f.write_str("the migration was stopped"),
        }
    }
}

impl Error for MigrationError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Source(error) => error.source(),
            Self::Target(error) => error.source(),
            Self::Stopped => None,
        }
    }
}

/// Moves everything that the SQLite database holds, with what is only in its journal, to an empty PostgreSQL database,
/// and compares numbers and sums of all rows at the end. The SQLite database is not changed, and must not be in
/// use. Leased units are not counted, and unfinished requests are counted as failed, as after a `kill -9`.
///
/// A call for a migration that has begun continues it, and one for a complete migration changes nothing. A dry run
/// changes nothing either; then the SQLite database may be in use. It must be called within a Tokio
/// runtime.
///
/// # Errors
///
/// The SQLite database is in use, cannot be read, or has changed since the migration began; the PostgreSQL database cannot
/// be used or has other rows; or `on_progress` has stopped the work.
pub async fn migrate(
    from: SqliteOptions,
    to: PostgresOptions,
    dry_run: bool,
    on_progress: impl OnProgress + Send + 'static,
) -> Result<Migrated, MigrationError> {
    let runtime = Handle::current();
    let observer = Observer::new(on_progress);
    let work = move || run(&runtime, &from, to, dry_run, &observer);
    let ended = tokio::task::spawn_blocking(work).await;
    ended.map_err(|error| OpenError::because("the migration ended early", error))?
}

fn run(
    runtime: &Handle,
    from: &SqliteOptions,
    to: PostgresOptions,
    dry_run: bool,
    observer: &Observer,
) -> Result<Migrated, MigrationError> {
    let from = with_canonical_path(from)?;
    let (_lock, mut target) = if dry_run {
        (None, Target::open_read_only(runtime, to)?)
    } else {
        (Some(lock_for_migration(&from)?), Target::open(runtime, to)?)
    };
    let source = Source::open(&from, dry_run, observer)?;
    let position = target.position(source.hash())?;
    let found = match &position {
        _ if target.is_complete() => MigrationState::Complete,
        Some(position) => MigrationState::Begun(source.rows_before(position)),
        None => MigrationState::New,
    };
    if !dry_run && found != MigrationState::Complete {
        let start = match position {
            Some(position) => position,
            None => {
                let start = Position { table: TABLES[0].name.to_owned(), rows: 0 };
                target.begin(source.hash(), &from.path.display().to_string(), &start)?;
                start
            }
        };
        move_rows(&source, &target, start, observer)?;
        compare(&source, &target, observer)?;
        target.prepare(TABLES.iter().map(|table| table.name), &source.last_numbers()?)?;
        report(observer, ProgressStep::Publish, 0, None)?;
        target.complete()?;
    }
    Ok(Migrated { found, tables: source.summary() })
}

/// Reports the progress, and fails if the work is to stop.
fn report(
    observer: &Observer,
    step: ProgressStep,
    done: u64,
    total: Option<u64>,
) -> Result<(), MigrationError> {
    observer.report_part(step, done, total).then_some(()).ok_or(MigrationError::Stopped)
}

/// Moves all rows behind this position.
fn move_rows(
    source: &Source,
    target: &Target,
    mut position: Position,
    observer: &Observer,
) -> Result<(), MigrationError> {
    let mut done = source.rows_before(&position);
    let first = TABLES.iter().position(|table| table.name == position.table).unwrap_or(0);
    report(observer, ProgressStep::Move, done, Some(source.rows()))?;
    for table in &TABLES[first..] {
        let is_next = position.table != table.name;
        let first = if is_next { 0 } else { position.rows };
        let columns: Vec<&str> = table.columns.iter().map(|(name, _)| *name).collect();
        let append = |rows: &[_]| {
            position = target.append(&columns, rows, (&position, table.name))?;
            done += rows.len() as u64;
            report(observer, ProgressStep::Move, done, Some(source.rows()))
        };
        source.read(table, first, BATCH, append)?;
    }
    Ok(())
}

/// Compares numbers and sums of all rows.
fn compare(source: &Source, target: &Target, observer: &Observer) -> Result<(), MigrationError> {
    for (table, sums) in source.sums() {
        report(observer, ProgressStep::Compare, 0, None)?;
        let found = target.sums(table.name, &table.aggregates())?;
        let names =
            ["number of rows"].into_iter().chain(table.columns.iter().map(|(name, _)| *name));
        let pairs = names.zip(found.into_iter().zip(sums));
        for (name, (found, expected)) in pairs {
            if found != *expected {
                let how = format!("{name}: {found} there, {expected} in the file");
                return Err(target.differs(table.name, &how).into());
            }
        }
    }
    Ok(())
}
