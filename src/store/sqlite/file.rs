//! Opening the file: the process lock, the writer's connection, the readers' pool.

use std::{
    fs::{File, TryLockError},
    io::{self, Write},
    path::{Path, PathBuf},
    time::Duration,
};

use deadpool_sqlite::{Config, Hook, HookError, Pool, PoolConfig, Runtime};
use rusqlite::{Connection, OpenFlags, config::DbConfig};

use super::{
    OpenError, SqliteOptions, fold,
    options::is_full,
    schema::{self, MigrateError},
};
use crate::store::journal::is_in_place;

/// How long a write waits for another process's write lock.
pub(super) const WRITE_PATIENCE: Duration = Duration::from_secs(1);
const READ_PATIENCE: Duration = Duration::from_secs(1);
pub(super) const READERS: usize = 4;

/// Held as long as the store is open: the counters belong to one process.
pub(super) struct FileLock {
    /// Beside the database.
    _beside: File,
    database: File,
    path: PathBuf,
}

impl FileLock {
    /// Locks the database of this path.
    ///
    /// The file beside it comes first: closing the database's own, as a refused start does, would
    /// drop the locks that SQLite holds on it in this process.
    pub(super) fn take(path: &Path) -> Result<Self, OpenError> {
        let name = with_suffix(path, ".lock");
        let shown = name.display();
        let beside = open_lock(&name)
            .map_err(|error| OpenError::because(format!("{shown} cannot be opened"), error))?;
        lock(&beside, &name, path)?;
        let failed =
            |error| OpenError::because(format!("{} cannot be opened", path.display()), error);
        let database = File::open(path).map_err(failed)?;
        // Only here are these locks apart from SQLite's own. They hold also when somebody has
        // removed the file beside.
        if cfg!(target_os = "linux") {
            lock(&database, path, path)?;
        }
        Ok(Self { _beside: beside, database, path: path.to_owned() })
    }

    /// Whether the database still lies where it was opened.
    pub(super) fn is_in_place(&self) -> bool {
        is_in_place(&self.database, &self.path)
    }
}

/// Opens the lock's file for its owner only: whoever can read it can hold the lock, and so keep the
/// store from being opened.
fn open_lock(name: &Path) -> io::Result<File> {
    let mut options = File::options();
    options.create(true).truncate(false).write(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let file = options.open(name)?;
    #[cfg(unix)]
    restrict(&file, name)?;
    Ok(file)
}

/// Takes from others what an earlier version has left them.
#[cfg(unix)]
fn restrict(file: &File, name: &Path) -> io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    let mut permissions = file.metadata()?.permissions();
    if permissions.mode() & 0o077 != 0 {
        permissions.set_mode(0o600);
        if let Err(error) = file.set_permissions(permissions) {
            tracing::warn!(%error, file = %name.display(), "file mode not changed: others may hold the lock");
        }
    }
    Ok(())
}

fn lock(file: &File, name: &Path, database: &Path) -> Result<(), OpenError> {
    file.try_lock().map_err(|error| match error {
        TryLockError::WouldBlock => OpenError::new(format!(
            "{} is in use by another process, and its counters belong to one; \
             stop that one, or name another file",
            database.display()
        )),
        TryLockError::Error(error) => {
            OpenError::because(format!("{} cannot be locked", name.display()), error)
        }
    })
}

/// The path with this behind its name: `quota.db` and `.lock` → `quota.db.lock`.
pub(super) fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

/// SQLite's write-ahead log of the database.
pub(super) fn wal_path(database: &Path) -> PathBuf {
    with_suffix(database, "-wal")
}

/// Whether there is no room for what SQLite and the journal need first, found out by trying.
pub(super) fn disk_is_full(database: &Path) -> bool {
    let name = with_suffix(database, ".probe");
    let tried = File::create(&name).and_then(|mut file| {
        file.write_all(&[0; 64 * 1024])?;
        file.sync_all()
    });
    // What cannot be removed is empty, and made anew the next time.
    let _ = std::fs::remove_file(&name);
    tried.is_err_and(|error| is_full(&error))
}

/// Makes the file if it is not there, for its owner only, and returns its one true path, so that
/// every way of naming it leads to the same lock.
pub(super) fn create(path: &Path) -> Result<PathBuf, OpenError> {
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
    create()
        .map_err(|error| OpenError::because(format!("{} cannot be opened", path.display()), error))
}

/// Opens a database that is there, to read it without changing it or its WAL.
pub(super) fn open_read_only(path: &Path) -> rusqlite::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)?;
    keep_wal(&connection, true)?;
    connection.busy_timeout(READ_PATIENCE)?;
    Ok(connection)
}

