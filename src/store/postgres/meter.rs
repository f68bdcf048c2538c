//! Gauges of the store, set when they are read.

use std::time::Instant;

use tokio_postgres::Client;

use super::{
    PostgresStore,
    core::Core,
    sql::{self, bigint, int, text},
    unavailable,
};
use crate::store::{
    StoreFuture,
    engine::gauges::{Keys, PERCENT, set_waiting},
};

impl PostgresStore {
    /// Sets the gauges of [`metrics`](crate::metrics) that would cost too much to update with each
    /// request: records that wait for a checkpoint, and keys near their limit as of the last one. Call
    /// it before the gauges are read.
    pub fn set_gauges(&self) -> StoreFuture<()> {
        let store = self.clone();
        StoreFuture::pending(async move {
            let core = &store.0.core;
            set_waiting(core.engine.journal.pending(), core.queue.depth());
            if !store.0.next_count.is_due() {
                return Ok(());
            }
            let began = Instant::now();
            let client = store.reader().await?;
            let keys = keys(&client, core).await.map_err(unavailable)?;
            store.0.next_count.pause_after(began);
            keys.set_gauges();
            Ok(())
        })
    }
}

async fn keys(client: &Client, core: &Core) -> sql::Result<Keys> {
    let sql = "SELECT (SELECT count(*) FROM api_keys),
            count(*) FILTER (WHERE used * 100.0 >= daily_limit * $1),
            count(*) FILTER (WHERE used * 100.0 >= daily_limit * $2),
            count(*) FILTER (WHERE used * 100.0 >= daily_limit * $3)
        FROM (SELECT u.used, coalesce(k.daily_limit, $4)::numeric AS daily_limit
              FROM daily_usage u JOIN api_keys k ON k.id = u.key_id
              WHERE u.quota = 'daily' AND u.day = $5) AS used
        WHERE daily_limit > 0";
    let [first, second, third] = PERCENT.map(|(percent, _)| percent);
    let (default, day) = (bigint(core.default_limits.daily.number()), core.today().to_string());
    let params = [int(&first), int(&second), int(&third), int(&default), text(&day)];
    let row = sql::one(client, sql, &params).await?;
    Ok(Keys { all: row.try_get(0)?, near: [row.try_get(1)?, row.try_get(2)?, row.try_get(3)?] })
}
