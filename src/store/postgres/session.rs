//! The writer's connection.

use std::{cell::Cell, error, fmt, future::Future, time::Duration};

use futures_util::future;
use tokio::{runtime::Handle, sync::oneshot, task::AbortHandle, time::timeout};
use tokio_postgres::Client;

use super::{
    address::Address,
    sql::{self, bytes, int, int4, text},
};
use crate::store::engine::journal::DatabaseId;

/// Time for which a statement of the writer may take.
const STATEMENT_TIMEOUT: Duration = Duration::from_secs(10);
/// Makes the server notice within half a minute that the machine is gone, so that another process can take over.
const KEEPALIVE: &str = "SET tcp_keepalives_idle = 10; SET tcp_keepalives_interval = 5;
    SET tcp_keepalives_count = 3; SET tcp_user_timeout = 25000";
/// Begins a transaction whose statements wait for a bounded time. If the process is stopped within it, others do not wait
/// for its end.
const BEGIN: &str = "BEGIN; SET LOCAL statement_timeout = '8s'; SET LOCAL lock_timeout = '2s';
    SET LOCAL idle_in_transaction_session_timeout = '1s'";

/// Error of the writer's connection.
#[derive(Debug)]
pub(crate) enum Error {
    /// The server has rejected a statement, or the connection is lost.
    Sql(sql::Error),
    /// The server does not respond.
    Timeout,
    /// The connection was lost, or did not respond, during a commit.
    CommitLost,
    /// There is no connection since the last failure.
    Disconnected,
    /// Another process counts with the same journal.
    Displaced,
    /// The database has forgotten commits that it has confirmed.
    Behind {
        /// Number of the last commit that it has.
        has: u64,
        /// Number of the last commit that it has confirmed.
        confirmed: u64,
    },
    /// Another process counts with the same journal, or with a copy of it.
    Occupied,
    /// The node of the journal was given up.
    Released {
        /// Number of the node.
        node: i32,
    },
    /// Other nodes count the days in another time zone.
    TimeZone {
        /// Time zone of this node.
        own: String,
        /// Time zone of the others.
        others: String,
    },
}

impl Error {
    /// Returns whether it is a response of the server, after which the connection can be used.
    pub(super) fn is_response(&self) -> bool {
        match self {
            Self::Sql(error) => error.as_db_error().is_some(),
            Self::Displaced
            | Self::Behind { .. }
            | Self::Occupied
            | Self::Released { .. }
            | Self::TimeZone { .. } => true,
            Self::Timeout | Self::CommitLost | Self::Disconnected => false,
        }
    }
}

impl From<sql::Error> for Error {
    fn from(error: sql::Error) -> Self {
        Self::Sql(error)
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sql(error) => match (error.as_db_error(), error::Error::source(error)) {
                (Some(error), _) => write!(f, "{error}"),
                (None, Some(source)) => write!(f, "{error}: {source}"),
                (None, None) => write!(f, "{error}"),
            },
            Self::Timeout => f.write_str("the database server does not respond"),
            Self::CommitLost => {
                f.write_str("the connection to the database was lost during a commit")
            }
            Self::Disconnected => f.write_str("the connection to the database is lost"),
            Self::Displaced => f.write_str("another process has taken over this journal"),
            Self::Behind { has, confirmed } => write!(
                f,
                "the database ends with commit {has} of this journal, and has confirmed commit {confirmed}: \
                 it was replaced by an older one, or by a replica that lacks the last commits"
            ),
            Self::Occupied => {
                f.write_str("another process counts with this journal, or with a copy of it")
            }
            Self::Released { node } => write!(
                f,
                "this journal belongs to node {node}, which was released: what it held counts as used, and its \
                 records are not accepted any more; start with a new journal, at another path or with the files \
                 of this one moved away"
            ),
            Self::TimeZone { own, others } => write!(
                f,
                "other gateways count the days of {others} in the database, and this one those of {own}: all need \
                 the same time zone"
            ),
        }
    }
}

