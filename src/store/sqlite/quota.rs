use std::{sync::Arc, time::SystemTime};

use rusqlite::Connection;

use super::{SqliteStore, rows::read_count, unavailable};
use crate::{
    error::StoreError,
    store::{
        Demand, QuotaStatus, QuotaStore, ReserveAllOutcome, ReserveOutcome, StoreFuture,
        counter::CounterKey, engine::Counter,
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
            let counter = store.load_counter(key, demand.at).await?;
            store.0.core.engine.reserve(counter, &demand)
        })
    }

    fn reserve_all(&self, demands: &[Demand]) -> StoreFuture<ReserveAllOutcome> {
        let engine = &self.0.core.engine;
        let counters = demands.iter().map(|demand| engine.counter(&demand.into()));
        if let Some(counters) = counters.collect::<Option<Vec<_>>>() {
            return StoreFuture::ready(engine.reserve_all(&counters, demands));
        }
        let (store, demands) = (self.clone(), demands.to_vec());
        StoreFuture::pending(async move {
            let mut counters = Vec::with_capacity(demands.len());
            for demand in &demands {
                counters.push(store.load_counter(demand.into(), demand.at).await?);
            }
            store.0.core.engine.reserve_all(&counters, &demands)
        })
    }

    fn status(&self, demand: &Demand) -> StoreFuture<QuotaStatus> {
        let (store, demand) = (self.clone(), demand.clone());
        StoreFuture::pending(async move {
            let counter = store.load_counter((&demand).into(), demand.at).await?;
            Ok(counter.status(&demand, &store.0.core.engine.calendar))
        })
    }
}

impl SqliteStore {
    /// Returns the counter, and loads it from the database if it is not in memory.
    pub(super) async fn load_counter(
        &self,
        key: CounterKey,
        at: SystemTime,
    ) -> Result<Arc<Counter>, StoreError> {
        let engine = &self.0.core.engine;
        if let Some(counter) = engine.counter(&key) {
            return Ok(counter);
        }
        let known = || engine.counter(&key).map(|counter| counter.count());
        let (query_key, day) = (key.clone(), key.first_day(&engine.calendar, at));
        let load = move |connection: &Connection| {
            read_count(connection, &query_key, day).map_err(unavailable)
        };
        let count = self.look_up(known, load).await?;
        Ok(engine.insert_counter(key, count))
    }
}
