//! Schema of the database and its migrations, numbered by `PRAGMA user_version`.

use rusqlite::Connection;

pub(super) enum MigrateError {
    /// The file has tables of another program.
    Foreign,
    /// The file has a newer schema, with this version.
    Newer(usize),
    Sqlite(rusqlite::Error),
}

impl From<rusqlite::Error> for MigrateError {
    fn from(error: rusqlite::Error) -> Self {
        Self::Sqlite(error)
    }
}

/// Migrations to each version of the schema.
///
/// | table | contents |
/// |---|---|
/// | `api_keys` | Issued keys. `key` is the masked key once `key_hash` (SHA-256, hexadecimal) is set; a row without a hash was typed in by hand and is still to be adopted. The other columns may contain anything that people type. |
/// | `daily_usage` | Units per key, quota and period, of which `day` is the first day; `daily` is the quota of the reports. `epoch` counts the resets of a key in a quota: its current row is the one with the highest epoch and, of these, the latest day. `reset_used` are the units used before resets. |
/// | `usage_totals` | Sums of usage events per day, key and model. `tokens_unknown` counts successful requests whose response did not report tokens; for rows that are older than this column, it is known only if no response reported any. |
/// | `model_totals` | Sums of `usage_totals` over all keys, for reports by day and model. |
/// | `active_days` | Days of each month on which a key was used, as bits (bit n is day n). Triggers on `daily_usage` and `usage_totals` maintain it. |
/// | `requests` | Single requests within the retention time. `at` is in milliseconds, durations are in microseconds. |
/// | `awaited_events` | Number of unfinished requests, whose units are in `daily_usage` and whose events are still to come. |
/// | `blocks` | Leases: unit up to which the period of a key and quota is granted. |
/// | `journal` | Position up to which the journal has been applied to these tables, and whether the journal was closed properly. |
/// | `boot` | Boot of the machine on which the file was last opened. |
/// | `identity` | Random name of the database, which its journal refers to, and the number of transactions that this program has committed. |
/// | `audit_log` | The audit trail. Triggers prevent it from being changed by mistake. |
/// | `claims` | Claims and the hashes of their tokens. |
/// | `issued_once` | Idempotency keys of the last day and the keys that were issued with them. |
/// | `deleted_keys` | Last values of deleted rows of `api_keys`, for reports of past usage. |
/// | `revoked_keys` | Hashes of keys that were rotated or deleted, so that they are not imported again. |
const MIGRATIONS: [&str; 10] = [
    include_str!("1.sql"),
    include_str!("2.sql"),
    include_str!("3.sql"),
    include_str!("4.sql"),
    include_str!("5.sql"),
    include_str!("6.sql"),
    include_str!("7.sql"),
    include_str!("8.sql"),
    include_str!("9.sql"),
    include_str!("10.sql"),
];

pub(super) fn migrate(connection: &Connection) -> Result<(), MigrateError> {
    connection.execute_batch("BEGIN IMMEDIATE")?;
    let migrated = migrate_in_transaction(connection);
    match &migrated {
        Ok(()) => connection.execute_batch("COMMIT")?,
        Err(_) => connection.execute_batch("ROLLBACK")?,
    }
    migrated
}

/// Whether the schema is the current one. Fails if the file is newer or of another program.
pub(super) fn is_current(connection: &Connection) -> Result<bool, MigrateError> {
    let version = version(connection)?;
    let known_tables: i64 = connection.query_row(
        "SELECT count(*) FROM sqlite_master WHERE type = 'table'
             AND name IN ('api_keys', 'daily_usage', 'usage_totals', 'audit_log', 'probe')",
        [],
        |row| row.get(0),
    )?;
    match version {
        0 => Err(MigrateError::Foreign),
        _ if known_tables < 5 => Err(MigrateError::Foreign),
        version if version > MIGRATIONS.len() => Err(MigrateError::Newer(version)),
        version => Ok(version == MIGRATIONS.len()),
    }
}

fn version(connection: &Connection) -> Result<usize, MigrateError> {
    let version: i64 = connection.query_row("PRAGMA user_version", [], |row| row.get(0))?;
    usize::try_from(version).map_err(|_| MigrateError::Foreign)
}

