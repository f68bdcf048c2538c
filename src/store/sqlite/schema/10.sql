ALTER TABLE api_keys ADD COLUMN monthly_limit INTEGER;
ALTER TABLE api_keys ADD COLUMN minute_limit INTEGER;
ALTER TABLE api_keys ADD COLUMN max_in_flight INTEGER;
