//! Inspection of a database without opening it for use.

use std::{fs::File, path::Path};

use super::{
    super::{OpenError, SqliteOptions, file::with_suffix, start},
    BackupError, BackupErrorKind, Source, check_integrity, journal_end, read_journal, retry,
    with_canonical_path,
};
use crate::store::{engine::journal::FileDisk, process_lock::ProcessLock};

/// Result of [`inspect`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Inspection {
    /// Whether a process has opened the database for use.
    pub is_in_use: bool,
    /// Whether the schema is the current one. An older schema is migrated when the database is
    /// opened.
    pub is_current: bool,
    /// Number of keys.
    pub keys: u64,
}

/// Checks the database of these options and its journal without changing anything. Another process
/// may have opened the database. The whole file is read.
///
/// # Errors
///
/// The file cannot be read, is damaged, or is not a database of this or an earlier version; or
/// requests or changes are provably missing, as in [`OpenErrorKind::Loss`].
///
/// [`OpenErrorKind::Loss`]: crate::store::sqlite::OpenErrorKind::Loss
pub fn inspect(options: &SqliteOptions) -> Result<Inspection, OpenError> {
    let inspection =
        with_canonical_path(options).and_then(|options| retry(|| try_inspect(&options), || true));
    inspection.map_err(|error| match error.kind() {
        BackupErrorKind::Loss => OpenError::loss(error.to_string()),
        _ => OpenError::new(error.to_string()),
    })
}

fn try_inspect(options: &SqliteOptions) -> Result<Inspection, BackupError> {
    let path = &options.path;
    let failed = |error| BackupError::sqlite(path, error);
    let disk = FileDisk::beside(path);
    let source = Source::open(path)?;
    // Same order as for a copy, for the same reasons.
    let end = journal_end(&source, &disk, options)?;
    let Source { connection, is_current } = source;
    connection.execute_batch("BEGIN; SELECT count(*) FROM sqlite_master").map_err(failed)?;
    if end.is_some() {
        let rest = read_journal(&connection, &disk, end, options)?;
        if let Some(loss) = start::first_of(&rest.losses()) {
            return Err(BackupError::loss(loss));
        }
    }
    check_integrity(&connection, path, "PRAGMA quick_check(1)")?;
    let keys = connection.query_row("SELECT count(*) FROM api_keys", [], |row| row.get(0));
    Ok(Inspection { is_in_use: is_in_use(path), is_current, keys: keys.map_err(failed)? })
}

/// Whether a process holds the lock. The lock file is not created, and is locked only for an
/// instant.
pub(super) fn is_in_use(path: &Path) -> bool {
    File::open(with_suffix(path, ".lock")).is_ok_and(|file| ProcessLock::is_held(&file))
}
