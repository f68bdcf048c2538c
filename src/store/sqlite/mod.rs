//! [`SqliteStore`], which keeps everything in one SQLite file for one process.
//!
//! Counters are kept in memory. Each reservation is appended to a journal beside the file before the
//! request is forwarded, by one short `write`, which survives the end of the process. To survive a
//! power failure without exceeding a limit, units are leased from the file in advance, and no
//! response is sent before its lease is synced; with [`Durability::Power`], each unit is synced. A
//! single thread checkpoints the journal into the tables, in one transaction for everything that is
//! pending. Queries use small pools of readers.
//!
//! `api_keys` may be edited with the `sqlite3` shell while the process is running. Changes apply
//! within a second, and keys in clear are replaced by their hashes when they are first seen.
//!
//! If the journal or the file cannot be written, no requests are admitted until both are writable
//! again. The file and its journal (`quota.db.journal.1`, …) belong together: copy both or neither.

#[cfg(feature = "admin")]
mod admin;
mod backup;
mod checkpoint;
mod core;
mod file;
mod keys;
mod ledger;
mod look_up;
mod meter;
mod quota;
mod reading;
mod reports;
mod rows;
mod schema;
mod start;

use std::{error::Error, fmt, sync::Arc, time::Duration};

use deadpool_sqlite::Pool;
use rusqlite::{Connection, ErrorCode};

pub use self::{
    backup::{
        BackupError, BackupErrorKind, IfExists, Restored, backup,
        inspect::{Inspection, inspect},
        progress::{OnProgress, Progress, ProgressStep},
        restore,
    },
    file::options::SqliteOptions,
};
#[cfg(feature = "postgres")]
pub(crate) use self::{
    backup::{
        ExactCopy, MIGRATION_PART, lock_for_migration, progress::Observer, with_canonical_path,
    },
    rows::text as text_of,
};
use self::{
    core::Core,
    file::{FileLock, options::classify, wal::Wal},
    ledger::SqliteLedger,
    look_up::LookUps,
    reading::read,
    start::Started,
};
use super::{
    StoreFuture,
    engine::{
        Engine, Ledger, Watchdog, Writer,
        gauges::NextCount,
        journal::{Disk, FileDisk, Syncer},
    },
    report::ReportPermits,
};
pub use super::{
    engine::Durability,
    open_error::{OpenError, OpenErrorKind},
};
use crate::error::StoreError;

/// Age up to which a successful write counts as a probe.
const MAX_PROBE_AGE: Duration = Duration::from_secs(1);

/// Store in a single SQLite file. Clones share it. It must be opened within a Tokio runtime.
///
/// ```
/// use tower_quota::store::sqlite::SqliteStore;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let directory = tempfile::tempdir()?;
/// # let path = directory.path().join("quota.db");
/// let store = SqliteStore::open(path)?;
/// // … serve …
/// store.close().await?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct SqliteStore(Arc<Inner>);

struct Inner {
    core: Arc<Core>,
    /// Readers for lists and for reports of all keys.
    list_readers: Pool,
    /// Readers for the usage of a single key, which must not wait for reports of all keys.
    key_readers: Pool,
    look_ups: LookUps,
    report_permits: ReportPermits,
    writer: Writer<SqliteLedger>,
    syncer: Syncer,
    watchdog: Watchdog,
    losses: Vec<String>,
    #[cfg(feature = "admin")]
    copies: admin::Copies,
    next_count: NextCount,
}

impl SqliteStore {
    /// Opens the file, creates or migrates its tables, and starts the writer thread. A path stands for
    /// [`SqliteOptions`] with their defaults.
    ///
    /// # Errors
    ///
    /// The file is in use by another process, cannot be read or written, or belongs to another
    /// program. After [`OpenErrorKind::Temporary`], another attempt may succeed.
    pub fn open(options: impl Into<SqliteOptions>) -> Result<Self, OpenError> {
        let options = options.into();
        let path = options.path.clone();
        let classified = |error| classify(error, || file::disk_is_full(&path));
        Self::try_open(options).map_err(classified)
    }

    fn try_open(mut options: SqliteOptions) -> Result<Self, OpenError> {
        if !options.accept_loss {
            // If the directory cannot be listed, opening the file fails below.
            let segments = FileDisk::beside(&options.path).segments().unwrap_or_default();
            file::look_for_orphans(&options.path, &segments)?;
        }
        options.path = file::create(&options.path)?;
        let lock = FileLock::take(&options.path)?;
        backup::remove_unfinished(&options.path);
        let disk = Box::new(FileDisk::beside(&options.path));
        let examined = start::examine(&*disk, &options)?;
        let mut ledger = SqliteLedger::new(file::open_writer(&options)?);
        let list_readers = file::open_readers(&options)?;
        let key_readers = file::open_readers(&options)?;
        let look_ups = LookUps::new(file::open_readers(&options)?);
        let Started { journal, losses, checkpointed } =
            start::start(&mut ledger, disk, &options, examined)?;
        file::keep_wal(ledger.connection(), false)
            .map_err(|error| OpenError::because("SQLite could not be set up", error))?;
        let wal = Wal::open(&options.path, checkpointed)
            .map_err(|error| OpenError::because("the WAL cannot be opened", error))?;
        let core = Arc::new(Core::new(&options, Engine::new(options.engine(), journal)));
        let (engine, queue) = (core.engine.clone(), core.queue.clone());
        let journal = engine.journal.clone();
        let syncer = Syncer::start(journal.clone()).map_err(OpenError::thread)?;
        let ledger = ledger.serving(core.clone(), wal);
        let writer = Writer::start(engine, queue, ledger).map_err(OpenError::thread)?;
        let watchdog = Watchdog::start(journal, move || lock.is_in_place());
        let watchdog = watchdog.map_err(OpenError::thread)?;
        let inner = Inner {
            core,
            list_readers,
            key_readers,
            look_ups,
            report_permits: ReportPermits::new(file::READERS),
            writer,
            syncer,
            watchdog,
            losses,
            #[cfg(feature = "admin")]
            copies: admin::Copies::new(options),
            next_count: NextCount::new(),
        };
        Ok(Self(Arc::new(inner)))
    }