impl error::Error for Error {
    fn source(&self) -> Option<&(dyn error::Error + 'static)> {
        match self {
            Self::Sql(error) => Some(error),
            _ => None,
        }
    }
}

/// Connection of the writer, whose thread waits for each statement.
pub(crate) struct Session {
    runtime: Handle,
    pub(super) client: Client,
    /// Process of the server that serves the connection.
    backend: i32,
    /// Completes when the connection has ended.
    ended: Option<oneshot::Receiver<()>>,
    /// Task that waits for this.
    watch: Option<AbortHandle>,
    is_in_transaction: Cell<bool>,
}

impl Session {
    /// Connects. `earlier` is the server's process of the connection before, which is ended: a statement of it may
    /// still wait there, and would be committed later.
    pub(super) fn open(
        runtime: &Handle,
        address: &Address,
        earlier: Option<i32>,
    ) -> Result<Self, Error> {
        let connect = async {
            let (client, connection) = address.config.connect(address.tls.clone()).await?;
            let (is_connected, ended) = oneshot::channel();
            runtime.spawn(async move {
                if let Err(error) = connection.await {
                    tracing::debug!(%error, "writer's connection to the database ended");
                }
                drop::<oneshot::Sender<()>>(is_connected);
            });
            client.batch_execute(KEEPALIVE).await?;
            let sql = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
                WHERE pid = $1 AND usename = current_user AND pid <> pg_backend_pid()";
            sql::query(&client, sql, &[int(&earlier.map(i64::from))]).await?;
            let row = sql::one(&client, "SELECT pg_backend_pid()", &[]).await?;
            let backend = row.try_get(0)?;
            Ok((client, backend, ended))
        };
        let connected = runtime.block_on(async { timeout(STATEMENT_TIMEOUT, connect).await });
        let (client, backend, ended): (Client, i32, oneshot::Receiver<()>) =
            connected.map_err(|_| Error::Timeout)?.map_err(Error::Sql)?;
        let runtime = runtime.clone();
        Ok(Self {
            runtime,
            client,
            backend,
            ended: Some(ended),
            watch: None,
            is_in_transaction: Cell::new(false),
        })
    }

    /// Runs a few statements, and waits for them.
    pub(super) fn run<T>(
        &self,
        statements: impl Future<Output = sql::Result<T>>,
    ) -> Result<T, Error> {
        self.run_within(STATEMENT_TIMEOUT, statements)
    }

    /// Runs statements, and waits for them within this time.
    pub(super) fn run_within<T>(
        &self,
        time: Duration,
        statements: impl Future<Output = sql::Result<T>>,
    ) -> Result<T, Error> {
        let done = self.runtime.block_on(async { timeout(time, statements).await });
        Ok(done.map_err(|_| Error::Timeout)??)
    }

    /// Calls `on_end` as soon as the connection has ended, unless the session is dropped before.
    pub(super) fn on_end(&mut self, on_end: impl FnOnce() + Send + 'static) {
        if let Some(ended) = self.ended.take() {
            let watch = self.runtime.spawn(async move {
                let _ = ended.await;
                on_end();
            });
            self.watch = Some(watch.abort_handle());
        }
    }

    pub(super) fn backend(&self) -> i32 {
        self.backend
    }

    pub(super) fn is_closed(&self) -> bool {
        self.client.is_closed()
    }

    /// Runs `work` in one transaction, and its `last` statements together with the commit, so that what they lock does
    /// not stay locked if the process is stopped.
    pub(super) fn transaction<T, R>(
        &self,
        work: impl FnOnce() -> Result<T, Error>,
        last: impl AsyncFnOnce(&Client) -> sql::Result<R>,
    ) -> Result<(T, R), Error> {
        self.run(self.client.batch_execute(BEGIN))?;
        self.is_in_transaction.set(true);
        let done = work().and_then(|done| {
            // Both are sent before the first is waited for.
            let end = async {
                future::join(last(&self.client), self.client.batch_execute("COMMIT")).await
            };
            let ended = self.run(async { Ok(end.await) });
            self.is_in_transaction.set(false);
            let failed = |error: Error| match error.is_response() {
                true => error,
                false => Error::CommitLost,
            };
            let (last, committed) = ended.map_err(failed)?;
            // After a statement that has failed, the commit rolls back.
            let last = last.map_err(|error| failed(error.into()))?;
            committed.map_err(|error| failed(error.into()))?;
            Ok((done, last))
        });
        if done.is_err() {
            self.roll_back();
        }
        done
    }

