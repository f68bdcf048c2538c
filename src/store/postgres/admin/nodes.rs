//! The nodes as operators see them, and the release of one.

use std::time::{Duration, SystemTime};

use tokio::{runtime::Handle, time::timeout};
use tokio_postgres::{Client, Row};

use super::{
    super::{
        OpenError, PostgresOptions, PostgresStore, checkpoint,
        open::{cannot_migrate, cannot_open},
        schema,
        session::{Error, IS_CONNECTED, TRIPS},
        sql::{self, bytes, int, int4, texts},
        unavailable,
    },
    write_audit,
};
use crate::{
    admin::store::{Actor, AuditNote, NodeState, NodeSummary, ReleaseOutcome},
    clock::{Calendar, Period, from_unix_millis},
    error::StoreError,
    key::hex,
    store::engine::journal::DatabaseId,
};

/// Time after which a process whose connection is lost counts as silent. One that can connects again within a
/// second.
const SILENCE: Duration = Duration::from_secs(10);
/// Limits of the statements of a release, as a node may hold leases of many keys.
const BEGIN: &str = "BEGIN; SET LOCAL statement_timeout = '60s'; SET LOCAL lock_timeout = '5s'";
/// Time for which a command waits for its connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// Unused units of each lease of the node `n` in a current period: `$2` and `$3` are the periods and their first days.
const UNUSED: &str = "SELECT l.key_id, l.granted - l.spent AS unused
    FROM leases l
    JOIN unnest($2, $3) AS period (name, first)
        ON period.name = coalesce(nullif(split_part(l.quota, '/', 2), ''), 'day')
    WHERE l.node = n.number AND l.granted > l.spent AND l.day >= period.first";

/// Returns the nodes of a database, by number. No store needs to be open on it.
///
/// # Errors
///
/// The database cannot be read, or has no tables of this version.
pub async fn nodes(options: &PostgresOptions) -> Result<Vec<NodeSummary>, OpenError> {
    let (client, now) = connect(options).await?;
    let nodes = Nodes { calendar: &options.calendar, now, this: None };
    nodes.read(&client, None).await.map_err(|error| cannot_open(options, error.into()))
}

/// Releases a node of a database, as
/// [`AdminStore::release_node`](crate::admin::store::AdminStore::release_node) does. No store needs to be open on it.
///
/// # Errors
///
/// The database cannot be written, or has no tables of this version.
pub async fn release_node(
    options: &PostgresOptions,
    number: u32,
    by: Actor,
) -> Result<ReleaseOutcome, OpenError> {
    let (client, now) = connect(options).await?;
    let nodes = Nodes { calendar: &options.calendar, now, this: None };
    let released = nodes.release(&client, number, &by).await;
    released.map_err(|error| cannot_open(options, error.into()))
}

/// Connects, and returns the time of the database, which decides the period, unless there is another clock.
async fn connect(options: &PostgresOptions) -> Result<(Client, SystemTime), OpenError> {
    let address = &options.address;
    let connecting = timeout(CONNECT_TIMEOUT, address.config.connect(address.tls.clone()));
    let connected = connecting.await.map_err(|_| Error::Timeout);
    let connected = connected.and_then(|connected| Ok(connected?));
    let (client, connection) = connected.map_err(|error| cannot_open(options, error))?;
    Handle::current().spawn(connection);
    schema::check(&client).await.map_err(|error| cannot_migrate(options, error))?;
    let now = match &options.clock {
        Some(clock) => clock.now(),
        None => {
            let row = sql::one(&client, "SELECT clock_timestamp()", &[]).await;
            let now = row.and_then(|row| row.try_get(0));
            now.map_err(|error| cannot_open(options, error.into()))?
        }
    };
    Ok((client, now))
}

impl PostgresStore {
    pub(super) async fn list_nodes(&self) -> Result<Vec<NodeSummary>, StoreError> {
        self.flush_for_read().await;
        let client = self.reader().await?;
        let mut nodes = self.read_nodes().read(&client, None).await.map_err(unavailable)?;
        for node in nodes.iter_mut().filter(|node| node.is_this) {
            let pending = self.0.core.engine.journal.pending();
            node.pending_records = Some(pending.try_into().unwrap_or(u64::MAX));
        }
        Ok(nodes)
    }

    pub(super) async fn release(
        &self,
        number: u32,
        by: &Actor,
    ) -> Result<ReleaseOutcome, StoreError> {
        // Not in the pool, so that a call that is dropped leaves no open transaction there.
        let client = deadpool_postgres::Object::take(self.reader().await?);
        self.read_nodes().release(&client, number, by).await.map_err(unavailable)
    }

    fn read_nodes(&self) -> Nodes<'_> {
        let core = &self.0.core;
        Nodes { calendar: &core.engine.calendar, now: core.now(), this: Some(self.0.node) }
    }
}

/// The nodes at a time.
struct Nodes<'a> {
    calendar: &'a Calendar,
    now: SystemTime,
    /// Node of this process, if it is one.
    this: Option<DatabaseId>,
}

