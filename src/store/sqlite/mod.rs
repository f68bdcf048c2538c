//! [`SqliteStore`]: one SQLite file, for one process.
//!
//! Counters live in memory and one writer thread makes them durable: a unit is taken in memory and
//! queued, and all that is queued is written in one transaction (group commit). Readers use a small
//! pool beside it. `api_keys` may be edited with the `sqlite3` shell while the process runs; its
//! rows are honoured within a second, and keys typed in clear are hashed on first sight.
//!
//! If a write fails, nothing more is admitted until a write succeeds again; the counters are then
//! read back from the file.

mod admin;
mod adopt;
mod audit;
mod changes;
mod core;
mod file;
mod keys;
mod ops;
mod options;
mod queue;
mod quota;
mod rows;
mod schema;
mod usage;
mod writer;

use std::{fmt, sync::Arc};

use deadpool_sqlite::Pool;
use rusqlite::Connection;

pub use self::options::{Durability, OpenError, SqliteOptions};
use self::{core::Core, file::FileLock, writer::Writer};
use super::StoreFuture;
use crate::error::StoreError;

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
    /// For reports and lists.
    pool: Pool,
    /// For keys and counters, which must not wait behind reports.
    look_ups: Pool,
    writer: Writer,
    _lock: FileLock,
}

impl SqliteStore {
    /// Opens the file, makes or migrates its tables, and starts the writer thread.
    ///
    /// # Errors
    ///
    /// When another process has it open, or it cannot be read and written, or it was made by
    /// another program.
    pub fn open(mut options: SqliteOptions) -> Result<Self, OpenError> {
        options.path = file::create(&options.path)?;
        let lock = FileLock::take(&options.path)?;
        let connection = file::open_writer(&options)?;
        let pool = file::open_readers(&options)?;
        let look_ups = file::open_readers(&options)?;
        let core = Arc::new(Core::new(&options));
        let writer = Writer::start(core.clone(), connection).map_err(OpenError::thread)?;
        Ok(Self(Arc::new(Inner { core, pool, look_ups, writer, _lock: lock })))
    }

    /// Waits until all that was recorded before the call is in the file.
    pub fn flush(&self) -> StoreFuture<()> {
        self.0.core.queue.call(|_| Ok(()), || ())
    }

    /// Writes what is left and stops the writer thread. Requests that come later are refused.
    ///
    /// # Errors
    ///
    /// What was left could not be written.
    pub async fn close(&self) -> Result<(), StoreError> {
        let flushed = self.flush().await;
        self.0.writer.stop();
        flushed
    }

    /// Waits until what was recorded before is in the file, so that it can be read. While it cannot
    /// be written, what is in the file is still worth reading.
    async fn written(&self) {
        if let Err(error) = self.flush().await {
            tracing::debug!(source = ?error, "reading what is in the file");
        }
    }

    /// Reads for a request that waits to be admitted.
    fn look_up<T: Send + 'static>(
        &self,
        query: impl FnOnce(&Connection) -> Result<T, StoreError> + Send + 'static,
    ) -> impl Future<Output = Result<T, StoreError>> + Send + 'static {
        read(self.0.look_ups.clone(), query)
    }

    /// Reads for a report.
    fn read<T: Send + 'static>(
        &self,
        query: impl FnOnce(&Connection) -> Result<T, StoreError> + Send + 'static,
    ) -> impl Future<Output = Result<T, StoreError>> + Send + 'static {
        read(self.0.pool.clone(), query)
    }
}

async fn read<T: Send + 'static>(
    pool: Pool,
    query: impl FnOnce(&Connection) -> Result<T, StoreError> + Send + 'static,
) -> Result<T, StoreError> {
    let reader = pool.get().await.map_err(StoreError::unavailable)?;
    let answer = reader.interact(move |connection| query(connection)).await;
    answer.map_err(|error| StoreError::unavailable(error.to_string()))?
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