    /// Rolls back an open transaction. Returns whether one was open.
    pub(super) fn roll_back(&self) -> bool {
        // If this fails, the connection is lost, and so is the transaction.
        self.is_in_transaction.replace(false) && {
            let _ = self.run(self.client.batch_execute("ROLLBACK"));
            true
        }
    }

    /// Runs a part of a transaction in a savepoint, and rolls it back if `work` returns `None` or fails because of its
    /// own rows.
    pub(super) fn in_savepoint<T>(
        &self,
        work: impl FnOnce() -> Result<Option<T>, Error>,
    ) -> Result<Option<T>, Error> {
        self.run(self.client.batch_execute("SAVEPOINT part"))?;
        let done = match work() {
            Ok(done) => done,
            Err(Error::Sql(error)) if sql::is_of_rows(&error) => {
                tracing::error!(%error, "part of a transaction failed: rolled back to its savepoint");
                None
            }
            Err(error) => return Err(error),
        };
        let end = if done.is_none() { "ROLLBACK TO part; RELEASE part" } else { "RELEASE part" };
        self.run(self.client.batch_execute(end))?;
        Ok(done)
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        // The end of a connection that has been replaced changes nothing.
        if let Some(watch) = &self.watch {
            watch.abort();
        }
    }
}

/// The row of a node in `nodes`, as this process has left it.
#[derive(Clone, Copy)]
pub(super) struct Node {
    pub(super) id: DatabaseId,
    /// Short number of the node.
    pub(super) number: i32,
    /// Number of the connection, with which all statements of other ones are rejected.
    pub(super) session: i64,
}

/// Numbers of the connections of this process, up to the last one that it has tried. No other process has them, so
/// that an entry whose response was lost is known as its own.
pub(super) struct Sessions {
    first: i64,
    last: i64,
}

impl Sessions {
    /// Draws the numbers of a process.
    ///
    /// # Errors
    ///
    /// The query fails.
    pub(super) fn draw(session: &Session) -> Result<Self, Error> {
        // At least 2^32, and no process has 2^32 connections.
        let query = "SELECT (1 + floor(random() * 2147483646)::bigint) << 32";
        let first =
            session.run(async { sql::one(&session.client, query, &[]).await?.try_get(0) })?;
        Ok(Self { first, last: first })
    }

    /// Enters with the first number, whichever process was the last.
    pub(super) fn enter(
        &self,
        session: &Session,
        id: DatabaseId,
        time_zone: &str,
    ) -> Result<Node, Error> {
        Node::enter(session, id, self.first, None, time_zone)
    }

    /// Enters with the next number, unless another process has entered with this journal, and may have counted.
    pub(super) fn enter_again(
        &mut self,
        session: &Session,
        id: DatabaseId,
        time_zone: &str,
    ) -> Result<Node, Error> {
        self.last += 1;
        Node::enter(session, id, self.last, Some(self.first), time_zone)
    }
}

/// First part of the advisory lock of a process that counts with a node's journal. The second is the node's number.
const COUNTS: i32 = 0x7471_0001;
/// First part of the advisory lock that trips to the ledger share, and that excludes them while a process enters.
pub(super) const TRIPS: i32 = 0x7471_0002;
/// Condition for a row `n` of `nodes`: its process is connected, and holds the lock.
#[cfg(feature = "admin")]
pub(super) const IS_CONNECTED: &str =
    "EXISTS (SELECT FROM pg_locks WHERE locktype = 'advisory' AND granted AND objsubid = 2
        AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
        AND classid::bigint = x'74710001'::bigint AND objid::bigint = n.number)";

