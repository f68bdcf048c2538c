CREATE TABLE identity (
    id INTEGER PRIMARY KEY CHECK (id = 1),
    name BLOB NOT NULL,
    commits INTEGER NOT NULL
);
INSERT INTO identity VALUES (1, randomblob(16), 0);

ALTER TABLE journal ADD COLUMN is_closed INTEGER NOT NULL DEFAULT 0;

UPDATE daily_usage SET epoch = 0
WHERE epoch > 0 AND day < (SELECT max(day) FROM daily_usage d WHERE d.key_id = daily_usage.key_id);

ALTER TABLE requests ADD COLUMN request_id TEXT;
CREATE INDEX requests_by_request_id ON requests (request_id) WHERE request_id IS NOT NULL;
