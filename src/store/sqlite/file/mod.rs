//! Opening of the database: the process lock, the writer's connection, the pools of readers.

pub(super) mod options;
pub(super) mod wal;

use std::{
    fs::File,
    io::{self, Write},
    path::{Path, PathBuf},
    time::Duration,
};

use deadpool_sqlite::{Config, Hook, HookError, Pool, PoolConfig, Runtime};
use rusqlite::{Connection, OpenFlags, config::DbConfig};

use self::options::{SqliteOptions, is_full};
use super::{
    checkpoint,
    schema::{self, MigrateError},
};
use crate::store::{
    engine::journal::is_in_place, open_error::OpenError, process_lock::ProcessLock,
};

/// Time for which a write waits for the write lock of another process.
pub(crate) const WRITE_BUSY_TIMEOUT: Duration = Duration::from_secs(1);
/// Time for which a read waits for a lock of another process.
const READ_BUSY_TIMEOUT: Duration = Duration::from_secs(1);
/// Time for which a read waits for a free reader of its pool.
const READER_TIMEOUT: Duration = Duration::from_secs(1);
/// Maximum size of the writer's page cache in KiB, which is allocated as it is used.
const WRITER_CACHE_KIB: i64 = 16 * 1024;
/// Number of readers in each pool.
pub(crate) const READERS: usize = 4;

/// Lock that is held while the store is open, since the counters are in the memory of one process.
pub(crate) struct FileLock {
    database: ProcessLock,
    path: PathBuf,
    /// The file `….lock` beside the database, unlocked last.
    _lock_file: ProcessLock,
}

impl FileLock {
    /// Locks the database at this path.
    ///
    /// The lock file comes first, because closing the database file after a failed start would
    /// release the locks that SQLite holds on it in this process.
    pub(crate) fn take(path: &Path) -> Result<Self, OpenError> {
        let name = with_suffix(path, ".lock");
        let in_use = || {
            format!(
                "{} is in use by another process, and its counters belong to one; \
                 stop that one, or name another file",
                path.display()
            )
        };
        let lock_file = ProcessLock::create(&name, in_use)?;
        let database =
            File::open(path).map_err(|error| OpenError::cannot("opened", path, error))?;
        // On Linux, `flock` does not conflict with SQLite's `fcntl` locks. The lock on the database
        // itself also holds if somebody removes the lock file.
        let database = if cfg!(target_os = "linux") {
            ProcessLock::take(database, path, in_use)?
        } else {
            ProcessLock::without_lock(database)
        };
        Ok(Self { _lock_file: lock_file, database, path: path.to_owned() })
    }

    /// Whether the database is still at the path at which it was opened.
    pub(crate) fn is_in_place(&self) -> bool {
        is_in_place(self.database.file(), &self.path)
    }
}

/// Appends a suffix to the path: `quota.db` and `.lock` → `quota.db.lock`.
pub(crate) fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

/// Returns the path of the database's WAL.
pub(crate) fn wal_path(database: &Path) -> PathBuf {
    with_suffix(database, "-wal")
}

/// Whether the disk lacks space for what SQLite and the journal write first, found out by a write.
pub(crate) fn disk_is_full(database: &Path) -> bool {
    let name = with_suffix(database, ".probe");
    let result = File::create(&name).and_then(|mut file| {
        file.write_all(&[0; 64 * 1024])?;
        file.sync_all()
    });
    // If it cannot be removed, the next probe truncates it.
    let _ = std::fs::remove_file(&name);
    result.is_err_and(|error| is_full(&error))
}

/// Creates the file for its owner only, unless it exists, and returns its canonical path, so that
/// all paths to the file lead to the same lock.
pub(crate) fn create(path: &Path) -> Result<PathBuf, OpenError> {
    let create = || {
        let mut options = File::options();
        options.create_new(true).write(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        match options.open(path) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
            _ => path.canonicalize(),
        }
    };
    create().map_err(|error| OpenError::cannot("opened", path, error))
}

/// Opens an existing database to read it without changing it or its WAL.
pub(crate) fn open_read_only(path: &Path) -> rusqlite::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)?;
    keep_wal(&connection, true)?;
    connection.busy_timeout(READ_BUSY_TIMEOUT)?;
    Ok(connection)
}

/// Returns the number of the last commit in the file without its WAL; 0 if there is none, `None` if
/// it cannot be read.
pub(crate) fn read_commits_in_file(path: &Path) -> Option<u64> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY
        | OpenFlags::SQLITE_OPEN_NO_MUTEX
        | OpenFlags::SQLITE_OPEN_URI;
    let escaped = path.to_str()?.replace('%', "%25").replace('?', "%3f").replace('#', "%23");
    let connection =
        Connection::open_with_flags(format!("file:{escaped}?immutable=1"), flags).ok()?;
    let sql = "SELECT count(*) FROM sqlite_master WHERE name = 'identity'";
    match connection.query_row(sql, [], |row| row.get(0)).ok()? {
        0 => Some(0),
        _ => checkpoint::read_identity(&connection).map(|(_, commits)| commits).ok(),
    }
}

