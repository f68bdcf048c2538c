//! `gateway backup` and `gateway restore`: copies of the database, and what is done when one is needed.

use std::{
    io::{self, Write},
    path::PathBuf,
    process::ExitCode,
};

use clap::Args;
use tower::BoxError;
use tower_quota::store::sqlite::{
    self, BackupError, BackupErrorKind, IfExists, OpenError, OpenErrorKind, SqliteOptions,
    SqliteStore,
};

use super::progress::{Progress, size};
use crate::{
    background_writer::BackgroundWriter,
    logging,
    settings::{BadSetting, Settings},
};

/// Write an exact copy of the database of DATABASE_URL into a file, and end
///
/// The gateway may run meanwhile: every request that was answered and every change that was made
/// before is in the copy, which is checked and needs no journal beside it. DATABASE_URL must be named
/// as it is for the gateway.
#[derive(Args, Clone)]
#[command(after_help = "\
Exit code: 0; 2 if the copy could not be made; 130 if Ctrl-C has stopped it. Then there is none.

Example:
  gateway backup /backups/quota-$(date +%F).db")]
pub(crate) struct Backup {
    /// The new file
    pub(crate) file: PathBuf,
    /// Put the copy in the place of a file that is there already
    #[arg(long)]
    pub(crate) replace: bool,
}

/// Put a backup in the place of the database of DATABASE_URL, and end
///
/// RejectedHead while a gateway runs on it. The database that is there, its WAL and its journal are kept
/// under other names, which are printed.
#[derive(Args, Clone)]
#[command(after_help = "\
Exit code: 0; 2 if it could not be done; 130 if Ctrl-C has stopped it. Then nothing has changed.

Examples:
  gateway restore /backups/quota-2026-11-28.db
  gateway restore --accept-loss")]
pub(crate) struct Restore {
    /// The backup; it is only read
    #[arg(required_unless_present = "accept_loss")]
    pub(crate) file: Option<PathBuf>,
    /// Go on with what is left of a database whose start is refused, and print what is lost
    #[arg(long, conflicts_with = "file")]
    pub(crate) accept_loss: bool,
}

/// Writes a copy of the database.
pub(crate) fn back_up(
    settings: Settings,
    command: &Backup,
    stderr: &BackgroundWriter,
) -> Result<ExitCode, BoxError> {
    let Settings { database, daily_limit, log, .. } = settings;
    logging::start(log, stderr.clone());
    let options = SqliteOptions::new(&database).default_daily_limit(daily_limit);
    let if_exists = if command.replace { IfExists::Replace } else { IfExists::Fail };
    let file = &command.file;
    let progress = Progress::start(stderr)?;
    let state = if file.exists() { "is what it was before" } else { "was not written" };
    let state = format!("{} {state}", file.display());
    sqlite::backup(&options, file, if_exists, progress.clone())
        .map_err(|error| failed(error, &progress, &state))?;
    progress.finish();
    let length = size(file.metadata()?.len());
    print(&format!("{} → {}: {length}, checked\n", database.display(), file.display()));
    Ok(ExitCode::SUCCESS)
}

/// Puts a copy in the database's place, or goes on with what is left of the database.
pub(crate) async fn restore(
    settings: Settings,
    command: &Restore,
    stderr: &BackgroundWriter,
) -> Result<ExitCode, BoxError> {
    let Settings { database, calendar, daily_limit, log, .. } = settings;
    logging::start(log, stderr.clone());
    let options = SqliteOptions::new(&database).calendar(calendar).default_daily_limit(daily_limit);
    let report = match &command.file {
        Some(file) => {
            let progress = Progress::start(stderr)?;
            let state = match database.exists() {
                true => "is what it was before",
                false => "is not there, as before",
            };
            let state = format!("{} {state}", database.display());
            let restored = sqlite::restore(&options, file, progress.clone())
                .map_err(|error| failed(error, &progress, &state))?;
            progress.finish();
            let mut report = format!("{} → {}\n", file.display(), database.display());
            if restored.lacks_journal {
                report += "note: this was a plain copy of a database, no backup; what its journal \
                           held is not in it\n";
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

/// Why the database cannot be opened, and what can be done.
pub(crate) fn cannot_open(error: OpenError) -> BadSetting {
    match error.kind() {
        OpenErrorKind::Loss => BadSetting::new("DATABASE_URL", with_way_out(&error.to_string())),
        _ => BadSetting::new("DATABASE_URL", error),
    }
}

/// Why a copy was not made. If it was stopped, things are in this state.
pub(crate) fn failed(error: BackupError, progress: &Progress, state: &str) -> BoxError {
    progress.finish();
    match error.kind() {
        BackupErrorKind::Stopped => progress.stopped(state).into(),
        BackupErrorKind::Exists => format!("{error}; --replace replaces it").into(),
        BackupErrorKind::Loss => with_way_out(&error.to_string()).into(),
        _ => error.into(),
    }
}

fn with_way_out(loss: &str) -> String {
    format!(
        "{loss}; put the right file back, or a backup by `gateway restore FILE`, or go on with what \
         is left by `gateway restore --accept-loss`"
    )
}

/// The work is done, whether or not anybody reads of it.
fn print(report: &str) {
    let _ = io::stdout().write_all(report.as_bytes());
}
