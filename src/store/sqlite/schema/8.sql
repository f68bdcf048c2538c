ALTER TABLE usage_totals ADD COLUMN tokens_unknown INTEGER NOT NULL DEFAULT 0;
ALTER TABLE model_totals ADD COLUMN tokens_unknown INTEGER NOT NULL DEFAULT 0;
UPDATE usage_totals SET tokens_unknown = succeeded WHERE total_tokens = 0 AND succeeded > 0;
UPDATE model_totals SET tokens_unknown = succeeded WHERE total_tokens = 0 AND succeeded > 0;
