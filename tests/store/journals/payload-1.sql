BEGIN TRANSACTION;
CREATE TABLE active_days (
    month TEXT NOT NULL,
    key_id TEXT NOT NULL,
    days INTEGER NOT NULL,
    PRIMARY KEY (month, key_id)
) WITHOUT ROWID;
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
INSERT INTO "api_keys" VALUES(1,'key_5d0cbf3782b7f827','trial-key-…5678','journal',100,'2026-11-22T12:00:00Z',NULL,0,'428c5b466516c3e8fb563ff489e7332165660056e8ba1a9f024d71e9046d39d8',NULL,NULL);
CREATE TABLE audit_log (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    at TEXT NOT NULL,
    token_id TEXT NOT NULL,
    ip TEXT,
    action TEXT NOT NULL,
    key_id TEXT,
    detail TEXT NOT NULL
);
INSERT INTO "audit_log" VALUES(1,'2026-11-22T12:00:00Z','',NULL,'key.create','key_5d0cbf3782b7f827','{"daily_limit":100,"disabled":false,"expires_at":null,"key":"trial-key-…5678","label":"journal"}');
CREATE TABLE awaited_events (
    key_id TEXT NOT NULL PRIMARY KEY,
    day TEXT NOT NULL,
    events INTEGER NOT NULL
) WITHOUT ROWID;
CREATE TABLE blocks (
    key_id TEXT NOT NULL PRIMARY KEY,
    day TEXT NOT NULL,
    epoch INTEGER NOT NULL,
    charged INTEGER NOT NULL
) WITHOUT ROWID;
CREATE TABLE boot (boot TEXT NOT NULL);
INSERT INTO "boot" VALUES('test');
CREATE TABLE claims (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    token_hash TEXT NOT NULL UNIQUE,
    key_id TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    expires_at INTEGER NOT NULL,
    opened_at INTEGER,
    withdrawn INTEGER NOT NULL DEFAULT 0
);
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
CREATE TABLE deleted_keys (
    id TEXT NOT NULL PRIMARY KEY,
    key TEXT,
    label TEXT,
    daily_limit INTEGER
) WITHOUT ROWID;
CREATE TABLE identity (
    id INTEGER PRIMARY KEY CHECK (id = 1),
    name BLOB NOT NULL,
    commits INTEGER NOT NULL
);
INSERT INTO "identity" VALUES(1,X'EF75737508F7614F71EE1D9017565742',4);
CREATE TABLE issued_once (
    name TEXT NOT NULL PRIMARY KEY,
    request TEXT NOT NULL,
    key_ids TEXT NOT NULL,
    at INTEGER NOT NULL
) WITHOUT ROWID;
CREATE TABLE journal (
    id INTEGER PRIMARY KEY CHECK (id = 1),
    segment INTEGER NOT NULL,
    offset INTEGER NOT NULL
, is_closed INTEGER NOT NULL DEFAULT 0);
INSERT INTO "journal" VALUES(1,1,180,0);
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
    reasoning_tokens INTEGER, tokens_unknown INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (day, model)
) WITHOUT ROWID;
CREATE TABLE probe (id INTEGER PRIMARY KEY CHECK (id = 1), count INTEGER NOT NULL);
INSERT INTO "probe" VALUES(1,0);
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
, request_id TEXT);
CREATE TABLE revoked_keys (key_hash TEXT NOT NULL PRIMARY KEY, key_id TEXT NOT NULL) WITHOUT ROWID;
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
    total_tokens INTEGER NOT NULL DEFAULT 0, cached_tokens INTEGER, reasoning_tokens INTEGER, tokens_unknown INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (day, key_id, model)
) WITHOUT ROWID;
CREATE UNIQUE INDEX api_keys_in_clear ON api_keys (key) WHERE key_hash IS NULL;
CREATE INDEX usage_totals_by_key ON usage_totals (key_id, day);
CREATE INDEX audit_log_by_key ON audit_log (key_id, number);
CREATE INDEX daily_usage_by_day ON daily_usage (day, key_id, used);
CREATE INDEX requests_by_key ON requests (key_id, number);
CREATE TRIGGER keep_deleted_keys AFTER DELETE ON api_keys WHEN OLD.key_hash IS NOT NULL
BEGIN
    INSERT OR REPLACE INTO deleted_keys VALUES (OLD.id, OLD.key, OLD.label, OLD.daily_limit);
END;
CREATE INDEX requests_not_succeeded ON requests (key_id, number) WHERE outcome <> 'succeeded';
CREATE INDEX issued_once_by_time ON issued_once (at);
CREATE INDEX claims_by_key ON claims (key_id, number);
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
CREATE INDEX api_keys_by_label ON api_keys (CAST(coalesce(label, '') AS TEXT) COLLATE NOCASE, seq);
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
CREATE INDEX requests_by_request_id ON requests (request_id) WHERE request_id IS NOT NULL;
DELETE FROM "sqlite_sequence";
INSERT INTO "sqlite_sequence" VALUES('api_keys',1);
INSERT INTO "sqlite_sequence" VALUES('audit_log',1);
COMMIT;