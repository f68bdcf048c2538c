//! `gateway backup` and `gateway restore`.

use std::{
    io::{self, Write},
    path::{Path, PathBuf},
    process::ExitCode,
};

use clap::Args;
use tower::BoxError;
use tower_quota::store::sqlite::{
    self, BackupError, BackupErrorKind, IfExists, OpenError, OpenErrorKind,
};

use super::{
    client::sources,
    progress::{Progress, size},
};
use crate::{
    logging::{BackgroundWriter, Log},
    settings::{BadSetting, Database, DatabaseSettings, Settings},
    store::StoreOptions,
};

/// Write an exact copy of the SQLite database of DATABASE_URL into a file, and end
///
/// The gateway may be running: the copy contains every request and change that was complete before. It is
/// checked and needs no journal next to it. DATABASE_URL must be the same as for the gateway.
/// A PostgreSQL database is copied with pg_dump.
#[derive(Args, Clone)]
#[command(after_help = "\
Exit code: 0; 2 if there was an error; 130 if Ctrl-C stopped it. Then there is no copy.

Example:
  gateway backup /backups/quota-$(date +%F).db")]
pub(crate) struct Backup {
    /// The new file
    pub(crate) file: PathBuf,
    /// Replace the file if it exists
    #[arg(long)]
    pub(crate) replace: bool,
}

/// Replace the SQLite database of DATABASE_URL by a backup, and end
///
/// Fails while a gateway is running on it. The existing database, its WAL and its journal are renamed and
/// the new names printed. A PostgreSQL database is restored with pg_restore; --accept-loss is for it, too.
#[derive(Args, Clone)]
#[command(after_help = "\
Exit code: 0; 2 if there was an error; 130 if Ctrl-C stopped it. Then nothing has changed.

Examples:
  gateway restore /backups/quota-2026-11-28.db
  gateway restore --accept-loss")]
pub(crate) struct Restore {
    /// The backup, which is only read
    #[arg(required_unless_present = "accept_loss")]
    pub(crate) file: Option<PathBuf>,
    /// Keep what is left of a damaged database with which no gateway starts, and print what is lost
    #[arg(long, conflicts_with = "file")]
    pub(crate) accept_loss: bool,
}

/// Writes a copy of the database.
pub(crate) fn back_up(
    settings: Settings,
    command: &Backup,
    stderr: &BackgroundWriter,
) -> Result<ExitCode, BoxError> {
    let Settings { database, log, .. } = settings;
    Log::start(log, stderr.clone());
    let path = sqlite_file(
        &database,
        "copy a PostgreSQL database with pg_dump, after the gateway has ended, as it then contains \
         every request",
    )?;
    let options = database.sqlite_options(path);
    let if_exists = if command.replace { IfExists::Replace } else { IfExists::Fail };
    let file = &command.file;
    let progress = Progress::start(stderr)?;
    let state = if file.exists() { "is unchanged" } else { "was not written" };
    let state = format!("{} {state}", file.display());
    sqlite::backup(&options, file, if_exists, progress.clone())
        .map_err(|error| failed(error, &progress, &state))?;
    progress.complete(0);
    let length = size(file.metadata()?.len());
    print(&format!("{} → {}: {length}, checked\n", path.display(), file.display()));
    Ok(ExitCode::SUCCESS)
}

