use std::{sync::Arc, time::SystemTime};

use rusqlite::Connection;

use super::{SqliteStore, ledger::SqliteLedger, unavailable};
use crate::{
    error::StoreError,
    key::KeyId,
    store::{
        QuotaStatus, QuotaStore, QuotaSubject, ReserveOutcome, StoreFuture,
        engine::{Counter, Ledger},
    },
};

impl QuotaStore for SqliteStore {
    fn reserve(&self, subject: &QuotaSubject, at: SystemTime) -> StoreFuture<ReserveOutcome> {
        let engine = &self.0.core.engine;
        if let Some(counter) = engine.counter(&subject.id) {
            return StoreFuture::ready(engine.reserve(counter, subject, at));
        }
        let (store, subject) = (self.clone(), subject.clone());
        StoreFuture::pending(async move {
            let counter = store.load_counter(&subject.id, at).await?;
            store.0.core.engine.reserve(counter, &subject, at)
        })
    }

    fn status(&self, subject: &QuotaSubject, at: SystemTime) -> StoreFuture<QuotaStatus> {
        let (store, subject) = (self.clone(), subject.clone());
        StoreFuture::pending(async move {
            let counter = store.load_counter(&subject.id, at).await?;
            Ok(counter.status(&subject, &store.0.core.engine.calendar, at))
        })
    }
}

impl SqliteStore {
    /// The subject's counter, read from the file the first time.
    pub(super) async fn load_counter(
        &self,
        id: &KeyId,
        at: SystemTime,
    ) -> Result<Arc<Counter>, StoreError> {
        let engine = &self.0.core.engine;
        if let Some(counter) = engine.counter(id) {
            return Ok(counter);
        }
        let (key_id, day) = (id.clone(), engine.calendar.window(at).day);
        let known = || engine.counter(id).map(|counter| counter.count());
        let load = move |connection: &Connection| {
            SqliteLedger::load(connection, &key_id, day).map_err(unavailable)
        };
        let count = self.look_up(known, load).await?;
        Ok(engine.insert_counter(id, count))
    }
}
