//! `gateway import`: takes over keys and their days from the SQLite file of another trial-key proxy.

mod days;
mod original;

use std::{
    fmt,
    io::{self, Write},
    process::ExitCode,
};

use tower::BoxError;
use tower_quota::store::{
    Actor, AdminStore, Imported, ImportedKey,
    memory::MemoryStore,
    sqlite::{SqliteOptions, SqliteStore},
};

use crate::{
    background_writer::BackgroundWriter,
    commands::{
        backup,
        progress::{Amount, Progress},
    },
    settings::{Import, Settings},
};
use original::{Original, OriginalKey};

/// Tells of each key what came of it. Fails if one could not be taken over.
pub(crate) async fn run(
    settings: &Settings,
    import: &Import,
    stderr: &BackgroundWriter,
) -> Result<ExitCode, BoxError> {
    let progress = Progress::start(stderr)?;
    progress.report("reading the file", Amount::Unknown)?;
    let original = original::read(&import.file, settings.daily_limit, &settings.calendar)?;
    let is_there = settings.database.metadata().is_ok_and(|file| file.len() > 0);
    let imported = if import.dry_run && !is_there {
        let empty =
            MemoryStore::with_time(settings.calendar.clone(), tower_quota::clock::SystemClock);
        empty.import(original.keys(), true, operator()).await?
    } else {
        let options = SqliteOptions::new(&settings.database)
            .calendar(settings.calendar.clone())
            .default_daily_limit(settings.daily_limit);
        let store = SqliteStore::open(options).map_err(backup::cannot_open)?;
        let keys = original.keys();
        let imported =
            store.import_with_progress(keys, import.dry_run, operator(), progress.clone()).await?;
        store.close().await?;
        imported.ok_or_else(|| progress.stopped("nothing was imported"))?
    };
    progress.finish();
    Ok(tell(&original, imported, import.dry_run))
}

fn operator() -> Actor {
    Actor { token_id: "command_line".to_owned(), ip: None }
}

fn tell(original: &Original, imported: Vec<Imported>, dry_run: bool) -> ExitCode {
    let mut imported = imported.into_iter();
    let mut report = String::new();
    let [mut new, mut unchanged, mut conflicts] = [0; 3];
    for key in &original.keys {
        let told = match &key.read {
            Err(error) => Err(error.to_string()),
            Ok(_) => match imported.next() {
                Some(Imported::Revoked(id)) => Err(format!("was rotated or deleted here ({id})")),
                Some(known @ (Imported::New(_) | Imported::Unchanged(_))) => Ok(known),
                _ => Err("nothing is known of it".to_owned()),
            },
        };
        let (count, outcome) = match &told {
            Ok(Imported::New(_)) => (&mut new, "new"),
            Ok(Imported::Unchanged(_)) => (&mut unchanged, "unchanged"),
            _ => (&mut conflicts, "conflict"),
        };
        *count += 1;
        let why = told.err().map(|why| format!(": {why}")).unwrap_or_default();
        report += &format!("{outcome:<10} {key}{why}\n");
    }
    for note in &original.notes {
        report += &format!("note: {note}\n");
    }
    let tried = if dry_run { "; a dry run, nothing was changed" } else { "" };
    report += &format!("{new} new, {unchanged} unchanged, {conflicts} conflicts{tried}\n");
    // The work is done, whether or not anybody reads of it.
    let _ = io::stdout().write_all(report.as_bytes());
    ExitCode::from(u8::from(conflicts > 0))
}

impl Original {
    /// The keys that could be read.
    fn keys(&self) -> Vec<ImportedKey> {
        self.keys.iter().filter_map(|key| key.read.as_ref().ok().cloned()).collect()
    }
}

impl fmt::Display for OriginalKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} row {}", self.table, self.row)?;
        let Ok(key) = &self.read else {
            return Ok(());
        };
        write!(f, "  {}  {:?}", key.masked, key.label)?;
        match key.daily_limit.get() {
            0 => write!(f, "  unlimited")?,
            limit => write!(f, "  {limit} a day")?,
        }
        write!(f, "  used on {} days", key.used.len())?;
        write!(f, "{}", if key.disabled { "  disabled" } else { "" })
    }
}
