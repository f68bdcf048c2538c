//! Fills a PostgreSQL database as [`fill`](crate::fill::fill) fills a SQLite file.

use std::path::Path;

use tower::BoxError;
use tower_quota::store::postgres::{PostgresOptions, PostgresStore};

use crate::{fill::create_keys, postgres::psql};

/// Creates keys, each with usage on each day, of two models in turn. Rows of a day are beside each other, as
/// checkpoints write them.
pub(crate) async fn fill(
    url: &str,
    journal: &Path,
    keys: usize,
    days: u32,
) -> Result<(), BoxError> {
    let store = PostgresStore::open(PostgresOptions::new(url, journal)?).await?;
    create_keys(&store, keys).await?;
    store.close().await?;
    // Indexes are built at once, and the sums that triggers keep are selected from the rows.
    psql(
        url,
        &format!(
            "SET session_replication_role = replica;
             SET maintenance_work_mem = '1GB';
             SET work_mem = '256MB';
             UPDATE pg_index SET indisready = false, indisvalid = false
             WHERE indrelid IN ('daily_usage'::regclass, 'usage_totals'::regclass);
             CREATE TEMP TABLE days AS
             SELECT n, to_char(now() AT TIME ZONE 'UTC' - n * interval '1 day', 'YYYY-MM-DD') AS day
             FROM generate_series(0, {days} - 1) AS n;
             CREATE TEMP TABLE keys AS SELECT id, seq FROM api_keys ORDER BY id;
             INSERT INTO daily_usage (key_id, day, used, last_used_at)
             SELECT id, day, 1 + (seq * 7919 + n * 31) % 200, extract(epoch FROM day::date)::bigint
             FROM days CROSS JOIN keys ORDER BY n DESC, id;
             INSERT INTO usage_totals (day, key_id, model, requests, succeeded,
                 prompt_tokens, completion_tokens, total_tokens)
             SELECT day, id, CASE (seq + n) % 3 WHEN 0 THEN 'deepseek-reasoner' ELSE 'deepseek-chat' END,
                 used, used, used * 100, used * 200, used * 300
             FROM (SELECT n, day, id, seq, 1 + (seq * 7919 + n * 31) % 200 AS used
                 FROM days CROSS JOIN keys) AS rows ORDER BY n DESC, id;
             UPDATE pg_index SET indisready = true, indisvalid = true
             WHERE indrelid IN ('daily_usage'::regclass, 'usage_totals'::regclass);
             REINDEX TABLE daily_usage;
             REINDEX TABLE usage_totals"
        ),
    );
    psql(
        url,
        "SET work_mem = '256MB';
         INSERT INTO model_totals (day, model, requests, succeeded,
             prompt_tokens, completion_tokens, total_tokens)
         SELECT day, model, sum(requests), sum(succeeded),
             sum(prompt_tokens), sum(completion_tokens), sum(total_tokens)
         FROM usage_totals GROUP BY day, model;
         INSERT INTO active_days
         SELECT left(day, 4), key_id, bit_or(set_bit(0::bit(372), day_of_year(day) - 1, 1))
         FROM daily_usage GROUP BY 1, 2;
         INSERT INTO quarter_units
         SELECT quarter_of(day), key_id, bit_or(set_bit(0::bit(93), day_of_quarter(day) - 1, 1)),
             sum_by_day(array_fill(used, ARRAY[1], ARRAY[day_of_quarter(day)]) ORDER BY day)
         FROM daily_usage GROUP BY 1, 2 ORDER BY 2, 1;
         INSERT INTO quarter_requests
         SELECT quarter_of(day), key_id, model,
             bit_or(set_bit(0::bit(93), day_of_quarter(day) - 1, 1)),
             sum_by_day(array_fill(requests, ARRAY[1], ARRAY[day_of_quarter(day)]) ORDER BY day)
         FROM usage_totals GROUP BY 1, 2, 3 ORDER BY 2, 1, 3",
    );
    psql(url, "VACUUM ANALYZE");
    Ok(())
}

/// Inserts single requests of a month ago.
pub(crate) fn old_requests(url: &str, requests: u64) {
    psql(
        url,
        &format!(
            "INSERT INTO requests (key_id, at, method, path, status, outcome, units, refunded,
                 model_asked, model, prompt_tokens, completion_tokens, total_tokens,
                 bytes_in, bytes_out, time_to_head, time_to_first_byte, duration)
             SELECT id, extract(epoch FROM now() - interval '30 days')::bigint * 1000,
                 'POST', '/v1/chat/completions', 200, 'succeeded', 1, false, 'deepseek-chat',
                 'deepseek-chat', 8, 9, 17, 500, 600, 900000, 900100, 1000000
             FROM generate_series(1, {requests}) AS n JOIN api_keys ON seq = 1 + n % 1000"
        ),
    );
}

pub(crate) fn has_old_requests(url: &str) -> bool {
    let sql = "SELECT EXISTS (SELECT 1 FROM requests
        WHERE at < extract(epoch FROM now() - interval '10 days')::bigint * 1000)";
    psql(url, sql) == "t"
}