/// Whether the file is missing or empty.
pub(crate) fn is_empty(path: &Path) -> bool {
    std::fs::metadata(path).map_or(0, |metadata| metadata.len()) == 0
}

/// Rejects a path at which the database is missing but its WAL or journal is not, since a new
/// database would overwrite the WAL.
pub(crate) fn look_for_orphans(path: &Path, segments: &[u64]) -> Result<(), OpenError> {
    if !is_empty(path) || is_empty(&wal_path(path)) && segments.is_empty() {
        return Ok(());
    }
    let shown = path.display();
    let state = if path.exists() { "empty" } else { "missing" };
    let orphan = match segments.iter().max() {
        Some(segment) => format!("{shown}.journal.{segment}"),
        None => format!("{shown}-wal"),
    };
    Err(OpenError::loss(format!("{shown} is {state}, and {orphan} belongs to it")))
}

pub(crate) fn open_writer(options: &SqliteOptions) -> Result<Connection, OpenError> {
    let failed = |error| OpenError::cannot("opened", &options.path, error);
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE
        | OpenFlags::SQLITE_OPEN_CREATE
        | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(&options.path, flags).map_err(failed)?;
    keep_wal(&connection, true).map_err(failed)?;
    configure_writer(&connection).map_err(failed)?;
    schema::migrate(&connection).map_err(|error| cannot_migrate(&options.path, error))?;
    Ok(connection)
}

/// Returns the error for a database that cannot be migrated.
pub(crate) fn cannot_migrate(path: &Path, error: MigrateError) -> OpenError {
    let shown = path.display();
    match error {
        MigrateError::Foreign => OpenError::new(format!(
            "{shown} has tables of another program; name a new file, and import keys from this one"
        )),
        MigrateError::Newer(version) => OpenError::new(format!(
            "{shown} was written by a newer version (schema {version}); update this program"
        )),
        MigrateError::Sqlite(error) => OpenError::cannot("opened", path, error),
    }
}

/// Sets whether closing the connection keeps the WAL instead of checkpointing it. A failed start
/// must not change any file.
pub(crate) fn keep_wal(connection: &Connection, keep: bool) -> rusqlite::Result<()> {
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, keep).map(drop)
}

fn configure_writer(connection: &Connection) -> rusqlite::Result<()> {
    connection.busy_timeout(WRITE_BUSY_TIMEOUT)?;
    connection.pragma_update(None, "journal_mode", "WAL")?;
    // A commit must be on disk before the response, so that a power failure never exceeds a limit.
    connection.pragma_update(None, "synchronous", "FULL")?;
    // A key in clear must not remain in free pages after it was replaced by its hash.
    connection.pragma_update(None, "secure_delete", "ON")?;
    // The pages of some tens of thousands of keys in use, so that they are not read again at each checkpoint.
    connection.pragma_update(None, "cache_size", -WRITER_CACHE_KIB)?;
    connection.set_prepared_statement_cache_capacity(64);
    Ok(())
}

pub(crate) fn open_readers(options: &SqliteOptions) -> Result<Pool, OpenError> {
    let failed = |error: String| OpenError::because("the readers could not be set up", error);
    let hook = Hook::async_fn(|connection, _| {
        Box::pin(async move {
            let result = connection.interact(|connection| {
                connection.busy_timeout(READ_BUSY_TIMEOUT)?;
                connection.pragma_update(None, "query_only", "ON")
            });
            match result.await {
                Ok(Ok(())) => Ok(()),
                Ok(Err(error)) => Err(HookError::message(error.to_string())),
                Err(error) => Err(HookError::message(error.to_string())),
            }
        })
    });
    let mut config = Config::new(&options.path);
    let mut pool = PoolConfig::new(READERS);
    pool.timeouts.wait = Some(READER_TIMEOUT);
    config.pool = Some(pool);
    let builder = config.builder(Runtime::Tokio1).map_err(|error| failed(error.to_string()))?;
    builder.post_create(hook).build().map_err(|error| failed(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_commit_of_the_writer_survives_a_power_failure() {
        let dir = tempfile::tempdir().unwrap();
        let connection = open_writer(&SqliteOptions::new(dir.path().join("quota.db"))).unwrap();
        let pragma = |name: &str| {
            let sql = format!("PRAGMA {name}");
            connection.query_row(&sql, [], |row| row.get::<_, rusqlite::types::Value>(0)).unwrap()
        };
        assert_eq!(pragma("synchronous"), 2.into(), "FULL");
        assert_eq!(pragma("journal_mode"), "wal".to_owned().into());
    }
}
