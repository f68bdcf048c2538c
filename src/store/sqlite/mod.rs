//! [`SqliteStore`]: one SQLite file, for one process.
//!
//! Counters live in memory. A unit is taken there, and written into a journal beside the file before
//! its answer goes out: one short `write`, which survives the end of the process. So that a loss of
//! power gives no unit out twice, the units of a day are charged ahead, in blocks that are synced
//! before any unit of theirs is answered for; with [`Durability::Power`] each unit is synced itself.
//! One thread folds the journal into the tables, in one transaction for all that came meanwhile.
//! Readers use a small pool beside it.
//!
//! `api_keys` may be edited with the `sqlite3` shell while the process runs; its rows are honoured
//! within a second, and keys typed in clear are hashed on first sight.
//!
//! If the journal or the file cannot be written, nothing more is admitted until both can be again.
//! The file and the journal (`quota.db.journal.1`, …) belong together: copy both, or neither.

mod admin;
mod adopt;
mod audit;
mod backup;
mod block;
mod cached_key;
mod changes;
mod claims;
mod core;
mod damage;
mod file;
mod fold;
mod forgetting;
mod import;
mod inspect;
mod jobs;
mod keys;
mod listing;
mod meter;
mod once;
mod options;
mod progress;
mod queue;
mod quota;
mod reading;
mod reports;
mod requests;
mod reset;
mod rows;
mod schema;
#[cfg(test)]
mod simulation;
mod start;
mod usage;
mod wal;
mod watchdog;
mod writer;

use std::{fmt, sync::Arc, time::Duration};

use deadpool_sqlite::Pool;
use rusqlite::Connection;
use tokio::{sync::Semaphore, time::timeout};

pub use self::backup::{BackupError, BackupErrorKind, IfExists, Restored, backup, restore};
pub use self::inspect::{Inspection, inspect};
pub use self::options::{Durability, OpenError, OpenErrorKind, SqliteOptions};
pub use self::progress::{OnProgress, Progress, ProgressStep};
use self::{
    core::Core, file::FileLock, reading::read, start::Begun, wal::Wal, watchdog::Watchdog,
    writer::Writer,
};
use super::{
    StoreFuture,
    journal::{Disk, FileDisk, Syncer},
};
use crate::error::StoreError;

/// So many reports of all keys are made at once, so that readers are left for lists,
const REPORTS: usize = 2;
/// and for so long others wait.
const REPORT_PATIENCE: Duration = Duration::from_secs(5);

/// A store in one SQLite file. Clones share it. Must be opened within a tokio runtime.
///
/// ```
/// use tower_quota::store::sqlite::{SqliteOptions, SqliteStore};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let directory = tempfile::tempdir()?;
/// # let path = directory.path().join("quota.db");
/// let store = SqliteStore::open(SqliteOptions::new(path))?;
/// // … serve …
/// store.close().await?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct SqliteStore(Arc<Inner>);

struct Inner {
    core: Arc<Core>,
    /// For lists, and for figures of all keys.
    pool: Pool,
    /// For figures of one key, which must not wait behind those of all.
    of_keys: Pool,
    /// Reports of all keys that are made at once.
    reports: Semaphore,
    /// For keys and counters, which must not wait behind reports.
    look_ups: Pool,
    /// One for each of these.
    turns: Semaphore,
    writer: Writer,
    syncer: Syncer,
    watchdog: Watchdog,
    losses: Vec<String>,
    /// How it was opened, for copies of it.
    options: SqliteOptions,
    /// For the one copy that may be under way.
    copying: Arc<Semaphore>,
    next_count: meter::NextCount,
}

impl SqliteStore {
    /// Opens the file, makes or migrates its tables, and starts the writer thread.
    ///
    /// # Errors
    ///
    /// When another process has it open, or it cannot be read and written, or it was made by
    /// another program. [`OpenErrorKind::Temporary`] means that trying again may help.
    pub fn open(options: SqliteOptions) -> Result<Self, OpenError> {
        let path = options.path.clone();
        Self::try_open(options).map_err(|error| error.judged(|| file::disk_is_full(&path)))
    }

