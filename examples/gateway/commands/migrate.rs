//! `gateway migrate`.

use std::{
    fmt::Write,
    io::{self, Write as _},
    path::PathBuf,
    process::ExitCode,
};

use clap::Args;
use tower::BoxError;
use tower_quota::store::migration::{
    self, Migrated, MigratedTable, MigrationError, MigrationState,
};

use super::{backup, progress::Progress};
use crate::{
    logging::{BackgroundWriter, Log},
    settings::{BadSetting, Database, Settings, database_url},
};

/// Move everything of a SQLite database to an empty PostgreSQL database, and end
///
/// Stop the gateway on the file first, except for a dry run. The file and its journal are only read. Keys, counts of
/// every day, requests, claims and the audit trail are written in steps; a migration that was stopped or killed goes
/// on where it was when it is run again, and no gateway starts on the database before it is complete.
/// The password of the database is DATABASE_PASSWORD if the URL has none.
#[derive(Args, Clone)]
#[command(after_help = "\
Exit code: 0; 2 if there was an error; 130 if Ctrl-C stopped it. Then run it again, and it goes on.

Examples:
  gateway migrate quota.db postgres://gateway@db.example.com/quota --dry-run
  gateway migrate quota.db postgres://gateway@db.example.com/quota")]
pub(crate) struct Migrate {
    /// The SQLite database, which is only read
    pub(crate) file: PathBuf,
    /// The empty PostgreSQL database [default: DATABASE_URL]
    #[arg(value_name = "URL", value_parser = database_url)]
    pub(crate) url: Option<Database>,
    /// Read everything, print what would be moved, and change nothing
    #[arg(long)]
    pub(crate) dry_run: bool,
}

/// Moves the database.
pub(crate) async fn run(
    settings: Settings,
    command: &Migrate,
    stderr: &BackgroundWriter,
) -> Result<ExitCode, BoxError> {
    let Settings { database, log, .. } = settings;
    Log::start(log, stderr.clone());
    let Migrate { file, url: target, dry_run } = command;
    let target = target.as_ref().unwrap_or(&database.database);
    let Database::Postgres(url) = target else {
        let problem = "is not the URL of a PostgreSQL database, into which to migrate; name it behind the file";
        return Err(BadSetting::new("DATABASE_URL", format!("{target} {problem}")).into());
    };
    let to = database.postgres_options(url)?;
    let from = database.sqlite_options(file);
    let progress = Progress::start(stderr)?;
    let migrated = migration::migrate(from, to, *dry_run, progress.clone()).await;
    let migrated = migrated.map_err(|error| failed(error, &progress, *dry_run))?;
    progress.complete(0);
    let report = format!("{} → {target}\n{}", file.display(), shown(&migrated, *dry_run));
    // The work is done even if standard output is closed.
    let _ = io::stdout().write_all(report.as_bytes());
    Ok(ExitCode::SUCCESS)
}

/// Converts the error of a migration, with advice.
fn failed(error: MigrationError, progress: &Progress, dry_run: bool) -> BoxError {
    progress.finish();
    match error {
        MigrationError::Source(error) => backup::failed(error, progress, "nothing was moved"),
        MigrationError::Target(error) => backup::explained(&error).into(),
        _ if dry_run => progress.stopped("nothing was changed").into(),
        _ => progress.stopped("the same command goes on with the rest").into(),
    }
}

/// Returns what is reported: each table with its rows and sums, and the outcome.
fn shown(migrated: &Migrated, dry_run: bool) -> String {
    let mut report = String::new();
    let rows: u64 = migrated.tables.iter().map(|table| table.rows).sum();
    for MigratedTable { name, rows, sums, .. } in &migrated.tables {
        let _ = write!(report, "{name:<14}{rows:>10} rows");
        for (at, (column, sum)) in sums.iter().enumerate() {
            let separator = if at == 0 { "  " } else { ", " };
            let _ = write!(report, "{separator}{column} {sum}");
        }
        report.push('\n');
    }
    report += &match (migrated.found, dry_run) {
        (MigrationState::Complete, _) => {
            format!("complete since an earlier run: {rows} rows, nothing was changed")
        }
        (MigrationState::New, true) => {
            format!("{rows} rows to move; a dry run, nothing was changed")
        }
        (MigrationState::Begun(moved), true) => {
            let left = rows.saturating_sub(moved);
            format!("{left} of {rows} rows left to move; a dry run, nothing was changed")
        }
        (MigrationState::New, false) => {
            format!("complete: {rows} rows; all numbers and sums are equal")
        }
        (MigrationState::Begun(moved), false) => format!(
            "complete: {rows} rows, {moved} of them by an earlier run; all numbers and sums are equal"
        ),
    };
    report + "\n"
}
