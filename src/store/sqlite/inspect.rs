//! Looking at a database without opening it for use.

use std::{
    fs::{File, TryLockError},
    path::Path,
};

use rusqlite::Connection;

use super::{
    BackupErrorKind, OpenError, SqliteOptions,
    backup::{BackupError, journal_end, open_source, read_journal, retry, source},
    file::with_suffix,
    start,
};
use crate::store::journal::FileDisk;

/// What [`inspect`] has found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Inspection {
    /// Whether a process has it open for use.
    pub is_in_use: bool,
    /// Whether its tables are those of this version; they are brought up to date when it is opened.
    pub is_current: bool,
    /// How many keys it holds.
    pub keys: u64,
}

/// Looks at the database of these options and at its journal, and changes nothing. Another process
/// may have it open. The whole file is read.
///
/// # Errors
///
/// The file cannot be read, is damaged, or is no database of this version or an earlier one; or
/// answered requests or changes are provably missing, as in [`OpenErrorKind::Loss`].
///
/// [`OpenErrorKind::Loss`]: super::OpenErrorKind::Loss
pub fn inspect(options: &SqliteOptions) -> Result<Inspection, OpenError> {
    let inspection = source(options).and_then(|options| retry(|| look(&options), || true));
    inspection.map_err(|error| match error.kind() {
        BackupErrorKind::Loss => OpenError::loss(error.to_string()),
        _ => OpenError::new(error.to_string()),
    })
}

fn look(options: &SqliteOptions) -> Result<Inspection, BackupError> {
    let path = &options.path;
    let failed = |error| BackupError::sqlite(path, error);
    let disk = FileDisk::beside(path);
    let connection = open_source(path)?;
    // In the order in which a copy is made, for the same reasons.
    let end = journal_end(&connection, &disk, options)?;
    connection.execute_batch("BEGIN; SELECT count(*) FROM sqlite_master").map_err(failed)?;
    if end.is_some() {
        let rest = read_journal(&connection, &disk, end, options)?;
        if let Some(loss) = start::first_of(&rest.losses()) {
            return Err(BackupError::loss(loss));
        }
    }
    check(&connection, path)?;
    let keys = connection.query_row("SELECT count(*) FROM api_keys", [], |row| row.get(0));
    Ok(Inspection {
        is_in_use: is_in_use(path),
        is_current: end.is_some(),
        keys: keys.map_err(failed)?,
    })
}

fn check(connection: &Connection, path: &Path) -> Result<(), BackupError> {
    let verdict: Result<String, _> =
        connection.query_row("PRAGMA quick_check(1)", [], |row| row.get(0));
    match verdict.map_err(|error| BackupError::sqlite(path, error))?.as_str() {
        "ok" => Ok(()),
        flaw => {
            let (shown, flaw) = (path.display(), flaw.replace('\n', " "));
            Err(BackupError::new(format!("{shown} is damaged: {}", flaw.trim())))
        }
    }
}

/// Whether a process holds the lock. It is tried for an instant, and not made.
fn is_in_use(path: &Path) -> bool {
    let tried = File::open(with_suffix(path, ".lock")).map(|lock| lock.try_lock_shared());
    matches!(tried, Ok(Err(TryLockError::WouldBlock)))
}
