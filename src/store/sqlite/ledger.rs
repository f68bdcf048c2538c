//! The engine's ledger in SQLite: transactions, savepoints and maintenance on the writer's connection.

use std::{
    mem,
    sync::Arc,
    time::{Duration, Instant},
};

use rusqlite::Connection;

use super::{
    checkpoint,
    core::Core,
    file::{WRITE_BUSY_TIMEOUT, wal::Wal},
    keys::adopt,
    reports::requests,
};
use crate::store::engine::{
    Engine, Ledger, LedgerState, UnusedUnits, journal::Commit, pending::PendingBatch, queue::Queue,
    retention::Retention,
};

/// Interval between two checks of `api_keys` for edits by other programs.
const EDIT_CHECK_INTERVAL: Duration = Duration::from_millis(500);

/// Ledger on the writer's connection.
pub(super) struct SqliteLedger {
    connection: Connection,
    /// WAL of a database in a file.
    wal: Option<Wal>,
    /// State of the store that uses this ledger.
    core: Option<Arc<Core>>,
    /// `PRAGMA data_version` at the last check.
    data_version: Option<i64>,
    edits_checked_at: Option<Instant>,
    retention: Retention,
    /// Whether the WAL may contain keys in clear text.
    scrub: bool,
}

impl SqliteLedger {
    pub(super) fn new(connection: Connection) -> Self {
        Self {
            connection,
            wal: None,
            core: None,
            data_version: None,
            edits_checked_at: None,
            retention: Retention::default(),
            scrub: true,
        }
    }

    /// Sets the WAL of the database file and the store that uses the ledger.
    pub(super) fn serving(self, core: Arc<Core>, wal: Wal) -> Self {
        Self { core: Some(core), wal: Some(wal), ..self }
    }

    pub(super) fn connection(&self) -> &Connection {
        &self.connection
    }

    /// Checks for changes by other processes, and adopts keys that were entered in clear text.
    fn check_edits(&mut self, core: &Core, queue: &Queue<Self>) {
        let is_due = self.edits_checked_at.is_none_or(|at| at.elapsed() >= EDIT_CHECK_INTERVAL);
        if !is_due || !queue.is_open() {
            return;
        }
        self.edits_checked_at = Some(Instant::now());
        if let Err(error) = self.try_check_edits(core) {
            tracing::warn!(%error, "check for edited keys failed: trying again later");
        }
    }

    fn try_check_edits(&mut self, core: &Core) -> rusqlite::Result<()> {
        let version = self.connection.query_row("PRAGMA data_version", [], |row| row.get(0))?;
        if self.data_version != Some(version) {
            core.keys.forget();
            if adopt::is_needed(&self.connection)? {
                let defaults = core.default_limits;
                let adopted =
                    core.engine.transaction(self, |connection| adopt::all(connection, defaults))?;
                tracing::info!(adopted, "keys in clear text found: replaced them by hashes");
                core.keys.forget();
            }
            self.scrub = true;
            self.data_version = Some(version);
        }
        self.scrub_wal()
    }

    /// Truncates the WAL, which may contain keys in clear text. Does not wait for readers that still use
    /// it; the next check tries again.
    fn scrub_wal(&mut self) -> rusqlite::Result<()> {
        if self.scrub {
            self.connection.busy_timeout(Duration::ZERO)?;
            let sql = "PRAGMA wal_checkpoint(TRUNCATE)";
            let busy = self.connection.query_row(sql, [], |row| row.get::<_, i64>(0));
            self.connection.busy_timeout(WRITE_BUSY_TIMEOUT)?;
            if let Some(wal) = &mut self.wal {
                wal.note_length();
            }
            self.scrub = busy? != 0;
        }
        Ok(())
    }
}

impl Ledger for SqliteLedger {
    // With the checkpoint itself, what other programs read is at most five seconds old.
    const MAX_INTERVAL: Duration = Duration::from_secs(3);

    type Tables = Connection;
    type Error = rusqlite::Error;

    fn transaction<T>(
        &mut self,
        number: u64,
        work: impl FnOnce(&Connection) -> rusqlite::Result<T>,
    ) -> rusqlite::Result<(T, Commit)> {
        if let Some(wal) = &mut self.wal {
            wal.check(number - 1)?;
        }
        let done = transaction(&self.connection, || {
            let done = work(&self.connection)?;
            checkpoint::write_commit(&self.connection, number)?;
            Ok(done)
        })?;
        let commit = match &mut self.wal {
            Some(wal) => wal.note_commit(number),
            None => Commit { number, checkpointed: 0 },
        };
        Ok((done, commit))
    }

    fn roll_back(&mut self) -> bool {
        if self.connection.is_autocommit() {
            return false;
        }
        // If this fails, the next transaction fails as well, and nothing is admitted.
        let _ = self.connection.execute_batch("ROLLBACK");
        true
    }

    fn resume(&mut self) -> rusqlite::Result<LedgerState> {
        Self::state(&self.connection)
    }

    fn in_savepoint<T>(
        connection: &Connection,
        work: impl FnOnce(&Connection) -> rusqlite::Result<Option<T>>,
    ) -> rusqlite::Result<Option<T>> {
        in_savepoint(connection, work)
    }

