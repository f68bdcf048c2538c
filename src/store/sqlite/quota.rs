use std::sync::Arc;

use rusqlite::Connection;

use super::{SqliteStore, ledger::SqliteLedger, unavailable};
use crate::{
    clock::Day,
    error::StoreError,
    store::{
        Demand, QuotaStatus, QuotaStore, ReserveOutcome, StoreFuture,
        counter::CounterKey,
        engine::{Counter, Ledger},
    },
};

impl QuotaStore for SqliteStore {
    fn reserve(&self, demand: &Demand) -> StoreFuture<ReserveOutcome> {
        let (engine, key) = (&self.0.core.engine, demand.into());
        if let Some(counter) = engine.counter(&key) {
            return StoreFuture::ready(engine.reserve(counter, demand));
        }
        let (store, demand) = (self.clone(), demand.clone());
        StoreFuture::pending(async move {
            let engine = &store.0.core.engine;
            let counter = store.load_counter(key, engine.calendar.window(demand.at).day).await?;
            engine.reserve(counter, &demand)
        })
    }

    fn status(&self, demand: &Demand) -> StoreFuture<QuotaStatus> {
        let (store, key) = (self.clone(), demand.into());
        let (limit, at) = (demand.limit, demand.at);
        StoreFuture::pending(async move {
            let calendar = &store.0.core.engine.calendar;
            let counter = store.load_counter(key, calendar.window(at).day).await?;
            Ok(counter.status(limit, calendar, at))
        })
    }
}

impl SqliteStore {
    /// Returns the counter, and loads it from the database if it is not in memory.
    pub(super) async fn load_counter(
        &self,
        key: CounterKey,
        day: Day,
    ) -> Result<Arc<Counter>, StoreError> {
        let engine = &self.0.core.engine;
        if let Some(counter) = engine.counter(&key) {
            return Ok(counter);
        }
        let known = || engine.counter(&key).map(|counter| counter.count());
        let query_key = key.clone();
        let load = move |connection: &Connection| {
            SqliteLedger::load(connection, &query_key, day).map_err(unavailable)
        };
        let count = self.look_up(known, load).await?;
        Ok(engine.insert_counter(key, count))
    }
}
