//! Gauges of the store, set when they are read.

use std::time::Instant;

use rusqlite::{Connection, named_params};

use super::{SqliteStore, core::Core, unavailable};
use crate::{
    metrics::names,
    store::{
        StoreFuture,
        sync::{Mutex, lock},
    },
};

/// Percent of a day's limit at and above which keys are counted.
const PERCENT: [(i64, &str); 3] = [(80, "80"), (95, "95"), (100, "100")];

/// Pause after counting keys, as a multiple of the time that it took: it uses at most a hundredth of a
/// core. Counting 100,000 keys in use a day takes half a second.
const PAUSE_FACTOR: u32 = 100;

/// Time at which the keys are counted again.
pub(super) struct NextCount(Mutex<Option<Instant>>);

impl NextCount {
    pub(super) fn new() -> Self {
        Self(Mutex::new(None))
    }

    fn is_due(&self) -> bool {
        lock(&self.0).is_none_or(|due| due <= Instant::now())
    }

    fn pause_after(&self, began: Instant) {
        *lock(&self.0) = Some(Instant::now() + PAUSE_FACTOR * began.elapsed());
    }
}

/// Number of keys, and of those at or above each of [`PERCENT`].
struct Keys {
    all: i64,
    near: [i64; PERCENT.len()],
}

impl SqliteStore {
    /// Sets the gauges of [`metrics`](crate::metrics) that would cost too much to update with each
    /// request: records that wait for a checkpoint, and keys near their limit as of the last one. Call
    /// it before the gauges are read.
    pub fn set_gauges(&self) -> StoreFuture<()> {
        let store = self.clone();
        StoreFuture::pending(async move {
            let core = store.0.core.clone();
            names::PENDING_RECORDS.gauge(&[]).set(core.engine.journal.pending() as f64);
            names::QUEUE.gauge(&[]).set(core.queue.depth() as f64);
            if !store.0.next_count.is_due() {
                return Ok(());
            }
            let began = Instant::now();
            let keys = store.read(move |connection| keys(connection, &core).map_err(unavailable));
            let Keys { all, near } = keys.await?;
            store.0.next_count.pause_after(began);
            names::KEYS.gauge(&[]).set(all as f64);
            for ((_, percent), keys) in PERCENT.into_iter().zip(near) {
                names::KEYS_NEAR_LIMIT.gauge(&[("percent", percent)]).set(keys as f64);
            }
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
        ":default": core.default_daily_limit.number(),
        ":day": core.today().to_string(),
    };
    let read = |row: &rusqlite::Row<'_>| Ok([row.get(0)?, row.get(1)?, row.get(2)?]);
    let near = statement.query_row(parameters, read)?;
    let all = connection.query_row("SELECT count(*) FROM api_keys", [], |row| row.get(0))?;
    Ok(Keys { all, near })
}