impl Nodes<'_> {
    async fn read_one(&self, client: &Client, number: i64) -> sql::Result<Option<NodeSummary>> {
        Ok(self.read(client, Some(number)).await?.pop())
    }

    /// Reads all nodes, or the one with this number.
    async fn read(&self, client: &Client, number: Option<i64>) -> sql::Result<Vec<NodeSummary>> {
        let select = format!(
            "SELECT n.id, n.number, {IS_CONNECTED} AS is_connected, n.is_closed,
                n.released_at IS NOT NULL AS is_released,
                (extract(epoch FROM n.entered_at) * 1000)::bigint AS entered_at,
                (extract(epoch FROM n.seen_at) * 1000)::bigint AS seen_at,
                (extract(epoch FROM clock_timestamp()) * 1000)::bigint AS read_at,
                held.units, held.keys,
                (SELECT coalesce(sum(events), 0)::bigint FROM awaited_events
                    WHERE node = n.id AND events > 0) AS open_requests
            FROM nodes n, LATERAL (
                SELECT coalesce(sum(unused), 0)::bigint AS units, count(DISTINCT key_id) AS keys
                FROM ({UNUSED}) AS lease WHERE unused > 0
            ) AS held
            WHERE $1 IS NULL OR n.number = $1 ORDER BY n.number"
        );
        let periods: Vec<&str> = Period::ALL.iter().map(|period| period.as_str()).collect();
        let first_day = |period: &Period| self.calendar.window_in(*period, self.now).day;
        let first_days: Vec<String> =
            Period::ALL.iter().map(|period| first_day(period).to_string()).collect();
        let values = [int(&number), texts(&periods), texts(&first_days)];
        let rows = sql::query(client, &select, &values).await?;
        rows.iter().map(|row| self.summary(row)).collect()
    }

    fn summary(&self, row: &Row) -> sql::Result<NodeSummary> {
        let time = |column| row.try_get(column).map(from_unix_millis);
        let (entered_at, seen_at, read_at) =
            (time("entered_at")?, time("seen_at")?, time("read_at")?);
        let (is_connected, is_closed): (bool, bool) =
            (row.try_get("is_connected")?, row.try_get("is_closed")?);
        let leased_units = sql::count(row.try_get("units")?);
        let open_requests = sql::count(row.try_get("open_requests")?);
        let is_silent = read_at.duration_since(seen_at).is_ok_and(|silence| silence >= SILENCE);
        // A process that has only begun to count has leases, and a closed journal.
        let has_everything = is_closed && leased_units == 0 && open_requests == 0;
        let state = if row.try_get("is_released")? {
            NodeState::Released
        } else if is_connected {
            NodeState::InUse
        } else if has_everything {
            NodeState::Closed
        } else if is_silent {
            NodeState::Silent
        } else {
            NodeState::InUse
        };
        let id: &[u8] = row.try_get("id")?;
        let number = u32::try_from(row.try_get::<_, i32>("number")?).unwrap_or_default();
        let seen_at = if is_connected { read_at } else { seen_at };
        let mut node = NodeSummary::new(number, hex(id), state, seen_at);
        node.is_this = self.this.is_some_and(|this| this.0[..] == *id);
        node.entered_at = entered_at;
        node.leased_units = leased_units;
        node.leased_keys = sql::count(row.try_get("keys")?);
        node.open_requests = open_requests;
        node.pending_records = (state == NodeState::Closed).then_some(0);
        Ok(node)
    }

    /// Gives up a silent node, in a transaction of its own with its audit entry.
    async fn release(
        &self,
        client: &Client,
        number: u32,
        by: &Actor,
    ) -> sql::Result<ReleaseOutcome> {
        client.batch_execute(BEGIN).await?;
        let released = self.release_in_transaction(client, number, by).await;
        let is_released = matches!(released, Ok(ReleaseOutcome::Released(_)));
        client.batch_execute(if is_released { "COMMIT" } else { "ROLLBACK" }).await?;
        released
    }

    async fn release_in_transaction(
        &self,
        client: &Client,
        number: u32,
        by: &Actor,
    ) -> sql::Result<ReleaseOutcome> {
        let number = i64::from(number);
        // The locks would keep a node in use from its leases.
        match self.read_one(client, number).await? {
            Some(node) if node.state == NodeState::Silent => {}
            other => return Ok(not_silent(other)),
        }
        // A trip of the node that is on its way ends first, as it changes its leases. A process that enters with its
        // journal waits.
        let lock = "SELECT pg_advisory_xact_lock($2, number) FROM nodes WHERE number = $1";
        sql::one(client, lock, &[int(&number), int4(&TRIPS)]).await?;
        let lock = "SELECT id FROM nodes WHERE number = $1 FOR UPDATE";
        let row = sql::one(client, lock, &[int(&number)]).await?;
        let node = match self.read_one(client, number).await? {
            Some(node) if node.state == NodeState::Silent => node,
            other => return Ok(not_silent(other)),
        };
        let id = row.try_get::<_, &[u8]>(0)?.try_into().unwrap_or_default();
        give_up(client, DatabaseId(id)).await?;
        write_audit(client, self.now, by, &[AuditNote::node_released(&node)]).await?;
        Ok(ReleaseOutcome::Released(Box::new(node)))
    }
}

fn not_silent(node: Option<NodeSummary>) -> ReleaseOutcome {
    node.map_or(ReleaseOutcome::UnknownNode, |node| ReleaseOutcome::NotSilent(Box::new(node)))
}

/// Gives up a node in the open transaction: the unused units of its leases count as used and its open requests as
/// failed. Its journal is not accepted any more, as its records would be counted twice.
async fn give_up(client: &Client, node: DatabaseId) -> sql::Result<()> {
    let id = &node.0[..];
    let end = "SELECT end_leases(number, true) FROM nodes WHERE id = $1";
    sql::execute(client, end, &[bytes(&id)]).await?;
    checkpoint::fail_open_requests(client, node).await?;
    // No process has this session.
    let close = "UPDATE nodes SET is_closed = true, session = 0, released_at = now() WHERE id = $1";
    sql::execute(client, close, &[bytes(&id)]).await.map(drop)
}
