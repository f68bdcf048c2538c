//! `gateway backup` and `gateway restore`.

use std::{
    io::{self, Write},
    path::PathBuf,
    process::ExitCode,
};

use clap::Args;
use tower::BoxError;
use tower_quota::store::sqlite::{
    self, BackupError, BackupErrorKind, IfExists, OpenError, OpenErrorKind, SqliteStore,
};

use super::progress::{Progress, size};
use crate::{
    background_writer::BackgroundWriter,
    logging,
    settings::{BadSetting, Settings},
};

/// Write an exact copy of the database of DATABASE_URL into a file, and end
///
/// The gateway may be running: the copy contains every request and change that was complete before. It is
/// checked and needs no journal next to it. DATABASE_URL must be the same as for the gateway.
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

/// Replace the database of DATABASE_URL by a backup, and end
///
/// Fails while a gateway is running on it. The existing database, its WAL and its journal are renamed and
/// the new names printed.
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
    logging::start(log, stderr.clone());
    let options = database.options();
    let database = database.path;
    let if_exists = if command.replace { IfExists::Replace } else { IfExists::Fail };
    let file = &command.file;
    let progress = Progress::start(stderr)?;
    let state = if file.exists() { "is unchanged" } else { "was not written" };
    let state = format!("{} {state}", file.display());
    sqlite::backup(&options, file, if_exists, progress.clone())
        .map_err(|error| failed(error, &progress, &state))?;
    progress.complete(0);
    let length = size(file.metadata()?.len());
    print(&format!("{} → {}: {length}, checked\n", database.display(), file.display()));
    Ok(ExitCode::SUCCESS)
}

/// Replaces the database by a copy, or keeps what is left of it.
pub(crate) async fn restore(
    settings: Settings,
    command: &Restore,
    stderr: &BackgroundWriter,
) -> Result<ExitCode, BoxError> {
    let Settings { database, log, .. } = settings;
    logging::start(log, stderr.clone());
    let options = database.options();
    let database = database.path;
    let report = match &command.file {
        Some(file) => {
            let progress = Progress::start(stderr)?;
            let state = match database.exists() {
                true => "is unchanged",
                false => "was not written",
            };
            let state = format!("{} {state}", database.display());
            let restored = sqlite::restore(&options, file, progress.clone())
                .map_err(|error| failed(error, &progress, &state))?;
            progress.complete(0);
            let mut report = format!("{} → {}\n", file.display(), database.display());
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
            database.metadata().map_err(|error| {
                let problem = format!("{} cannot be read: {error}", database.display());
                BadSetting::new("DATABASE_URL", problem)
            })?;
            let store = SqliteStore::open(options.accept_loss(true)).map_err(cannot_open)?;
            store.close().await?;
            let losses = store.losses().iter().map(|loss| format!("lost: {loss}\n"));
            let report: String = losses.collect();
            if report.is_empty() { "nothing is lost\n".to_owned() } else { report }
        }
    };
    print(&report);
    Ok(ExitCode::SUCCESS)
}

/// Converts the error of opening the database, with advice.
pub(crate) fn cannot_open(error: OpenError) -> BadSetting {
    match error.kind() {
        OpenErrorKind::Loss => BadSetting::new("DATABASE_URL", with_advice(&error.to_string())),
        _ => BadSetting::new("DATABASE_URL", error),
    }
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
