//! Schema of the database and its migrations, numbered in the table `schema_version`.

use tokio_postgres::Client;

use super::sql::{self, int};

pub(super) enum MigrateError {
    /// The database has tables of another program.
    Foreign,
    /// The database has a newer schema, with this version.
    Newer(i64),
    /// The database has no tables, or those of an earlier version.
    #[cfg(feature = "admin")]
    Older,
    Sql(sql::Error),
}

impl From<sql::Error> for MigrateError {
    fn from(error: sql::Error) -> Self {
        Self::Sql(error)
    }
}

/// Migrations to each version of the schema. Each only adds, so that gateways of the version before go on
/// while one of this version starts.
///
/// | table | contents |
/// |---|---|
/// | `api_keys` | Issued keys. `key` is the masked key; a trigger hashes a key that is inserted in clear. Times may have any form that people type. |
/// | `daily_usage` | Units per key, quota and day; `daily` is the quota of the reports. `epoch` counts the resets of a key in a quota: its current row is the one with the highest epoch and, of these, the latest day. `reset_used` are the units used before resets. |
/// | `usage_totals` | Sums of usage events per day, key and model. |
/// | `model_totals` | Sums of `usage_totals` over all keys, for reports by day and model. |
/// | `active_days` | Days of each year, whose months have 31 days each, on which a key was used, as bits. Triggers on `daily_usage` and `usage_totals` maintain it. |
/// | `quarter_units`, `quarter_requests` | Units of `daily_usage` and requests of `usage_totals`, summed up to each day of a quarter whose months have 31 days each, and the days that have a row as bits. Before its first element a row of sums stands for 0, after the last one for that. Triggers maintain them. |
/// | `requests` | Single requests within the retention time. `at` is in milliseconds, durations are in microseconds. |
/// | `nodes` | Processes that count here. `id` is in the head of the node's journal, `number` is its short name, `session` the number of the connection with which it counts, `commits` that of its transactions so far, `segment` and `offset` the position up to which its journal has been applied, `boot` and `files` identify the boot of the machine and the files of its last start. A node that was given up has `released_at`. |
/// | `counters` | Units of a key, quota and period that were granted to nodes: `earlier` (used before the first lease) and, of each lease, `granted - base`. `cap` is the limit of the last grant, `is_over` whether a node knows that none is left, `recalls` the number of times that they were called upon to give back. |
/// | `leases` | Units of a counter that a node may use (`granted`) and has used as far as it has reported (`spent`), and as far as `daily_usage` has them (`checkpointed`), since the period began. `base` are those of them that count no more, as they were spent before a reset or given back; `seq` counts the changes of `granted`. |
/// | `awaited_events` | Number of a node's unfinished requests, whose units are in `daily_usage` and whose events are still to come. |
/// | `audit_log` | The audit trail. Triggers prevent it from being changed by mistake. |
/// | `claims` | Claims and the hashes of their tokens. |
/// | `issued_once` | Idempotency keys of the last day and the keys that were issued with them. |
/// | `deleted_keys` | Last values of deleted rows of `api_keys`, for reports of past usage. |
/// | `revoked_keys` | Hashes of keys that were rotated or deleted, so that they are not imported again. |
/// | `sqlite_migration` | The SQLite database whose rows are moved here: `source` is the hash of its rows, `path` its file, `moving` the table of which `moved` rows are here. Until it is complete, a trigger keeps nodes out. |
const MIGRATIONS: [&str; 1] = [concat!(include_str!("1.sql"), include_str!("1-leases.sql"))];

/// Key of the advisory lock under which one process migrates.
const LOCK: i64 = 0x746f_7765_7271_0001;

/// Checks that the database has the tables of this version.
#[cfg(feature = "admin")]
pub(super) async fn check(client: &Client) -> Result<(), MigrateError> {
    let is_there = "SELECT to_regclass('schema_version') IS NOT NULL";
    if !sql::one(client, is_there, &[]).await?.try_get::<_, bool>(0)? {
        return Err(MigrateError::Older);
    }
    let version = sql::one(client, "SELECT version FROM schema_version", &[]).await?.try_get(0)?;
    match usize::try_from(version) {
        Ok(known) if known == MIGRATIONS.len() => Ok(()),
        Ok(known) if known < MIGRATIONS.len() => Err(MigrateError::Older),
        _ => Err(MigrateError::Newer(version)),
    }
}

pub(super) async fn migrate(client: &Client) -> Result<(), MigrateError> {
    client.batch_execute("BEGIN").await?;
    let migrated = migrate_in_transaction(client).await;
    client.batch_execute(if migrated.is_ok() { "COMMIT" } else { "ROLLBACK" }).await?;
    migrated
}

/// Returns the version of the schema, or `None` if the database has no tables.
pub(super) async fn version(client: &Client) -> Result<Option<i64>, MigrateError> {
    let row = sql::one(
        client,
        "SELECT to_regclass('schema_version') IS NOT NULL,
             to_regclass('api_keys') IS NOT NULL OR to_regclass('daily_usage') IS NOT NULL",
        &[],
    )
    .await?;
    let (is_known, has_tables): (bool, bool) = (row.try_get(0)?, row.try_get(1)?);
    if !is_known {
        return if has_tables { Err(MigrateError::Foreign) } else { Ok(None) };
    }
    let version: i64 =
        sql::one(client, "SELECT version FROM schema_version", &[]).await?.try_get(0)?;
    newer_than(version).map(|_| Some(version))
}

/// Returns the migrations from this version on.
fn newer_than(version: i64) -> Result<&'static [&'static str], MigrateError> {
    let known = usize::try_from(version).ok().and_then(|version| MIGRATIONS.get(version..));
    known.ok_or(MigrateError::Newer(version))
}

async fn migrate_in_transaction(client: &Client) -> Result<(), MigrateError> {
    sql::one(client, "SELECT pg_advisory_xact_lock($1)", &[int(&LOCK)]).await?;
    let version = version(client).await?;
    if version.is_none() {
        client
            .batch_execute(
                "CREATE TABLE schema_version (version bigint NOT NULL);
                 INSERT INTO schema_version VALUES (0)",
            )
            .await?;
    }
    let migrations = newer_than(version.unwrap_or(0))?;
    if migrations.is_empty() {
        return Ok(());
    }
    for migration in migrations {
        client.batch_execute(migration).await?;
    }
    let newest = i64::try_from(MIGRATIONS.len()).unwrap_or(i64::MAX);
    sql::execute(client, "UPDATE schema_version SET version = $1", &[int(&newest)]).await?;
    Ok(())
}
