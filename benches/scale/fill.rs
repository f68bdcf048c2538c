//! Fills a SQLite file with many keys and days.

use std::path::Path;

use rusqlite::{Connection, params};
use tower::BoxError;
use tower_quota::{
    admin::store::{Actor, AdminStore, NewKey},
    key::{KeyId, KeyRecord, Limit, SecretKey},
    store::sqlite::{SqliteOptions, SqliteStore},
};

/// Returns the text of a key.
pub(crate) fn key(number: usize) -> String {
    format!("trial-bench-20261123-{number:022}")
}

const DAYS: &str = "
    WITH RECURSIVE days (n, day) AS (
        SELECT 0, date('now') UNION ALL SELECT n + 1, date(day, '-1 day') FROM days WHERE n + 1 < ?1
    )";

/// Creates keys without usage.
pub(crate) async fn create_keys(store: &impl AdminStore, keys: usize) -> Result<(), BoxError> {
    for first in (0..keys).step_by(1000) {
        let some = (first..keys.min(first + 1000)).map(|number| {
            let secret = SecretKey::parse(&key(number))?;
            let mut record = KeyRecord::new(KeyId::generate(), Limit::Units(100_000));
            record.label = format!("participant {number}");
            Ok(NewKey::new(secret, record)?)
        });
        store.create(some.collect::<Result<_, BoxError>>()?, Actor::default()).await?;
    }
    Ok(())
}

/// Creates keys, each with usage on each day, of two models in turn.
pub(crate) async fn fill(path: &Path, keys: usize, days: u32) -> Result<(), BoxError> {
    let store = SqliteStore::open(SqliteOptions::new(path))?;
    create_keys(&store, keys).await?;
    store.close().await?;
    let file = writable(path)?;
    // Rows are inserted in the order of their primary keys.
    file.execute(
        &format!(
            "{DAYS} INSERT INTO daily_usage (key_id, day, used, last_used_at)
             SELECT id, day, 1 + (seq * 7919 + n * 31) % 200, unixepoch(day)
             FROM (SELECT id, seq FROM api_keys ORDER BY id) CROSS JOIN days"
        ),
        [days],
    )?;
    file.execute(
        &format!(
            "{DAYS} INSERT INTO usage_totals (day, key_id, model, requests, succeeded,
                 prompt_tokens, completion_tokens, total_tokens)
             SELECT day, id, iif((seq + n) % 3, 'deepseek-chat', 'deepseek-reasoner'), used, used,
                 used * 100, used * 200, used * 300
             FROM (SELECT n, day, id, seq, 1 + (seq * 7919 + n * 31) % 200 AS used
                 FROM days CROSS JOIN (SELECT id, seq FROM api_keys ORDER BY id))"
        ),
        [days],
    )?;
    file.execute(
        "INSERT INTO model_totals (day, model, requests, succeeded,
             prompt_tokens, completion_tokens, total_tokens)
         SELECT day, model, sum(requests), sum(succeeded),
             sum(prompt_tokens), sum(completion_tokens), sum(total_tokens)
         FROM usage_totals GROUP BY day, model",
        [],
    )?;
    Ok(())
}

/// Inserts single requests of a month ago.
pub(crate) fn old_requests(path: &Path, requests: u64) -> Result<(), BoxError> {
    writable(path)?.execute(
        "WITH RECURSIVE counted (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM counted WHERE n < ?1)
         INSERT INTO requests (key_id, at, method, path, status, outcome, units, refunded,
             model_asked, model, prompt_tokens, completion_tokens, total_tokens,
             bytes_in, bytes_out, time_to_head, time_to_first_byte, duration)
         SELECT (SELECT id FROM api_keys WHERE seq = 1 + n % 1000), (unixepoch() - 2592000) * 1000,
             'POST', '/v1/chat/completions', 200, 'succeeded', 1, 0, 'deepseek-chat',
             'deepseek-chat', 8, 9, 17, 500, 600, 900000, 900100, 1000000
         FROM counted",
        params![requests],
    )?;
    Ok(())
}

pub(crate) fn has_old_requests(path: &Path) -> Result<bool, BoxError> {
    let file = Connection::open(path)?;
    let sql = "SELECT EXISTS (SELECT 1 FROM requests WHERE at < (unixepoch() - 864000) * 1000)";
    Ok(file.query_row(sql, [], |row| row.get(0))?)
}

/// Opens the file for writing while no server uses it. Power loss may damage it, but it can be recreated.
fn writable(path: &Path) -> Result<Connection, BoxError> {
    let file = Connection::open(path)?;
    file.execute_batch("PRAGMA synchronous = OFF; PRAGMA cache_size = -1000000;")?;
    Ok(file)
}
