//! `gateway import`: imports keys from files of other programs.

mod days;
mod litellm;
mod one_api;
mod original;
mod source;

use std::{
    collections::HashMap,
    fmt,
    io::{self, BufWriter, Write},
    path::{Path, PathBuf},
    process::ExitCode,
};

use clap::Args;
use jiff::Timestamp;
use tempfile::TempDir;
use tower::BoxError;
use tower_quota::{
    admin::store::{Actor, AdminStore, ImportOutcome, ImportedKey},
    key::{InvalidLimit, KeyHash, Limit},
    store::{
        memory::MemoryStore,
        sqlite::{self, IfExists, SqliteOptions, SqliteStore},
    },
};

use crate::{
    commands::{
        backup,
        progress::{Amount, Progress},
    },
    logging::BackgroundWriter,
    settings::{Database, Settings},
    store::StoreOptions,
};
use source::{ReadOptions, RowProblem, Source, SourceKind, SourceRow, shown};

/// Import keys from the file of another program, and end
///
/// Reads the SQLite files of trial-key proxies, one-api and new-api, and LiteLLM's table
/// LiteLLM_VerificationToken as CSV. The file is only read. Keys that exist already are not changed, so
/// importing twice changes nothing. Stop the gateway first, except for a dry run with SQLite.
#[derive(Args, Clone)]
#[command(after_help = "\
Exit code: 0 if all keys were imported; 1 if some were not, and the report says why; 2 on an error,
with nothing imported.

Examples:
  gateway import one-api.db --dry-run
  gateway import one-api.db --daily-limit 100
  gateway import keys.csv --from litellm --drop-access-lists")]
pub(crate) struct Import {
    /// The other program's file
    pub(crate) file: PathBuf,
    /// Print what would happen, and change nothing
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// The program that wrote the file [default: detected by its content]
    #[arg(long, value_name = "PROGRAM")]
    pub(crate) from: Option<SourceKind>,
    /// Daily limit of keys that have none of their own; 0 is unlimited
    /// [default: DAILY_REQ_LIMIT]
    #[arg(long, value_name = "NUMBER", value_parser = daily_limit)]
    pub(crate) daily_limit: Option<Limit>,
    /// Import keys that are restricted to models, addresses or routes, too, without these restrictions
    #[arg(long)]
    pub(crate) drop_access_lists: bool,
}

fn daily_limit(text: &str) -> Result<Limit, InvalidLimit> {
    // What is no number is no limit, as a negative one.
    Limit::from_stored(text.parse().unwrap_or(-1))
}

/// The outcome of a row.
enum Outcome {
    /// The row is a new key for the store, whose outcome is not known yet.
    Pending,
    New,
    Unchanged(Option<String>),
    Conflict(String),
    Skipped(String),
}

/// Number of rows by outcome.
#[derive(Default)]
struct Summary {
    new: usize,
    unchanged: usize,
    conflicts: usize,
    skipped: usize,
}

/// Imports the keys and prints the outcome of each. Fails if one was not imported.
pub(crate) async fn run(
    settings: &Settings,
    import: &Import,
    stderr: &BackgroundWriter,
) -> Result<ExitCode, BoxError> {
    let progress = Progress::start(stderr)?;
    let imported = import_file(settings, import, &progress).await;
    let (source, outcomes) = imported.inspect_err(|_| progress.finish())?;
    let mut summary = Summary::default();
    outcomes.iter().for_each(|outcome| summary.add(outcome));
    let code = u8::from(summary.conflicts > 0);
    progress.complete(code);
    // The work is done even if standard output is closed.
    let _ = print(&source, &outcomes, &summary, import.dry_run);
    Ok(ExitCode::from(code))
}

