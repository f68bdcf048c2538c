use std::{sync::Arc, time::SystemTime};

use super::{PostgresStore, checkpoint, unavailable};
use crate::{
    error::StoreError,
    key::KeyId,
    store::{
        Demand, QuotaStatus, QuotaStore, ReserveOutcome, StoreFuture, counter::CounterKey,
        engine::Counter,
    },
};

impl QuotaStore for PostgresStore {
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

    fn status(&self, demand: &Demand) -> StoreFuture<QuotaStatus> {
        let (store, demand) = (self.clone(), demand.clone());
        StoreFuture::pending(async move {
            let counter = store.load_counter((&demand).into(), demand.at).await?;
            Ok(counter.status(&demand, &store.0.core.engine.calendar))
        })
    }
}

impl PostgresStore {
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
        if has_nul(&key.subject) {
            return Err(unavailable(
                "the id of the subject has a NUL, which PostgreSQL cannot store",
            ));
        }
        let client = self.reader().await?;
        if let Some(counter) = engine.counter(&key) {
            return Ok(counter);
        }
        let day = key.first_day(&engine.calendar, at);
        let count = checkpoint::read_count(&client, &key, day).await;
        let count = count.map_err(|error| self.look_up_failed(error))?;
        Ok(engine.insert_counter(key, count))
    }
}

/// Returns whether the id of a subject cannot be stored.
pub(super) fn has_nul(subject: &KeyId) -> bool {
    subject.as_str().contains('\0')
}