impl Node {
    /// Makes the session, of this number, the only one that counts with this journal. With `first`, the last one must
    /// have had a number from there on.
    fn enter(
        session: &Session,
        id: DatabaseId,
        number: i64,
        first: Option<i64>,
        time_zone: &str,
    ) -> Result<Self, Error> {
        let client = &session.client;
        let id_bytes = &id.0[..];
        let entered = session.run(async {
            let sql = "INSERT INTO nodes (id)
                SELECT $1 WHERE NOT EXISTS (SELECT 1 FROM nodes WHERE id = $1) ON CONFLICT DO NOTHING";
            sql::execute(client, sql, &[bytes(&id_bytes)]).await?;
            let sql = "SELECT number, pg_try_advisory_lock($2, number) FROM nodes WHERE id = $1";
            let row = sql::one(client, sql, &[bytes(&id_bytes), int4(&COUNTS)]).await?;
            let (node, is_free): (i32, bool) = (row.try_get(0)?, row.try_get(1)?);
            let sql = "SELECT time_zone FROM nodes
                WHERE number <> $1 AND NOT is_closed AND time_zone <> $2 LIMIT 1";
            let values = [int4(&node), text(&time_zone)];
            let others = sql::optional(client, sql, &values).await?;
            Ok((node, is_free, others.map(|row| row.try_get(0)).transpose()?))
        });
        let (node, is_free, others): (i32, bool, Option<String>) = entered?;
        if !is_free {
            return Err(Error::Occupied);
        }
        if let Some(others) = others {
            return Err(Error::TimeZone { own: time_zone.to_owned(), others });
        }
        // Trips of the session before end first, as they change the leases that are read next.
        let sql = "WITH trips AS MATERIALIZED (SELECT pg_advisory_xact_lock($4, $5))
            UPDATE nodes SET session = $2, time_zone = $6, entered_at = now(), seen_at = now()
            FROM trips WHERE id = $1 AND released_at IS NULL
                AND ($3 IS NULL OR session BETWEEN $3 AND $2)";
        let values = [
            bytes(&id_bytes),
            int(&number),
            int(&first),
            int4(&TRIPS),
            int4(&node),
            text(&time_zone),
        ];
        match session.run(sql::execute(client, sql, &values))? {
            0 => Err(Self::released(session, id)?.unwrap_or(Error::Displaced)),
            _ => Ok(Self { id, number: node, session: number }),
        }
    }

    /// Returns the error for a node that was given up.
    fn released(session: &Session, id: DatabaseId) -> Result<Option<Error>, Error> {
        let sql = "SELECT number FROM nodes WHERE id = $1 AND released_at IS NOT NULL";
        let row = session.run(sql::optional(&session.client, sql, &[bytes(&&id.0[..])]))?;
        Ok(row.map(|row| row.try_get(0)).transpose()?.map(|node| Error::Released { node }))
    }

    /// Notes the commit of this number in the open transaction, before anything else, so that a transaction of another
    /// session waits for its end.
    pub(super) fn note_commit(&self, session: &Session, number: u64) -> Result<(), Error> {
        let (id, client) = (&self.id.0[..], &session.client);
        let (number, known) = (sql::bigint(number), sql::bigint(number.saturating_sub(1)));
        let sql = "UPDATE nodes SET commits = $3, seen_at = now()
            WHERE id = $1 AND session = $2 AND commits = $4";
        let values = [bytes(&id), int(&self.session), int(&number), int(&known)];
        if session.run(sql::execute(client, sql, &values))? == 1 {
            return Ok(());
        }
        if let Some(error) = Self::released(session, self.id)? {
            return Err(error);
        }
        let sql = "SELECT session, commits FROM nodes WHERE id = $1";
        let row = session.run(sql::optional(client, sql, &[bytes(&id)]))?;
        let (has_session, has) = match row {
            Some(row) => (row.try_get(0)?, row.try_get(1)?),
            None => (self.session, 0),
        };
        Err(if has_session == self.session {
            Error::Behind { has: sql::count(has), confirmed: sql::count(known) }
        } else {
            Error::Displaced
        })
    }
}