/// Reads the file, imports its keys, and returns the outcome of each row.
async fn import_file(
    settings: &Settings,
    import: &Import,
    progress: &Progress,
) -> Result<(Source, Vec<Outcome>), BoxError> {
    progress.report("reading the file", Amount::Unknown)?;
    let source = source::read(&ReadOptions {
        file: &import.file,
        from: import.from,
        daily_limit: import.daily_limit.unwrap_or(settings.database.default_daily_limit),
        limits: settings.database.default_limits(),
        drop_access_lists: import.drop_access_lists,
        calendar: &settings.database.calendar,
        progress,
    })?;
    let (keys, mut outcomes) = distinct_keys(&source);
    let by = Actor::new("command_line", None);
    let database = &settings.database;
    let imported = match &database.database {
        Database::Sqlite(path) => {
            let options = database.sqlite_options(path);
            let has_database = path.metadata().is_ok_and(|file| file.len() > 0);
            match (import.dry_run, has_database) {
                (false, _) => import_into_sqlite(options, keys, false, by, progress).await?,
                (true, true) => {
                    let (copy, _directory) = copy_for_dry_run(options, path, progress)?;
                    let options = database.sqlite_options(&copy);
                    import_into_sqlite(options, keys, true, by, progress).await?
                }
                (true, false) => {
                    let (calendar, clock) =
                        (database.calendar.clone(), tower_quota::clock::SystemClock);
                    MemoryStore::with_time(calendar, clock).import(keys, true, by).await?
                }
            }
        }
        Database::Postgres(_) => {
            import_into(database.options()?, keys, import.dry_run, by, progress).await?
        }
    };
    let pending = outcomes.iter_mut().filter(|outcome| matches!(outcome, Outcome::Pending));
    for (outcome, imported) in pending.zip(imported) {
        *outcome = Outcome::of(imported);
    }
    Ok((source, outcomes))
}

/// Imports into a store that reports no progress.
async fn import_into(
    options: StoreOptions,
    keys: Vec<ImportedKey>,
    dry_run: bool,
    by: Actor,
    progress: &Progress,
) -> Result<Vec<ImportOutcome>, BoxError> {
    progress.report("opening the database", Amount::Unknown)?;
    let opened = options.clone().open().await;
    let store = opened.map_err(|error| backup::cannot_open(error, &options))?;
    progress.publish("importing keys")?;
    let imported = store.import(keys, dry_run, by).await?;
    store.close().await?;
    Ok(imported)
}

async fn import_into_sqlite(
    options: SqliteOptions,
    keys: Vec<ImportedKey>,
    dry_run: bool,
    by: Actor,
    progress: &Progress,
) -> Result<Vec<ImportOutcome>, BoxError> {
    let opened = SqliteStore::open(options.clone());
    let store =
        opened.map_err(|error| backup::cannot_open(error, &StoreOptions::Sqlite(options)))?;
    let imported = store.import_with_progress(keys, dry_run, by, progress.clone()).await?;
    store.close().await?;
    Ok(imported.ok_or_else(|| progress.stopped("nothing was imported"))?)
}

/// Copies the database for a dry run, which works while a gateway is running. The copy is removed with its
/// directory.
fn copy_for_dry_run(
    options: SqliteOptions,
    path: &Path,
    progress: &Progress,
) -> Result<(PathBuf, TempDir), BoxError> {
    // Beside the database, as other directories may be full or read-only.
    let parent = path.parent().filter(|parent| *parent != Path::new(""));
    let directory = tempfile::Builder::new()
        .prefix(".dry-run-")
        .tempdir_in(parent.unwrap_or(Path::new(".")))?;
    let copy = directory.path().join("quota.db");
    sqlite::backup(&options, &copy, IfExists::Fail, progress.clone())
        .map_err(|error| backup::failed(error, progress, "nothing was changed"))?;
    Ok((copy, directory))
}

