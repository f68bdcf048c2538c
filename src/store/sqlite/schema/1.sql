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
