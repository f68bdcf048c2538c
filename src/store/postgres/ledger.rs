//! The engine's ledger in PostgreSQL: transactions, savepoints and maintenance on the writer's connection.

use std::{
    cell::RefCell,
    mem,
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use tokio::runtime::Handle;

use super::{
    address::Address,
    checkpoint::{self, Ending},
    core::Core,
    leases::Reported,
    reports::requests,
    session::{Error, Node, Session, Sessions},
    sql::{self, bytes, int, text},
};
use crate::store::engine::{
    Engine, Ledger, LedgerState, UnusedUnits,
    journal::{Commit, DatabaseId, Position, ReplayFrom},
    pending::PendingBatch,
    queue::Queue,
    retention::Retention,
};

/// Time after which counters of past periods are looked for.
const DELETION_INTERVAL: Duration = Duration::from_secs(600);

/// Tables of the database, on the writer's connection, with the row of this node.
pub(crate) struct Tables {
    pub(super) session: Session,
    pub(super) node: Node,
    pub(super) ending: RefCell<Ending>,
}

/// Ledger on the writer's connection.
pub(crate) struct PostgresLedger {
    runtime: Handle,
    address: Address,
    tables: Tables,
    sessions: Sessions,
    time_zone: String,
    /// Whether the connection is not used any more, as the end of its last transaction is not known.
    is_in_doubt: bool,
    /// State of the store that uses this ledger.
    core: Option<Arc<Core>>,
    retention: Retention,
    /// Time at which no counters of past periods were left.
    deleted_at: Instant,
}

impl PostgresLedger {
    /// Creates the ledger of the node with this id.
    pub(super) fn open(
        runtime: &Handle,
        address: &Address,
        session: Session,
        id: DatabaseId,
        time_zone: &str,
    ) -> Result<Self, Error> {
        let sessions = Sessions::draw(&session)?;
        let node = sessions.enter(&session, id, time_zone)?;
        Ok(Self {
            runtime: runtime.clone(),
            address: address.clone(),
            tables: Tables::new(session, node),
            sessions,
            time_zone: time_zone.to_owned(),
            is_in_doubt: false,
            core: None,
            retention: Retention::default(),
            deleted_at: Instant::now(),
        })
    }

    /// Sets the store that uses the ledger.
    pub(super) fn serving(mut self, core: Arc<Core>) -> Self {
        self.core = Some(core);
        self.watch_connection();
        self
    }

    /// Closes admission as soon as the connection has ended: another process may count from then on.
    fn watch_connection(&mut self) {
        let Some(core) = self.core.as_ref().map(Arc::downgrade) else { return };
        self.tables.session.on_end(move || {
            let Some(core) = core.upgrade() else { return };
            if core.queue.is_open() {
                core.queue.close();
                tracing::error!(
                    "connection to the database ended: rejecting requests until it is back"
                );
            }
        });
    }

    /// Returns whether the journal was written in other files than these.
    pub(super) fn has_other_files(&self, files: Option<&str>) -> Result<bool, Error> {
        let id = &self.tables.node.id.0[..];
        let sql = "SELECT files IS DISTINCT FROM $2 FROM nodes WHERE id = $1";
        let values = [bytes(&id), text(&files)];
        self.tables.run(async |client| sql::one(client, sql, &values).await?.try_get(0))
    }

    /// Notes the files in which the journal is written.
    pub(super) fn note_files(&self, files: Option<&str>) -> Result<(), Error> {
        let id = &self.tables.node.id.0[..];
        let sql = "UPDATE nodes SET files = $2 WHERE id = $1";
        let values = [bytes(&id), text(&files)];
        self.tables.run(async |client| sql::execute(client, sql, &values).await).map(drop)
    }

    pub(super) fn tables(&self) -> &Tables {
        &self.tables
    }

    /// Shows in the counters what all nodes have been granted.
    fn note_reported(&self, reported: Vec<Reported>) {
        let Some(core) = &self.core else { return };
        for Reported { key, day, lease } in reported {
            if let Some(counter) = core.engine.counter(&key) {
                counter.refresh_share(day, lease);
            }
        }
    }

    /// Deletes some counters of past periods, and their leases.
    fn delete_past_counters(&mut self, engine: &Engine, queue: &Queue<Self>) {
        if !queue.is_idle() || !queue.is_open() || self.deleted_at.elapsed() < DELETION_INTERVAL {
            return;
        }
        let days_ago = |days: u64| {
            let at = engine.clock.now().checked_sub(Duration::from_secs(days * 24 * 3600));
            engine.calendar.window(at.unwrap_or(SystemTime::UNIX_EPOCH)).day.to_string()
        };
        let (days, months) = (days_ago(2), days_ago(62));
        let sql = "SELECT delete_past_counters($1, $2)";
        let deleted = engine.transaction(self, |tables| {
            let values = [text(&days), text(&months)];
            tables.run(|client| async move { sql::one(client, sql, &values).await?.try_get(0) })
        });
        match deleted {
            // There may be more.
            Ok(1_i64..) => {}
            Ok(_) => self.deleted_at = Instant::now(),
            Err(error) => {
                self.deleted_at = Instant::now();
                tracing::warn!(%error, "deletion of past counters failed: trying again later");
            }
        }
    }
}

impl Tables {
    fn new(session: Session, node: Node) -> Self {
        Self { session, node, ending: RefCell::default() }
    }

    /// Runs statements, and waits for them.
    pub(super) fn run<'a, T, F: Future<Output = sql::Result<T>>>(
        &'a self,
        statements: impl FnOnce(&'a tokio_postgres::Client) -> F,
    ) -> Result<T, Error> {
        self.session.run(statements(&self.session.client))
    }
}

impl Ledger for PostgresLedger {
    // A checkpoint reports leases, which other nodes wait for.
    const MAX_INTERVAL: Duration = Duration::ZERO;

    type Tables = Tables;
    type Error = Error;

    fn transaction<T>(
        &mut self,
        number: u64,
        work: impl FnOnce(&Tables) -> Result<T, Error>,
    ) -> Result<(T, Commit), Error> {
        if self.is_in_doubt || self.tables.session.is_closed() {
            self.is_in_doubt = true;
            return Err(Error::Disconnected);
        }
        let tables = &self.tables;
        tables.ending.take();
        let done = tables.session.transaction(
            || {
                tables.node.note_commit(&tables.session, number)?;
                work(tables)
            },
            async |client| tables.ending.take().write(client, tables.node).await,
        );
        self.is_in_doubt = done.as_ref().err().is_some_and(|error| !error.is_response());
        let (done, reported) = done?;
        self.note_reported(reported);
        Ok((done, Commit { number, checkpointed: 0 }))
    }

    fn may_be_committed(error: &Error) -> bool {
        matches!(error, Error::CommitLost)
    }

    fn roll_back(&mut self) -> bool {
        self.tables.session.roll_back()
    }

    fn resume(&mut self) -> Result<LedgerState, Error> {
        if self.is_in_doubt || self.tables.session.is_closed() {
            let earlier = Some(self.tables.session.backend());
            let session = Session::open(&self.runtime, &self.address, earlier)?;
            let id = self.tables.node.id;
            let node = self.sessions.enter_again(&session, id, &self.time_zone)?;
            self.tables = Tables::new(session, node);
            if let Some(core) = &self.core {
                core.set_node(node);
            }
            self.is_in_doubt = false;
            self.watch_connection();
        }
        Self::state(&self.tables)
    }

    fn in_savepoint<T>(
        tables: &Tables,
        work: impl FnOnce(&Tables) -> Result<Option<T>, Error>,
    ) -> Result<Option<T>, Error> {
        tables.session.in_savepoint(|| work(tables))
    }

    fn state(tables: &Tables) -> Result<LedgerState, Error> {
        let id = &tables.node.id.0[..];
        let sql = r#"SELECT commits, segment, "offset", is_closed, boot FROM nodes WHERE id = $1"#;
        let row = tables.run(|client| async move { sql::one(client, sql, &[bytes(&id)]).await })?;
        let (segment, offset): (Option<i64>, Option<i64>) = (row.try_get(1)?, row.try_get(2)?);
        let is_closed = row.try_get(3)?;
        let replay_from = match (segment, offset) {
            (Some(segment), _) if is_closed => ReplayFrom::After(sql::count(segment)),
            (Some(segment), Some(offset)) => ReplayFrom::Position(Position {
                segment: sql::count(segment),
                offset: sql::count(offset),
            }),
            _ => ReplayFrom::Start,
        };
        Ok(LedgerState {
            database: tables.node.id,
            commits: sql::count(row.try_get(0)?),
            replay_from,
            boot: row.try_get(4)?,
        })
    }

    fn checkpoint(tables: &Tables, batch: &PendingBatch) -> Result<(), Error> {
        checkpoint::write(tables, batch)
    }

    fn end_leases(tables: &Tables, unused: UnusedUnits) -> Result<(), Error> {
        tables.ending.borrow_mut().leases.end_all(unused);
        Ok(())
    }

    fn fail_open_requests(tables: &Tables) -> Result<(), Error> {
        tables.ending.borrow_mut().fails_open_requests = true;
        Ok(())
    }

    fn set_boot(tables: &Tables, boot: Option<&str>) -> Result<(), Error> {
        let id = &tables.node.id.0[..];
        let sql = "UPDATE nodes SET boot = $2 WHERE id = $1";
        let values = [bytes(&id), text(&boot)];
        tables.session.run(sql::execute(&tables.session.client, sql, &values)).map(drop)
    }

    fn close_journal(tables: &Tables) -> Result<(), Error> {
        let id = &tables.node.id.0[..];
        // A trip that is still on its way to the server is granted nothing any more.
        let sql = "UPDATE nodes SET is_closed = true, session = 0 WHERE id = $1";
        tables.session.run(sql::execute(&tables.session.client, sql, &[bytes(&id)])).map(drop)
    }

    fn probe(tables: &Tables) -> Result<(), Error> {
        // The transaction has written the number of the commit.
        let one = 1_i64;
        let sql = "SELECT $1";
        tables.session.run(sql::execute(&tables.session.client, sql, &[int(&one)])).map(drop)
    }

    fn maintain(&mut self, engine: &Engine, queue: &Queue<Self>) {
        let mut retention = mem::take(&mut self.retention);
        retention.run(self, engine, queue, |tables, batch| {
            tables.run(|client| requests::delete_expired(client, batch))
        });
        self.retention = retention;
        self.delete_past_counters(engine, queue);
    }

    fn recovered(&mut self) {
        if let Some(core) = &self.core {
            core.keys.forget();
        }
    }
}
