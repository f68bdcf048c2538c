//! Opening the file: the process lock, the writer's connection, the readers' pool.

use std::{
    fs::{File, TryLockError},
    path::{Path, PathBuf},
    time::Duration,
};

use deadpool_sqlite::{Config, Hook, HookError, Pool, PoolConfig, Runtime};
use rusqlite::{Connection, OpenFlags};

use super::{OpenError, SqliteOptions, schema};

/// How long a write waits for another process's write lock.
pub(super) const WRITE_PATIENCE: Duration = Duration::from_secs(1);
const READ_PATIENCE: Duration = Duration::from_secs(1);
pub(super) const READERS: usize = 4;

/// Held as long as the store is open: the counters belong to one process.
pub(super) struct FileLock {
    _file: File,
}

impl FileLock {
    pub(super) fn take(database: &Path) -> Result<Self, OpenError> {
        let path = beside(database, "lock");
        let shown = path.display();
        let file = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&path)
            .map_err(|error| OpenError::because(format!("{shown} cannot be opened"), error))?;
        match file.try_lock() {
            Ok(()) => Ok(Self { _file: file }),
            Err(TryLockError::WouldBlock) => Err(OpenError::new(format!(
                "{} is in use by another process, and its counters belong to one; \
                 stop that one, or use PostgreSQL to share them",
                database.display()
            ))),
            Err(TryLockError::Error(error)) => {
                Err(OpenError::because(format!("{shown} cannot be locked"), error))
            }
        }
    }
}

/// The file of this suffix beside the database: `quota.db` → `quota.db.lock`.
fn beside(database: &Path, suffix: &str) -> PathBuf {
    let mut name = database.as_os_str().to_owned();
    name.push(".");
    name.push(suffix);
    name.into()
}

/// Makes the file if it is not there, for its owner only, and returns its one true path, so that
/// every way of naming it leads to the same lock.
pub(super) fn create(path: &Path) -> Result<PathBuf, OpenError> {
    let mut options = File::options();
    options.create(true).truncate(false).write(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options
        .open(path)
        .and_then(|_| path.canonicalize())
        .map_err(|error| OpenError::because(format!("{} cannot be opened", path.display()), error))
}

pub(super) fn open_writer(options: &SqliteOptions) -> Result<Connection, OpenError> {
    let shown = options.path.display();
    let failed = |error| OpenError::because(format!("{shown} cannot be opened"), error);
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE
        | OpenFlags::SQLITE_OPEN_CREATE
        | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(&options.path, flags).map_err(failed)?;
    configure_writer(&connection).map_err(failed)?;
    schema::migrate(&connection).map_err(|error| match error {
        schema::MigrateError::Foreign => {
            OpenError::new(format!("{shown} has tables of another program; name a new file"))
        }
        schema::MigrateError::Newer(version) => OpenError::new(format!(
            "{shown} was written by a newer version (schema {version}); update this program"
        )),
        schema::MigrateError::Sqlite(error) => failed(error),
    })?;
    Ok(connection)
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
