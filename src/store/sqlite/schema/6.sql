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
