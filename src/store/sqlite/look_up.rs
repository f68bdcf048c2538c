//! Look-ups of keys and counters, which requests wait for.

use deadpool_sqlite::{Object, Pool};
use rusqlite::Connection;
use tokio::sync::Semaphore;

use super::{file, reading::read};
use crate::{
    error::StoreError,
    store::sync::{Mutex, lock},
};

/// Readers for look-ups, which must not wait for reports.
pub(super) struct LookUps {
    pool: Pool,
    /// One permit for each reader of the pool.
    permits: Semaphore,
    /// Readers that have responded the last time. They stay out of the pool, which runs a query on its thread before it
    /// hands one out.
    tested: Mutex<Vec<Object>>,
}

impl LookUps {
    pub(super) fn new(pool: Pool) -> Self {
        Self { pool, permits: Semaphore::new(file::READERS), tested: Mutex::default() }
    }

    /// Runs a query once a reader is available, unless `cached` then returns the value that a concurrent
    /// request has read.
    pub(super) async fn run<T: Send + 'static>(
        &self,
        cached: impl FnOnce() -> Option<T>,
        query: impl FnOnce(&Connection) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let permit = self.permits.acquire().await;
        let _permit = permit.map_err(StoreError::unavailable)?;
        if let Some(value) = cached() {
            return Ok(value);
        }
        let tested = lock(&self.tested).pop();
        let reader = match tested {
            Some(reader) => reader,
            None => self.pool.get().await.map_err(StoreError::unavailable)?,
        };
        let value = read(&reader, query).await?;
        lock(&self.tested).push(reader);
        Ok(value)
    }
}
