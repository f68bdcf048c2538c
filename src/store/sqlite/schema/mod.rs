//! The tables, in numbered steps (`PRAGMA user_version`).

use rusqlite::Connection;

pub(super) enum MigrateError {
    /// Tables are there that no step has made.
    Foreign,
    /// The file has seen more steps than are known here.
    Newer(usize),
    Sqlite(rusqlite::Error),
}

impl From<rusqlite::Error> for MigrateError {
    fn from(error: rusqlite::Error) -> Self {
        Self::Sqlite(error)
    }
}

/// `api_keys.key` holds the masked key once `key_hash` (SHA-256, hexadecimal) is set; a row without
/// hash was typed in and waits to be adopted. Its other columns take whatever people type.
///
/// `blocks` holds up to which unit a subject's day is charged ahead, `journal` how far the journal
/// is folded into these tables and whether it was ended in order, `boot` on which boot of the machine the file was last opened.
///
/// `daily_usage` counts units; `epoch` counts a key's resets, so that of a key's rows the one with the
/// highest epoch, and of these the latest day, is counted on; `reset_used` keeps what was used before. `usage_totals` sums up usage events.
///
/// `tokens_unknown` counts requests that ended well and whose answers told no tokens. Rows of before it
/// was counted have it only where no answer told any.
///
/// `model_totals` sums up `usage_totals` over all keys, so that reports by day and model need not.
/// `requests` keeps single requests for a while, times in milliseconds (`at`) and microseconds. What
/// stood in `api_keys` when a row was deleted stays in `deleted_keys`, for reports of the past.
///
/// `awaited_events` counts the requests under way whose units are in `daily_usage` and whose events
/// are still to come. `issued_once` remembers for a day which requests have issued which keys, and
/// triggers keep anybody from rewriting `audit_log` by mistake. `claims` are links by which somebody
/// gets a key, by their hashes.
///
/// `revoked_keys` holds the hashes of keys that were rotated away or deleted, so that no import brings
/// them back.
///
/// `identity` holds a random name of the database, by which its journal knows it, and how many
/// transactions of this program it has committed.
///
/// `active_days` tells on which days of a month a key was used (bit n is day n), as the day's first row
/// in one of the tables above says it.
const STEPS: [&str; 8] = [
    include_str!("1.sql"),
    include_str!("2.sql"),
    include_str!("3.sql"),
    include_str!("4.sql"),
    include_str!("5.sql"),
    include_str!("6.sql"),
    include_str!("7.sql"),
    include_str!("8.sql"),
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

/// Whether the file has all steps behind it; a failure if it is not one of ours, or a newer one.
pub(super) fn is_current(connection: &Connection) -> Result<bool, MigrateError> {
    let version = version(connection)?;
    // Tables that the first step has made.
    let ours: i64 = connection.query_row(
        "SELECT count(*) FROM sqlite_master WHERE type = 'table'
             AND name IN ('api_keys', 'daily_usage', 'usage_totals', 'audit_log', 'probe')",
        [],
        |row| row.get(0),
    )?;
    match version {
        0 => Err(MigrateError::Foreign),
        _ if ours < 5 => Err(MigrateError::Foreign),
        version if version > STEPS.len() => Err(MigrateError::Newer(version)),
        version => Ok(version == STEPS.len()),
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
    let steps = STEPS.get(version..).ok_or(MigrateError::Newer(version))?;
    if steps.is_empty() {
        return Ok(());
    }
    for step in steps {
        connection.execute_batch(step)?;
    }
    connection.pragma_update(None, "user_version", STEPS.len())?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is told of the one key that [`KEY`] adds.
    const TOLD: &str = "SELECT (SELECT sum(used) FROM daily_usage)
         || ' ' || (SELECT sum(requests) FROM model_totals)
         || ' ' || (SELECT group_concat(month || ' ' || days, ' ') FROM active_days)";
    const KEY: &str = "
        INSERT INTO api_keys (id, key, daily_limit) VALUES ('a', 'trial-key-manual-123', 5);
        INSERT INTO daily_usage (key_id, day, used) VALUES ('a', '2026-10-31', 3), ('a', '2026-11-01', 0);
        INSERT INTO usage_totals (key_id, day, model, requests)
        VALUES ('a', '2026-11-08', 'one', 3), ('a', '2026-11-09', 'one', 0), ('a', '2026-11-08', 'two', 1)";

    #[test]
    fn a_file_of_any_earlier_version_is_brought_up_to_date() {
        for version in 1..=STEPS.len() {
            let file = Connection::open_in_memory().unwrap();
            STEPS[..version].iter().for_each(|step| file.execute_batch(step).unwrap());
            file.pragma_update(None, "user_version", version).unwrap();
            file.execute_batch(KEY).unwrap();
            if version >= 3 {
                let sums =
                    "INSERT INTO model_totals (day, model, requests) VALUES ('2026-11-08', '', 4)";
                file.execute_batch(sums).unwrap();
            }
            migrate(&file).unwrap_or_else(|_| panic!("version {version}"));
            let told: String = file.query_row(TOLD, [], |row| row.get(0)).unwrap();
            assert_eq!(told, "3 4 2026-10 2147483648 2026-11 256", "version {version}");
        }
    }

    #[test]
    fn rows_of_before_tell_that_tokens_are_unknown_where_none_was_told() {
        let file = Connection::open_in_memory().unwrap();
        STEPS[..7].iter().for_each(|step| file.execute_batch(step).unwrap());
        file.pragma_update(None, "user_version", 7).unwrap();
        for sums in ["usage_totals (key_id, ", "model_totals ("] {
            let key = if sums.starts_with("usage") { "'a', " } else { "" };
            let rows = format!(
                "INSERT INTO {sums}day, model, succeeded, total_tokens)
                 VALUES ({key}'2026-11-08', 'silent', 3, 0), ({key}'2026-11-08', 'm', 4, 9)"
            );
            file.execute_batch(&rows).unwrap();
        }
        migrate(&file).unwrap_or_else(|_| panic!("not brought up to date"));
        for sums in ["usage_totals", "model_totals"] {
            let told = format!("SELECT group_concat(model || tokens_unknown, ' ') FROM {sums}");
            let told: String = file.query_row(&told, [], |row| row.get(0)).unwrap();
            assert_eq!(told, "m0 silent3");
        }
    }

    #[test]
    fn a_file_of_a_later_version_is_left_alone() {
        let file = Connection::open_in_memory().unwrap();
        file.pragma_update(None, "user_version", STEPS.len() + 1).unwrap();
        assert!(matches!(migrate(&file), Err(MigrateError::Newer(_))));
    }
}