    fn try_open(mut options: SqliteOptions) -> Result<Self, OpenError> {
        if !options.accept_loss {
            // What cannot be listed cannot be opened either.
            let segments = FileDisk::beside(&options.path).segments().unwrap_or_default();
            file::look_for_orphans(&options.path, &segments)?;
        }
        options.path = file::create(&options.path)?;
        let lock = FileLock::take(&options.path)?;
        backup::remove_unfinished(&options.path);
        let disk = Box::new(FileDisk::beside(&options.path));
        let examined = start::examine(&*disk, &options)?;
        let connection = file::open_writer(&options)?;
        let pool = file::open_readers(&options)?;
        let of_keys = file::open_readers(&options)?;
        let look_ups = file::open_readers(&options)?;
        let Begun { journal, losses, checkpointed } =
            start::begin(&connection, disk, &options, examined)?;
        file::keep_wal(&connection, false).map_err(OpenError::sqlite)?;
        let wal = Wal::open(&options.path, checkpointed)
            .map_err(|error| OpenError::because("the WAL cannot be opened", error))?;
        let core = Arc::new(Core::new(&options, journal));
        let syncer = Syncer::start(core.journal.clone()).map_err(OpenError::thread)?;
        let writer = Writer::start(core.clone(), connection, wal).map_err(OpenError::thread)?;
        let watchdog = Watchdog::start(core.journal.clone(), lock).map_err(OpenError::thread)?;
        let turns = Semaphore::new(file::READERS);
        let inner = Inner {
            core,
            pool,
            of_keys,
            reports: Semaphore::new(REPORTS),
            look_ups,
            turns,
            writer,
            syncer,
            watchdog,
            losses,
            options,
            copying: Arc::new(Semaphore::new(1)),
            next_count: meter::NextCount::new(),
        };
        Ok(Self(Arc::new(inner)))
    }

    /// What was missing when the file was opened, a sentence each; nothing unless
    /// [`SqliteOptions::accept_loss`] was set.
    pub fn losses(&self) -> &[String] {
        &self.0.losses
    }

    /// Waits until all that was recorded before the call is in the file.
    pub fn flush(&self) -> StoreFuture<()> {
        self.0.core.queue.call(|_| Ok(()), |()| ())
    }

    /// Writes what is left and stops the writer thread. Requests that come later are refused.
    ///
    /// # Errors
    ///
    /// What was left could not be written.
    pub async fn close(&self) -> Result<(), StoreError> {
        let flushed = self.flush().await;
        let store = self.0.clone();
        // The thread is waited for, which would hold up all other tasks here.
        let stopped = tokio::task::spawn_blocking(move || store.writer.stop()).await;
        stopped.map_err(StoreError::unavailable)?;
        flushed
    }

    /// Waits until what was recorded before is in the file, so that it can be read. While it cannot
    /// be written, what is in the file is still worth reading.
    async fn written(&self) {
        if let Err(error) = self.flush().await {
            tracing::debug!(source = ?error, "reading what is in the file");
        }
    }

    /// Reads for a request that waits to be admitted, unless by the time that a reader is free it
    /// is `known` from another request that asked the same.
    async fn look_up<T: Send + 'static>(
        &self,
        known: impl FnOnce() -> Option<T>,
        query: impl FnOnce(&Connection) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        // Waiting here is cheaper than in the pool, which tries a reader each time it is taken.
        let _turn = self.0.turns.acquire().await.map_err(StoreError::unavailable)?;
        if let Some(known) = known() {
            return Ok(known);
        }
        let answer = match self.0.look_ups.get().await {
            Ok(reader) => read(&reader, query).await,
            Err(error) => Err(StoreError::unavailable(error)),
        };
        answer.inspect_err(|error| self.0.core.damage.note(error))
    }

    /// Reads for a list, or for figures of all keys.
    async fn read<T: Send + 'static>(
        &self,
        query: impl FnOnce(&Connection) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let reader = self.0.pool.get().await.map_err(StoreError::unavailable)?;
        read(&reader, query).await
    }

    /// Reads for a report of all keys, of which few are made at once.
    async fn read_report<T: Send + 'static>(
        &self,
        query: impl FnOnce(&Connection) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let turn = timeout(REPORT_PATIENCE, self.0.reports.acquire()).await;
        let _turn = turn.map_err(StoreError::unavailable)?.map_err(StoreError::unavailable)?;
        self.read(query).await
    }

    /// Reads what one key's holder asks for.
    async fn read_of_key<T: Send + 'static>(
        &self,
        query: impl FnOnce(&Connection) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let reader = self.0.of_keys.get().await.map_err(StoreError::unavailable)?;
        read(&reader, query).await
    }
}

impl fmt::Debug for SqliteStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SqliteStore")
            .field("calendar", &self.0.core.calendar)
            .finish_non_exhaustive()
    }
}

/// Any failure of SQLite is a store that is unavailable.
fn unavailable(error: rusqlite::Error) -> StoreError {
    StoreError::unavailable(error)
}