/// The last commit that the file holds without its WAL; 0 if it has never held one, `None` if that is
/// unknown.
pub(super) fn read_commits_in_file(path: &Path) -> Option<u64> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY
        | OpenFlags::SQLITE_OPEN_NO_MUTEX
        | OpenFlags::SQLITE_OPEN_URI;
    let escaped = path.to_str()?.replace('%', "%25").replace('?', "%3f").replace('#', "%23");
    let connection =
        Connection::open_with_flags(format!("file:{escaped}?immutable=1"), flags).ok()?;
    let sql = "SELECT count(*) FROM sqlite_master WHERE name = 'identity'";
    match connection.query_row(sql, [], |row| row.get(0)).ok()? {
        0 => Some(0),
        _ => fold::read_identity(&connection).map(|(_, commits)| commits).ok(),
    }
}

/// Whether there is no such file, or nothing in it.
pub(super) fn is_empty(path: &Path) -> bool {
    std::fs::metadata(path).map_or(0, |metadata| metadata.len()) == 0
}

/// Refuses a path without a database that has a WAL or a journal beside it: a new database would
/// overwrite its WAL.
pub(super) fn look_for_orphans(path: &Path, segments: &[u64]) -> Result<(), OpenError> {
    if !is_empty(path) || is_empty(&wal_path(path)) && segments.is_empty() {
        return Ok(());
    }
    let shown = path.display();
    let is = if path.exists() { "empty" } else { "missing" };
    let beside = match segments.iter().max() {
        Some(segment) => format!("{shown}.journal.{segment}"),
        None => format!("{shown}-wal"),
    };
    Err(OpenError::loss(format!("{shown} is {is}, and {beside} belongs to it")))
}

pub(super) fn open_writer(options: &SqliteOptions) -> Result<Connection, OpenError> {
    let shown = options.path.display();
    let failed = |error| OpenError::because(format!("{shown} cannot be opened"), error);
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE
        | OpenFlags::SQLITE_OPEN_CREATE
        | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(&options.path, flags).map_err(failed)?;
    keep_wal(&connection, true).map_err(failed)?;
    configure_writer(&connection).map_err(failed)?;
    schema::migrate(&connection).map_err(|error| cannot_migrate(&options.path, error))?;
    Ok(connection)
}

/// What is wrong with the tables of this file.
pub(super) fn cannot_migrate(path: &Path, error: MigrateError) -> OpenError {
    let shown = path.display();
    match error {
        MigrateError::Foreign => OpenError::new(format!(
            "{shown} has tables of another program; name a new file, and import keys from this one"
        )),
        MigrateError::Newer(version) => OpenError::new(format!(
            "{shown} was written by a newer version (schema {version}); update this program"
        )),
        MigrateError::Sqlite(error) => {
            OpenError::because(format!("{shown} cannot be opened"), error)
        }
    }
}

/// Whether the connection's end leaves the WAL as it is: a refused start changes no file.
pub(super) fn keep_wal(connection: &Connection, keep: bool) -> rusqlite::Result<()> {
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, keep).map(drop)
}

fn configure_writer(connection: &Connection) -> rusqlite::Result<()> {
    connection.busy_timeout(WRITE_PATIENCE)?;
    connection.pragma_update(None, "journal_mode", "WAL")?;
    // Never over the limit after a loss of power: a unit must be on disk before its answer.
    connection.pragma_update(None, "synchronous", "FULL")?;
    // A hashed-over key must not stay in freed bytes of the file.
    connection.pragma_update(None, "secure_delete", "ON")?;
    connection.set_prepared_statement_cache_capacity(64);
    Ok(())
}

pub(super) fn open_readers(options: &SqliteOptions) -> Result<Pool, OpenError> {
    let failed = |error: String| OpenError::because("the readers could not be set up", error);
    let hook = Hook::async_fn(|connection, _| {
        Box::pin(async move {
            let configured = connection.interact(|connection| {
                connection.busy_timeout(READ_PATIENCE)?;
                connection.pragma_update(None, "query_only", "ON")
            });
            match configured.await {
                Ok(Ok(())) => Ok(()),
                Ok(Err(error)) => Err(HookError::message(error.to_string())),
                Err(error) => Err(HookError::message(error.to_string())),
            }
        })
    });
    let mut config = Config::new(&options.path);
    let mut pool = PoolConfig::new(READERS);
    pool.timeouts.wait = Some(READ_PATIENCE);
    config.pool = Some(pool);
    let builder = config.builder(Runtime::Tokio1).map_err(|error| failed(error.to_string()))?;
    builder.post_create(hook).build().map_err(|error| failed(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_commit_of_the_writer_survives_a_loss_of_power() {
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
