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
/// is folded into these tables, `boot` on which boot of the machine the file was last opened.
///
/// `daily_usage` counts units; `epoch` tells a day's resets apart, and `reset_used` keeps what was
/// used before them. `usage_totals` sums up usage events.
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
/// `active_days` tells on which days of a month a key was used (bit n is day n), as the day's first row
/// in one of the tables above says it.
const STEPS: [&str; 6] = [
    "
CREATE TABLE api_keys (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL UNIQUE DEFAULT ('key_' || lower(hex(randomblob(8)))),
    key TEXT NOT NULL,
    label TEXT DEFAULT '',
    daily_limit INTEGER,
    created_at TEXT DEFAULT (datetime('now')),
    expires_at TEXT,
    disabled INTEGER DEFAULT 0,
    key_hash TEXT UNIQUE,
    old_key_hash TEXT UNIQUE,
    old_key_until TEXT
);
CREATE UNIQUE INDEX api_keys_in_clear ON api_keys (key) WHERE key_hash IS NULL;

CREATE TABLE daily_usage (
    key_id TEXT NOT NULL,
    day TEXT NOT NULL,
    epoch INTEGER NOT NULL DEFAULT 0,
    used INTEGER NOT NULL DEFAULT 0,
    refunded INTEGER NOT NULL DEFAULT 0,
    reset_used INTEGER NOT NULL DEFAULT 0,
    last_used_at INTEGER,
    PRIMARY KEY (key_id, day)
) WITHOUT ROWID;
CREATE INDEX daily_usage_by_day ON daily_usage (day);

CREATE TABLE usage_totals (
    day TEXT NOT NULL,
    key_id TEXT NOT NULL,
    model TEXT NOT NULL,
    requests INTEGER NOT NULL DEFAULT 0,
    succeeded INTEGER NOT NULL DEFAULT 0,
    failed INTEGER NOT NULL DEFAULT 0,
    refunded INTEGER NOT NULL DEFAULT 0,
    rejected INTEGER NOT NULL DEFAULT 0,
    prompt_tokens INTEGER NOT NULL DEFAULT 0,
    completion_tokens INTEGER NOT NULL DEFAULT 0,
    total_tokens INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (day, key_id, model)
) WITHOUT ROWID;
CREATE INDEX usage_totals_by_key ON usage_totals (key_id, day);

CREATE TABLE audit_log (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    at TEXT NOT NULL,
    token_id TEXT NOT NULL,
    ip TEXT,
    action TEXT NOT NULL,
    key_id TEXT,
    detail TEXT NOT NULL
);
CREATE INDEX audit_log_by_key ON audit_log (key_id, number);

CREATE TABLE probe (id INTEGER PRIMARY KEY CHECK (id = 1), count INTEGER NOT NULL);
INSERT INTO probe VALUES (1, 0);
",
    "
CREATE TABLE blocks (
    key_id TEXT NOT NULL PRIMARY KEY,
    day TEXT NOT NULL,
    epoch INTEGER NOT NULL,
    charged INTEGER NOT NULL
) WITHOUT ROWID;
CREATE TABLE journal (
    id INTEGER PRIMARY KEY CHECK (id = 1),
    segment INTEGER NOT NULL,
    offset INTEGER NOT NULL
);
CREATE TABLE boot (boot TEXT NOT NULL);
",
    "
DROP INDEX daily_usage_by_day;
CREATE INDEX daily_usage_by_day ON daily_usage (day, key_id, used);
ALTER TABLE usage_totals ADD COLUMN cached_tokens INTEGER;
ALTER TABLE usage_totals ADD COLUMN reasoning_tokens INTEGER;

CREATE TABLE model_totals (
    day TEXT NOT NULL,
    model TEXT NOT NULL,
    requests INTEGER NOT NULL DEFAULT 0,
    succeeded INTEGER NOT NULL DEFAULT 0,
    failed INTEGER NOT NULL DEFAULT 0,
    refunded INTEGER NOT NULL DEFAULT 0,
    rejected INTEGER NOT NULL DEFAULT 0,
    prompt_tokens INTEGER NOT NULL DEFAULT 0,
    completion_tokens INTEGER NOT NULL DEFAULT 0,
    total_tokens INTEGER NOT NULL DEFAULT 0,
    cached_tokens INTEGER,
    reasoning_tokens INTEGER,
    PRIMARY KEY (day, model)
) WITHOUT ROWID;
INSERT INTO model_totals
SELECT day, model, sum(requests), sum(succeeded), sum(failed), sum(refunded), sum(rejected),
    sum(prompt_tokens), sum(completion_tokens), sum(total_tokens), NULL, NULL
FROM usage_totals GROUP BY day, model;

CREATE TABLE requests (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    key_id TEXT NOT NULL,
    at INTEGER NOT NULL,
    method TEXT NOT NULL,
    path TEXT NOT NULL,
    status INTEGER,
    outcome TEXT NOT NULL,
    code TEXT,
    units INTEGER NOT NULL,
    refunded INTEGER NOT NULL,
    model_asked TEXT,
    model TEXT,
    prompt_tokens INTEGER,
    completion_tokens INTEGER,
    total_tokens INTEGER,
    cached_tokens INTEGER,
    reasoning_tokens INTEGER,
    bytes_in INTEGER NOT NULL,
    bytes_out INTEGER NOT NULL,
    time_to_head INTEGER,
    time_to_first_byte INTEGER,
    duration INTEGER NOT NULL
);
CREATE INDEX requests_by_key ON requests (key_id, number);

CREATE TABLE deleted_keys (
    id TEXT NOT NULL PRIMARY KEY,
    key TEXT,
    label TEXT,
    daily_limit INTEGER
) WITHOUT ROWID;
CREATE TRIGGER keep_deleted_keys AFTER DELETE ON api_keys WHEN OLD.key_hash IS NOT NULL
BEGIN
    INSERT OR REPLACE INTO deleted_keys VALUES (OLD.id, OLD.key, OLD.label, OLD.daily_limit);
END;
",
    "
CREATE TABLE awaited_events (
    key_id TEXT NOT NULL PRIMARY KEY,
    day TEXT NOT NULL,
    events INTEGER NOT NULL
) WITHOUT ROWID;
",
    "
INSERT OR IGNORE INTO deleted_keys (id)
SELECT key_id FROM (SELECT DISTINCT key_id FROM daily_usage UNION SELECT DISTINCT key_id FROM usage_totals)
WHERE key_id NOT IN (SELECT id FROM api_keys);
CREATE INDEX requests_not_succeeded ON requests (key_id, number) WHERE outcome <> 'succeeded';

CREATE TABLE issued_once (
    name TEXT NOT NULL PRIMARY KEY,
    request TEXT NOT NULL,
    key_ids TEXT NOT NULL,
    at INTEGER NOT NULL
) WITHOUT ROWID;
CREATE INDEX issued_once_by_time ON issued_once (at);

CREATE TABLE claims (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    token_hash TEXT NOT NULL UNIQUE,
    key_id TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    expires_at INTEGER NOT NULL,
    opened_at INTEGER,
    withdrawn INTEGER NOT NULL DEFAULT 0
);
CREATE INDEX claims_by_key ON claims (key_id, number);
CREATE INDEX api_keys_by_label ON api_keys (coalesce(label, '') COLLATE NOCASE, seq);

CREATE TRIGGER audit_log_keeps_entries BEFORE DELETE ON audit_log
BEGIN
    SELECT RAISE(ABORT, 'the audit trail is append-only');
END;
CREATE TRIGGER audit_log_replaces_no_entries BEFORE INSERT ON audit_log
WHEN EXISTS (SELECT 1 FROM audit_log WHERE number = NEW.number)
BEGIN
    SELECT RAISE(ABORT, 'the audit trail is append-only');
END;
CREATE TRIGGER audit_log_leaves_entries BEFORE UPDATE ON audit_log
BEGIN
    SELECT RAISE(ABORT, 'the audit trail is append-only');
END;
",
    "
DROP INDEX api_keys_by_label;
CREATE INDEX api_keys_by_label ON api_keys (CAST(coalesce(label, '') AS TEXT) COLLATE NOCASE, seq);

CREATE TABLE revoked_keys (key_hash TEXT NOT NULL PRIMARY KEY, key_id TEXT NOT NULL) WITHOUT ROWID;
CREATE TRIGGER deleted_keys_are_revoked AFTER DELETE ON api_keys
BEGIN
    INSERT INTO revoked_keys SELECT OLD.key_hash, OLD.id WHERE OLD.key_hash IS NOT NULL
    ON CONFLICT DO NOTHING;
    INSERT INTO revoked_keys SELECT OLD.old_key_hash, OLD.id WHERE OLD.old_key_hash IS NOT NULL
    ON CONFLICT DO NOTHING;
END;
CREATE TRIGGER rotated_keys_are_revoked AFTER UPDATE OF key_hash, old_key_hash ON api_keys
BEGIN
    INSERT INTO revoked_keys
    SELECT hash, OLD.id FROM (SELECT OLD.key_hash AS hash UNION SELECT OLD.old_key_hash)
    WHERE hash IS NOT NULL AND hash IS NOT NEW.key_hash AND hash IS NOT NEW.old_key_hash
    ON CONFLICT DO NOTHING;
END;

CREATE TABLE active_days (
    month TEXT NOT NULL,
    key_id TEXT NOT NULL,
    days INTEGER NOT NULL,
    PRIMARY KEY (month, key_id)
) WITHOUT ROWID;
INSERT INTO active_days
SELECT substr(day, 1, 7) AS month, key_id, sum(1 << substr(day, 9, 2))
FROM (SELECT key_id, day FROM daily_usage WHERE used > 0
    UNION SELECT key_id, day FROM usage_totals WHERE requests > 0)
GROUP BY month, key_id;

CREATE TRIGGER day_begins_with_unit AFTER INSERT ON daily_usage WHEN NEW.used > 0
BEGIN
    INSERT INTO active_days
    VALUES (substr(NEW.day, 1, 7), NEW.key_id, 1 << substr(NEW.day, 9, 2))
    ON CONFLICT DO UPDATE SET days = days | excluded.days;
END;
CREATE TRIGGER day_goes_on_with_unit AFTER UPDATE OF used ON daily_usage
WHEN OLD.used = 0 AND NEW.used > 0
BEGIN
    INSERT INTO active_days
    VALUES (substr(NEW.day, 1, 7), NEW.key_id, 1 << substr(NEW.day, 9, 2))
    ON CONFLICT DO UPDATE SET days = days | excluded.days;
END;
CREATE TRIGGER day_begins_with_request AFTER INSERT ON usage_totals WHEN NEW.requests > 0
BEGIN
    INSERT INTO active_days
    VALUES (substr(NEW.day, 1, 7), NEW.key_id, 1 << substr(NEW.day, 9, 2))
    ON CONFLICT DO UPDATE SET days = days | excluded.days;
END;
CREATE TRIGGER day_goes_on_with_request AFTER UPDATE OF requests ON usage_totals
WHEN OLD.requests = 0 AND NEW.requests > 0
BEGIN
    INSERT INTO active_days
    VALUES (substr(NEW.day, 1, 7), NEW.key_id, 1 << substr(NEW.day, 9, 2))
    ON CONFLICT DO UPDATE SET days = days | excluded.days;
END;
",
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

fn migrate_in_transaction(connection: &Connection) -> Result<(), MigrateError> {
    let version: i64 = connection.query_row("PRAGMA user_version", [], |row| row.get(0))?;
    let version = usize::try_from(version).map_err(|_| MigrateError::Foreign)?;
    let tables: i64 = connection.query_row(
        "SELECT count(*) FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%'",
        [],
        |row| row.get(0),
    )?;
    if version == 0 && tables > 0 {
        return Err(MigrateError::Foreign);
    }
    let steps = STEPS.get(version..).ok_or(MigrateError::Newer(version))?;
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
    fn a_file_of_a_later_version_is_left_alone() {
        let file = Connection::open_in_memory().unwrap();
        file.pragma_update(None, "user_version", STEPS.len() + 1).unwrap();
        assert!(matches!(migrate(&file), Err(MigrateError::Newer(_))));
    }
}
