//! Gauges of the store, set when they are read.

use std::time::Instant;

use rusqlite::{Connection, named_params};

use super::{SqliteStore, core::Core, unavailable};
use crate::store::{
    StoreFuture,
    engine::gauges::{Keys, PERCENT, set_waiting},
};

impl SqliteStore {
    /// Sets the gauges of [`metrics`](crate::metrics) that would cost too much to update with each
    /// request: records that wait for a checkpoint, and keys near their limit as of the last one. Call
    /// it before the gauges are read.
    pub fn set_gauges(&self) -> StoreFuture<()> {
        let store = self.clone();
        StoreFuture::pending(async move {
            let core = store.0.core.clone();
            set_waiting(core.engine.journal.pending(), core.queue.depth());
            if !store.0.next_count.is_due() {
                return Ok(());
            }
            let began = Instant::now();
            let keys = store.read(move |connection| keys(connection, &core).map_err(unavailable));
            let keys = keys.await?;
            store.0.next_count.pause_after(began);
            keys.set_gauges();
            Ok(())
        })
    }
}

fn keys(connection: &Connection, core: &Core) -> rusqlite::Result<Keys> {
    // A key whose limit is not a number is not served.
    let mut statement = connection.prepare_cached(
        "SELECT coalesce(sum(used * 100 >= daily_limit * :first), 0),
                coalesce(sum(used * 100 >= daily_limit * :second), 0),
                coalesce(sum(used * 100 >= daily_limit * :third), 0)
         FROM (SELECT u.used, coalesce(k.daily_limit, :default) AS daily_limit
               FROM daily_usage u JOIN api_keys k ON k.id = u.key_id
               WHERE u.quota = 'daily' AND u.day = :day)
         WHERE typeof(daily_limit) = 'integer' AND daily_limit > 0",
    )?;
    let [first, second, third] = PERCENT.map(|(percent, _)| percent);
    let parameters = named_params! {
        ":first": first,
        ":second": second,
        ":third": third,
        ":default": core.default_limits.daily.number(),
        ":day": core.today().to_string(),
    };
    let read = |row: &rusqlite::Row<'_>| Ok([row.get(0)?, row.get(1)?, row.get(2)?]);
    let near = statement.query_row(parameters, read)?;
    let all = connection.query_row("SELECT count(*) FROM api_keys", [], |row| row.get(0))?;
    Ok(Keys { all, near })
}
