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
