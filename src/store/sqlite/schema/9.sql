CREATE TABLE counts (
    key_id TEXT NOT NULL,
    quota TEXT NOT NULL DEFAULT 'daily',
    day TEXT NOT NULL,
    epoch INTEGER NOT NULL DEFAULT 0,
    used INTEGER NOT NULL DEFAULT 0,
    refunded INTEGER NOT NULL DEFAULT 0,
    reset_used INTEGER NOT NULL DEFAULT 0,
    last_used_at INTEGER,
    PRIMARY KEY (key_id, quota, day)
) WITHOUT ROWID;
INSERT INTO counts (key_id, day, epoch, used, refunded, reset_used, last_used_at)
SELECT key_id, day, epoch, used, refunded, reset_used, last_used_at FROM daily_usage;
DROP TABLE daily_usage;
ALTER TABLE counts RENAME TO daily_usage;
CREATE INDEX daily_usage_by_day ON daily_usage (quota, day, key_id, used);

CREATE TRIGGER day_begins_with_unit AFTER INSERT ON daily_usage
WHEN NEW.used > 0 AND NEW.quota = 'daily'
BEGIN
    INSERT INTO active_days
    VALUES (substr(NEW.day, 1, 7), NEW.key_id, 1 << substr(NEW.day, 9, 2))
    ON CONFLICT DO UPDATE SET days = days | excluded.days;
END;
CREATE TRIGGER day_goes_on_with_unit AFTER UPDATE OF used ON daily_usage
WHEN OLD.used = 0 AND NEW.used > 0 AND NEW.quota = 'daily'
BEGIN
    INSERT INTO active_days
    VALUES (substr(NEW.day, 1, 7), NEW.key_id, 1 << substr(NEW.day, 9, 2))
    ON CONFLICT DO UPDATE SET days = days | excluded.days;
END;

CREATE TABLE leases (
    key_id TEXT NOT NULL,
    quota TEXT NOT NULL DEFAULT 'daily',
    day TEXT NOT NULL,
    epoch INTEGER NOT NULL,
    charged INTEGER NOT NULL,
    PRIMARY KEY (key_id, quota)
) WITHOUT ROWID;
INSERT INTO leases (key_id, day, epoch, charged) SELECT key_id, day, epoch, charged FROM blocks;
DROP TABLE blocks;
ALTER TABLE leases RENAME TO blocks;