/// Returns the distinct keys for the store, and the outcome of each row so far.
fn distinct_keys(source: &Source) -> (Vec<ImportedKey>, Vec<Outcome>) {
    let mut keys = Vec::new();
    let mut first: HashMap<KeyHash, &SourceRow> = HashMap::new();
    let outcomes = source.rows.iter().map(|row| match &row.key {
        Err(RowProblem::Conflict(why)) => Outcome::Conflict(why.clone()),
        Err(RowProblem::Skipped(why)) => Outcome::Skipped(why.clone()),
        Ok(key) => match first.get(&key.hash()) {
            Some(first) => Outcome::Unchanged(Some(format!(": the key of {}", first.place))),
            None => {
                first.insert(key.hash(), row);
                keys.push(key.clone());
                Outcome::Pending
            }
        },
    });
    let outcomes = outcomes.collect();
    (keys, outcomes)
}

impl Outcome {
    fn of(imported: ImportOutcome) -> Self {
        match imported {
            ImportOutcome::New(_) => Self::New,
            ImportOutcome::Unchanged(_) => Self::Unchanged(None),
            ImportOutcome::Revoked(id) => {
                Self::Conflict(format!("was rotated or deleted here ({id})"))
            }
            _ => Self::Conflict("could not be imported".to_owned()),
        }
    }
}

fn print(
    source: &Source,
    outcomes: &[Outcome],
    summary: &Summary,
    dry_run: bool,
) -> io::Result<()> {
    let mut out = BufWriter::new(io::stdout().lock());
    for (row, outcome) in source.rows.iter().zip(outcomes) {
        match outcome {
            Outcome::New => writeln!(out, "new        {row}")?,
            Outcome::Unchanged(why) => {
                writeln!(out, "unchanged  {}{}", row.name(), why.as_deref().unwrap_or_default())?
            }
            Outcome::Conflict(why) => writeln!(out, "conflict   {}: {why}", row.name())?,
            Outcome::Pending => writeln!(out, "conflict   {}: was not imported", row.name())?,
            Outcome::Skipped(why) => writeln!(out, "skipped    {}: {why}", row.name())?,
        }
    }
    for note in &source.notes {
        writeln!(out, "note: {note}")?;
    }
    let suffix = if dry_run { "; a dry run, nothing was changed" } else { "" };
    writeln!(out, "{summary}{suffix}")?;
    out.flush()
}

impl Summary {
    fn add(&mut self, outcome: &Outcome) {
        *match outcome {
            Outcome::New => &mut self.new,
            Outcome::Unchanged(_) => &mut self.unchanged,
            Outcome::Conflict(_) | Outcome::Pending => &mut self.conflicts,
            Outcome::Skipped(_) => &mut self.skipped,
        } += 1;
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { new, unchanged, conflicts, skipped } = self;
        write!(f, "{new} new, {unchanged} unchanged, {conflicts} conflicts")?;
        if *skipped > 0 { write!(f, ", {skipped} skipped") } else { Ok(()) }
    }
}

impl SourceRow {
    /// Returns the row's place, masked key and label.
    fn name(&self) -> String {
        let mut name = self.place.clone();
        if let Ok(key) = &self.key {
            name += &format!("  {}", key.record().masked);
        }
        if self.key.is_ok() || !self.report.label.is_empty() {
            name += &format!("  \"{}\"", shown(&self.report.label));
        }
        name
    }
}

impl fmt::Display for SourceRow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.name())?;
        let Ok(key) = &self.key else {
            return Ok(());
        };
        match key.record().daily_limit.number() {
            0 => write!(f, "  unlimited")?,
            limit => write!(f, "  {limit} a day")?,
        }
        if !key.used().is_empty() {
            write!(f, "  used on {} days", key.used().len())?;
        }
        if let Some(at) = key.record().expires_at.and_then(|at| Timestamp::try_from(at).ok()) {
            let word = if at <= Timestamp::now() { "expired" } else { "expires" };
            write!(f, "  {word} {}", at.strftime("%Y-%m-%dT%H:%M:%SZ"))?;
        }
        match &self.report.disabled {
            Some(why) => write!(f, "  disabled: {why}")?,
            None if key.record().disabled => write!(f, "  disabled")?,
            None => {}
        }
        match &*self.report.not_kept {
            [] => Ok(()),
            not_kept => write!(f, "  not kept: {}", not_kept.join(", ")),
        }
    }
}