    /// Returns descriptions of the losses that were accepted when the file was opened, one sentence each.
    /// Empty unless [`SqliteOptions::accept_loss`] was set.
    pub fn losses(&self) -> &[String] {
        &self.0.losses
    }

    /// Waits until everything that was recorded before the call has been written to the file.
    pub fn flush(&self) -> StoreFuture<()> {
        self.0.core.queue.call(|_| Ok(()), |()| ())
    }

    /// Flushes the store and stops the writer thread. Later reservations fail.
    ///
    /// # Errors
    ///
    /// `Unavailable` if the flush failed.
    pub async fn close(&self) -> Result<(), StoreError> {
        let flushed = self.flush().await;
        let store = self.0.clone();
        // Joining the thread would block this worker of the runtime.
        let stopped = tokio::task::spawn_blocking(move || store.writer.stop()).await;
        stopped.map_err(StoreError::unavailable)?;
        flushed
    }

    /// Whether all threads of the store are still running. `false` means that only a restart of the
    /// process helps; a store that recovers by itself is alive.
    pub fn is_alive(&self) -> bool {
        let Inner { writer, syncer, watchdog, .. } = &*self.0;
        writer.is_alive() && syncer.is_alive() && watchdog.is_alive()
    }

    /// Performs a write to check that the file is writable, unless one has succeeded within the last
    /// second.
    ///
    /// # Errors
    ///
    /// `Unavailable` if the file or its journal cannot be written.
    pub fn probe(&self) -> StoreFuture<()> {
        let core = &self.0.core;
        if let Err(error) = core.engine.damage.check() {
            return StoreFuture::ready(Err(error));
        }
        if core.engine.is_open().is_ok() && core.engine.was_written_within(MAX_PROBE_AGE) {
            return StoreFuture::ready(Ok(()));
        }
        core.queue.call(SqliteLedger::probe, |()| ())
    }

    /// Flushes the store before a read. If that fails, the read sees what is in the file.
    async fn flush_for_read(&self) {
        if let Err(error) = self.flush().await {
            tracing::debug!(source = ?error, "flush failed: reading the file without the latest changes");
        }
    }

    /// Runs a query once a reader is available, unless `cached` then returns the value that a concurrent
    /// request has read.
    async fn look_up<T: Send + 'static>(
        &self,
        cached: impl FnOnce() -> Option<T>,
        query: impl FnOnce(&Connection) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        self.0.look_ups.run(cached, query).await.inspect_err(|error| {
            if is_damage(error) {
                self.0.core.engine.damage.note(error);
            }
        })
    }

    /// Runs a query for a list or a report of all keys.
    async fn read<T: Send + 'static>(
        &self,
        query: impl FnOnce(&Connection) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let reader = self.0.list_readers.get().await.map_err(StoreError::unavailable)?;
        read(&reader, query).await
    }

    /// Runs a query for a report of all keys, once a permit is available.
    async fn read_report<T: Send + 'static>(
        &self,
        query: impl FnOnce(&Connection) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let _permit = self.0.report_permits.acquire().await?;
        self.read(query).await
    }

    /// Runs a query for the holder of a key.
    async fn read_of_key<T: Send + 'static>(
        &self,
        query: impl FnOnce(&Connection) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let reader = self.0.key_readers.get().await.map_err(StoreError::unavailable)?;
        read(&reader, query).await
    }
}

impl fmt::Debug for SqliteStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SqliteStore")
            .field("calendar", &self.0.core.engine.calendar)
            .finish_non_exhaustive()
    }
}

/// Converts a failure of SQLite to `Unavailable`.
fn unavailable(error: rusqlite::Error) -> StoreError {
    StoreError::unavailable(error)
}

/// Returns whether a read has failed because the file is damaged.
fn is_damage(error: &StoreError) -> bool {
    use ErrorCode::{DatabaseCorrupt, NotADatabase, SystemIoFailure};
    let source = error.source().and_then(|source| source.downcast_ref::<rusqlite::Error>());
    let code = source.and_then(rusqlite::Error::sqlite_error_code);
    code.is_some_and(|code| [DatabaseCorrupt, NotADatabase, SystemIoFailure].contains(&code))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_store_whose_writer_has_ended_is_not_alive() {
        let dir = tempfile::tempdir().unwrap();
        let store = SqliteStore::open(SqliteOptions::new(dir.path().join("quota.db"))).unwrap();
        assert!(store.is_alive());
        store.0.core.queue.stop();
        while store.is_alive() {
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test]
    async fn a_store_that_was_closed_is_as_it_should_be() {
        let dir = tempfile::tempdir().unwrap();
        let store = SqliteStore::open(SqliteOptions::new(dir.path().join("quota.db"))).unwrap();
        store.close().await.unwrap();
        assert!(store.is_alive());
    }
}