/// Replaces the database by a copy, or keeps what is left of it.
pub(crate) async fn restore(
    settings: Settings,
    command: &Restore,
    stderr: &BackgroundWriter,
) -> Result<ExitCode, BoxError> {
    let Settings { database, log, .. } = settings;
    Log::start(log, stderr.clone());
    let report = match &command.file {
        Some(file) => {
            let path = sqlite_file(
                &database,
                "restore a PostgreSQL database with pg_restore while no gateway is running; if it is \
                 older than the journal, `gateway restore --accept-loss` goes on with it",
            )?;
            let options = database.sqlite_options(path);
            let progress = Progress::start(stderr)?;
            let state = match path.exists() {
                true => "is unchanged",
                false => "was not written",
            };
            let state = format!("{} {state}", path.display());
            let restored = sqlite::restore(&options, file, progress.clone())
                .map_err(|error| failed(error, &progress, &state))?;
            progress.complete(0);
            let mut report = format!("{} → {}\n", file.display(), path.display());
            if restored.lacks_journal {
                report += "note: this was a plain copy of a database, not a backup; what was only in \
                           its journal is missing\n";
            }
            for kept in &restored.kept {
                report += &format!("kept: {}\n", kept.display());
            }
            report
        }
        None => {
            if let Database::Sqlite(path) = &database.database {
                path.metadata().map_err(|error| {
                    let problem = format!("{} cannot be read: {error}", path.display());
                    BadSetting::new("DATABASE_URL", problem)
                })?;
            }
            let options = database.options()?.accept_loss();
            let opened = options.clone().open().await;
            let store = opened.map_err(|error| cannot_open(error, &options))?;
            store.close().await?;
            let losses = store.losses().iter().map(|loss| format!("lost: {loss}\n"));
            let report: String = losses.collect();
            if report.is_empty() { "nothing is lost\n".to_owned() } else { report }
        }
    };
    print(&report);
    Ok(ExitCode::SUCCESS)
}

/// Returns the file of a SQLite database.
///
/// # Errors
///
/// Fails with this advice if the database is in PostgreSQL.
fn sqlite_file<'a>(settings: &'a DatabaseSettings, advice: &str) -> Result<&'a Path, BadSetting> {
    match &settings.database {
        Database::Sqlite(path) => Ok(path),
        Database::Postgres(_) => Err(BadSetting::new("DATABASE_URL", advice)),
    }
}

/// Converts the error of opening the database, with advice.
pub(crate) fn cannot_open(error: OpenError, options: &StoreOptions) -> BadSetting {
    let text = explained(&error);
    let problem = match (options, error.kind()) {
        (StoreOptions::Sqlite(_), OpenErrorKind::Loss) => with_advice(&text),
        (StoreOptions::Postgres(_), OpenErrorKind::Loss) => format!(
            "{text}; put the right database or journal back, or keep what is left by `gateway restore \
             --accept-loss`"
        ),
        _ => text,
    };
    BadSetting::new("DATABASE_URL", problem)
}

/// Returns the message of an error with its innermost reason, and without names of PostgreSQL's users.
pub(crate) fn explained(error: &OpenError) -> String {
    let text = error.to_string();
    let reason = sources(error).last().map(ToString::to_string).unwrap_or_default();
    without_user(&if text.contains(&reason) { text } else { format!("{text}: {reason}") })
}

/// Masks the names of users in a message of PostgreSQL.
pub(super) fn without_user(message: &str) -> String {
    let mut masked = String::new();
    let mut rest = message;
    while let Some((at, quote)) =
        rest.match_indices("user \"").chain(rest.match_indices("role \"")).min()
    {
        let (before, after) = rest.split_at(at + quote.len());
        let Some((_, end)) = after.split_once('"') else { break };
        masked += &format!("{before}…\"");
        rest = end;
    }
    masked + rest
}

/// Converts the error of a copy. `state` says how a stopped copy leaves things.
pub(crate) fn failed(error: BackupError, progress: &Progress, state: &str) -> BoxError {
    progress.finish();
    match error.kind() {
        BackupErrorKind::Stopped => progress.stopped(state).into(),
        BackupErrorKind::Exists => format!("{error}; --replace replaces it").into(),
        BackupErrorKind::Loss => with_advice(&error.to_string()).into(),
        _ => error.into(),
    }
}

fn with_advice(loss: &str) -> String {
    format!(
        "{loss}; put the right file back, or a backup by `gateway restore FILE`, or keep what is left \
         by `gateway restore --accept-loss`"
    )
}

/// Ignores errors, as the work is done even if standard output is closed.
fn print(report: &str) {
    let _ = io::stdout().write_all(report.as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_of_postgresql_names_no_user() {
        for (message, shown) in [
            (
                r#"FATAL: password authentication failed for user "alice" (x)"#,
                r#"FATAL: password authentication failed for user "…" (x)"#,
            ),
            (r#"role "alice" does not exist, user "bob""#, r#"role "…" does not exist, user "…""#),
            (r#"user "alice"#, r#"user "alice"#),
            ("no user", "no user"),
        ] {
            assert_eq!(without_user(message), shown);
        }
    }
}
