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