    fn state(connection: &Connection) -> rusqlite::Result<LedgerState> {
        let (database, commits) = checkpoint::read_identity(connection)?;
        Ok(LedgerState {
            database,
            commits,
            replay_from: checkpoint::read_position(connection)?,
            boot: checkpoint::read_boot(connection)?,
        })
    }

    fn checkpoint(connection: &Connection, batch: &PendingBatch) -> rusqlite::Result<()> {
        checkpoint::write(connection, batch)
    }

    fn end_leases(connection: &Connection, unused: UnusedUnits) -> rusqlite::Result<()> {
        match unused {
            UnusedUnits::Returned => checkpoint::return_leases(connection),
            UnusedUnits::Spent => checkpoint::spend_leases(connection),
        }
    }

    fn fail_open_requests(connection: &Connection) -> rusqlite::Result<()> {
        checkpoint::fail_open_requests(connection)
    }

    fn set_boot(connection: &Connection, boot: Option<&str>) -> rusqlite::Result<()> {
        checkpoint::write_boot(connection, boot)
    }

    fn close_journal(connection: &Connection) -> rusqlite::Result<()> {
        checkpoint::close_journal(connection)
    }

    fn probe(connection: &Connection) -> rusqlite::Result<()> {
        connection.execute("UPDATE probe SET count = count + 1", []).map(drop)
    }

    fn maintain(&mut self, engine: &Engine, queue: &Queue<Self>) {
        let Some(core) = self.core.clone() else { return };
        self.check_edits(&core, queue);
        let mut retention = mem::take(&mut self.retention);
        retention.run(self, engine, queue, requests::delete_expired);
        self.retention = retention;
    }

    /// Checkpoints a removed or replaced WAL into the database. Its commits can only be read
    /// through this connection.
    fn failed(&mut self) {
        if self.wal.as_ref().is_some_and(|wal| !wal.is_in_place()) {
            let moved = self.connection.execute_batch("PRAGMA wal_checkpoint(PASSIVE)");
            if let Err(error) = moved {
                tracing::debug!(%error, "checkpoint failed: commits are in the removed WAL only");
            }
        }
    }

    fn recovered(&mut self) {
        if let Some(core) = &self.core {
            core.keys.forget();
        }
    }
}

/// Runs `work` in one transaction.
pub(super) fn transaction<T>(
    connection: &Connection,
    work: impl FnOnce() -> rusqlite::Result<T>,
) -> rusqlite::Result<T> {
    connection.execute_batch("BEGIN IMMEDIATE")?;
    let done = work().and_then(|done| {
        connection.execute_batch("COMMIT")?;
        Ok(done)
    });
    if done.is_err() && !connection.is_autocommit() {
        // A failure of the rollback can be ignored: the transaction is not committed either way.
        let _ = connection.execute_batch("ROLLBACK");
    }
    done
}

/// Runs a part of a transaction in a savepoint, and rolls it back if `work` returns `None` or violates a
/// constraint.
pub(super) fn in_savepoint<T>(
    connection: &Connection,
    work: impl FnOnce(&Connection) -> rusqlite::Result<Option<T>>,
) -> rusqlite::Result<Option<T>> {
    connection.execute_batch("SAVEPOINT part")?;
    let done = match work(connection) {
        Ok(done) => done,
        Err(error) if is_database_failure(&error) => return Err(error),
        Err(error) => {
            tracing::error!(%error, "part of a transaction failed: rolled back to its savepoint");
            None
        }
    };
    if done.is_none() {
        connection.execute_batch("ROLLBACK TO part")?;
    }
    connection.execute_batch("RELEASE part")?;
    Ok(done)
}

/// Returns whether the error is one of the database, not a violated constraint of the job.
fn is_database_failure(error: &rusqlite::Error) -> bool {
    error.sqlite_error_code().is_some_and(|code| code != rusqlite::ErrorCode::ConstraintViolation)
}

#[cfg(all(test, not(model)))]
mod simulation {
    use super::*;
    use crate::{
        clock::Day,
        key::KeyId,
        store::{
            counter::{Count, CounterKey},
            engine::simulation::{SimLedger, run_seeds},
            sqlite::{rows, schema},
        },
    };

    impl SimLedger for SqliteLedger {
        fn create(keys: &[KeyId], mut commits: impl FnMut() -> bool + Send + 'static) -> Self {
            let connection = Connection::open_in_memory().unwrap();
            assert!(schema::migrate(&connection).is_ok());
            for key in keys {
                let sql = "INSERT OR IGNORE INTO api_keys (id, key, key_hash) VALUES (?1, ?1, ?1)";
                connection.execute(sql, [key.as_str()]).unwrap();
            }
            connection.commit_hook(Some(move || !commits())).unwrap();
            Self::new(connection)
        }

        fn tables(&self) -> &Connection {
            &self.connection
        }

        fn load(connection: &Connection, key: &CounterKey, day: Day) -> Count {
            rows::read_count(connection, key, day).unwrap()
        }

        fn reset(connection: &Connection, key: &CounterKey, day: Day) -> rusqlite::Result<u32> {
            checkpoint::write_reset(connection, key, day)
        }

        fn requests(connection: &Connection) -> u64 {
            let sql = "SELECT coalesce(sum(requests), 0) FROM usage_totals";
            connection.query_row(sql, [], |row| row.get(0)).unwrap()
        }
    }

    #[test]
    fn every_promise_holds_in_whatever_order_things_happen() {
        run_seeds::<SqliteLedger>();
    }
}
