//! [`PostgresStore`], which keeps keys and ledger in a PostgreSQL database.
//!
//! Any number of processes, on one or several machines, count in one database, each with its own journal. The
//! database grants each of them units within the limit (a lease), which it uses without a trip to the database; when
//! none is left there, the others are called upon to give back those that they have not used. So all together admit
//! exactly the limit.
//!
//! Counters are kept in memory, and each reservation is appended to the journal on a local disk before the request is
//! forwarded, as in [`SqliteStore`](super::sqlite::SqliteStore). A single thread checkpoints the journal into the
//! tables, in one transaction with the position up to which it was applied, so that each record counts once.
//! Everything else is in the database: keys, claims, reports and the audit trail.
//!
//! `api_keys` may be edited with `psql` while the process is running. Changes apply within a second; keys in
//! clear are replaced by their hashes in the statement that inserts them. Times are texts, and the function
//! `datetime('now')` is there.
//!
//! The clock of the database decides the day, for all processes. A process that is stopped keeps its units until it
//! is back with its journal: the others reject requests that need them with
//! [`Elsewhere`](super::ReserveOutcome::Elsewhere), for a short time each.
//!
//! If the journal or the database cannot be written, no requests are admitted until both are writable again. A
//! commit whose outcome is lost with its connection is looked up before the next one. PostgreSQL 13 or later is
//! needed, with UTF-8 as its encoding.

mod address;
#[cfg(feature = "admin")]
mod admin;
mod checkpoint;
mod clock;
mod columns;
mod core;
mod keys;
mod leases;
mod ledger;
mod listen;
mod meter;
pub(super) mod migration;
mod open;
mod options;
mod quota;
mod reports;
mod schema;
mod session;
mod sql;

use std::{error::Error, fmt, sync::Arc, time::Duration};

use deadpool_postgres::{Object, Pool};
use tokio_postgres::Client;
use tokio_postgres_rustls::MakeRustlsConnect;

#[cfg(feature = "admin")]
pub use self::admin::{nodes, release_node};
pub use self::{address::InvalidDatabaseUrl, options::PostgresOptions};
use self::{core::Core, ledger::PostgresLedger, listen::Listener};
use super::{
    StoreFuture,
    engine::{Ledger, Watchdog, Writer, gauges::NextCount, journal::Syncer},
    report::ReportPermits,
};
pub use super::{
    engine::Durability,
    open_error::{OpenError, OpenErrorKind},
};
use crate::error::StoreError;
#[cfg(feature = "admin")]
use crate::store::engine::journal::DatabaseId;

/// Age up to which a successful write counts as a probe.
const MAX_PROBE_AGE: Duration = Duration::from_secs(1);

/// Store in a PostgreSQL database, with a journal on a local disk. Clones share it.
///
/// ```no_run
/// use tower_quota::store::postgres::{PostgresOptions, PostgresStore};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let options = PostgresOptions::new("postgres://quota@localhost/quota", "/var/lib/quota/quota")?;
/// let store = PostgresStore::open(options).await?;
/// // … serve …
/// store.close().await?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct PostgresStore(Arc<Inner>);

struct Inner {
    core: Arc<Core>,
    /// Node of this process.
    #[cfg(feature = "admin")]
    node: DatabaseId,
    /// Connections for look-ups and reports.
    readers: Pool,
    /// TLS of the connections that cancel queries of readers.
    tls: MakeRustlsConnect,
    report_permits: ReportPermits,
    writer: Writer<PostgresLedger>,
    syncer: Syncer,
    watchdog: Watchdog,
    _listener: Listener,
    losses: Vec<String>,
    next_count: NextCount,
}

impl PostgresStore {
    /// Opens the database, creates or migrates its tables, and starts the writer thread. It must be called within a
    /// Tokio runtime, which the store needs as long as it is used.
    ///
    /// # Errors
    ///
    /// The database or the journal cannot be read or written, is in use by another process, or belongs to another
    /// program. After [`OpenErrorKind::Temporary`], another attempt may succeed.
    pub async fn open(options: PostgresOptions) -> Result<Self, OpenError> {
        open::open(options).await
    }

    /// Returns descriptions of the losses that were accepted when the store was opened, one sentence each.
    /// Empty unless [`PostgresOptions::accept_loss`] was set.
    pub fn losses(&self) -> &[String] {
        &self.0.losses
    }

    /// Waits until everything that was recorded before the call has been written to the database.
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

    /// Performs a write to check that the database is writable, unless one has succeeded within the last
    /// second.
    ///
    /// # Errors
    ///
    /// `Unavailable` if the database or the journal cannot be written.
    pub fn probe(&self) -> StoreFuture<()> {
        let core = &self.0.core;
        if core.engine.is_open().is_ok() && core.engine.was_written_within(MAX_PROBE_AGE) {
            return StoreFuture::ready(Ok(()));
        }
        core.queue.call(PostgresLedger::probe, |()| ())
    }

    /// Flushes the store before a read. If that fails, the read sees what is in the database.
    async fn flush_for_read(&self) {
        if let Err(error) = self.flush().await {
            tracing::debug!(source = ?error, "flush failed: reading the database without the latest changes");
        }
    }

    /// Returns a connection for reads.
    async fn reader(&self) -> Result<Object, StoreError> {
        self.0.readers.get().await.map_err(StoreError::unavailable)
    }

    /// Converts the failure of a look-up. If the database is damaged, nothing is admitted for a while.
    fn look_up_failed(&self, error: sql::Error) -> StoreError {
        let is_damage = sql::is_damage(&error);
        let error = unavailable(error);
        if is_damage {
            self.0.core.engine.damage.note(&error);
        }
        error
    }

    /// Runs `work` in the next transaction. The future is ready with the result once it is committed.
    fn write<T: Send + 'static>(
        &self,
        work: impl AsyncFnOnce(&Client) -> sql::Result<T> + Send + 'static,
    ) -> StoreFuture<T> {
        self.write_then(work, |_| ())
    }

    /// Runs `work` in the next transaction, and `after` once it is committed, before the future is ready.
    fn write_then<T: Send + 'static>(
        &self,
        work: impl AsyncFnOnce(&Client) -> sql::Result<T> + Send + 'static,
        after: impl FnOnce(&T) + Send + 'static,
    ) -> StoreFuture<T> {
        let run = move |tables: &ledger::Tables| tables.session.run(work(&tables.session.client));
        self.0.core.queue.call(run, after)
    }
}

impl fmt::Debug for PostgresStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PostgresStore")
            .field("calendar", &self.0.core.engine.calendar)
            .finish_non_exhaustive()
    }
}

/// Converts a failure of PostgreSQL to `Unavailable`.
fn unavailable(error: impl Into<Box<dyn Error + Send + Sync>>) -> StoreError {
    StoreError::unavailable(error)
}
