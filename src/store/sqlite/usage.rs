use rusqlite::Connection;

use super::{SqliteStore, reports, requests, unavailable};
use crate::store::{
    RequestQuery, RequestRecord, StoreFuture, UsageEvent, UsageQuery, UsageReader, UsageReport,
    UsageSink,
};

impl UsageSink for SqliteStore {
    fn record(&self, event: UsageEvent) {
        self.0.core.engine.record(&event);
    }
}

impl UsageReader for SqliteStore {
    fn report(&self, query: UsageQuery) -> StoreFuture<UsageReport> {
        let store = self.clone();
        StoreFuture::pending(async move {
            store.flush_for_read().await;
            let default = store.0.core.default_daily_limit;
            let is_of_key = query.key_id.is_some();
            let read = move |connection: &Connection| {
                reports::read(connection, &query, default).map_err(unavailable)
            };
            if is_of_key { store.read_of_key(read).await } else { store.read_report(read).await }
        })
    }

    fn requests(&self, query: RequestQuery) -> StoreFuture<Vec<RequestRecord>> {
        let store = self.clone();
        StoreFuture::pending(async move {
            store.flush_for_read().await;
            let is_of_key = query.key_id.is_some();
            let read = move |connection: &Connection| {
                requests::read(connection, &query).map_err(unavailable)
            };
            if is_of_key { store.read_of_key(read).await } else { store.read(read).await }
        })
    }
}