fn migrate_in_transaction(connection: &Connection) -> Result<(), MigrateError> {
    let version = version(connection)?;
    let tables: i64 = connection.query_row(
        "SELECT count(*) FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%'",
        [],
        |row| row.get(0),
    )?;
    if version == 0 && tables > 0 {
        return Err(MigrateError::Foreign);
    }
    let migrations = MIGRATIONS.get(version..).ok_or(MigrateError::Newer(version))?;
    if migrations.is_empty() {
        return Ok(());
    }
    for migration in migrations {
        connection.execute_batch(migration)?;
    }
    connection.pragma_update(None, "user_version", MIGRATIONS.len())?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Summary of the usage of the key in [`KEY`].
    const SUMMARY: &str = "SELECT (SELECT sum(used) FROM daily_usage)
         || ' ' || (SELECT sum(requests) FROM model_totals)
         || ' ' || (SELECT group_concat(month || ' ' || days, ' ') FROM active_days)";
    const KEY: &str = "
        INSERT INTO api_keys (id, key, daily_limit) VALUES ('a', 'trial-key-manual-123', 5);
        INSERT INTO daily_usage (key_id, day, used) VALUES ('a', '2026-10-31', 3), ('a', '2026-11-01', 0);
        INSERT INTO usage_totals (key_id, day, model, requests)
        VALUES ('a', '2026-11-08', 'one', 3), ('a', '2026-11-09', 'one', 0), ('a', '2026-11-08', 'two', 1)";
    const LEASE: &str =
        "INSERT INTO blocks (key_id, day, epoch, charged) VALUES ('a', '2026-10-31', 0, 4)";

    #[test]
    fn files_of_all_earlier_versions_are_migrated() {
        for version in 1..=MIGRATIONS.len() {
            let file = Connection::open_in_memory().unwrap();
            MIGRATIONS[..version].iter().for_each(|sql| file.execute_batch(sql).unwrap());
            file.pragma_update(None, "user_version", version).unwrap();
            file.execute_batch(KEY).unwrap();
            if version >= 3 {
                let sums =
                    "INSERT INTO model_totals (day, model, requests) VALUES ('2026-11-08', '', 4)";
                file.execute_batch(sums).unwrap();
            }
            if version >= 2 {
                file.execute_batch(LEASE).unwrap();
            }
            migrate(&file).unwrap_or_else(|_| panic!("version {version}"));
            let sql = "SELECT count(*) FROM daily_usage WHERE quota <> 'daily' OR epoch <> 0";
            assert_eq!(file.query_row(sql, [], |row| row.get(0)), Ok(0), "version {version}");
            let leases = "SELECT count(*) FROM blocks WHERE quota = 'daily' AND charged = 4";
            let leases = file.query_row(leases, [], |row| row.get::<_, usize>(0));
            assert_eq!(leases, Ok((version >= 2).into()), "version {version}");
            let summary: String = file.query_row(SUMMARY, [], |row| row.get(0)).unwrap();
            assert_eq!(summary, "3 4 2026-10 2147483648 2026-11 256", "version {version}");
        }
    }

    #[test]
    fn tokens_of_older_rows_are_unknown_if_no_response_reported_any() {
        let file = Connection::open_in_memory().unwrap();
        MIGRATIONS[..7].iter().for_each(|sql| file.execute_batch(sql).unwrap());
        file.pragma_update(None, "user_version", 7).unwrap();
        for sums in ["usage_totals (key_id, ", "model_totals ("] {
            let key = if sums.starts_with("usage") { "'a', " } else { "" };
            let rows = format!(
                "INSERT INTO {sums}day, model, succeeded, total_tokens)
                 VALUES ({key}'2026-11-08', 'silent', 3, 0), ({key}'2026-11-08', 'm', 4, 9)"
            );
            file.execute_batch(&rows).unwrap();
        }
        migrate(&file).unwrap_or_else(|_| panic!("not migrated"));
        for sums in ["usage_totals", "model_totals"] {
            let sql = format!("SELECT group_concat(model || tokens_unknown, ' ') FROM {sums}");
            let unknown: String = file.query_row(&sql, [], |row| row.get(0)).unwrap();
            assert_eq!(unknown, "m0 silent3");
        }
    }

    #[test]
    fn a_file_of_a_newer_version_is_rejected() {
        let file = Connection::open_in_memory().unwrap();
        file.pragma_update(None, "user_version", MIGRATIONS.len() + 1).unwrap();
        assert!(matches!(migrate(&file), Err(MigrateError::Newer(_))));
    }
}
