//! Queries that are cancelled when their future is dropped.

use std::{
    ffi::c_int,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use rusqlite::Connection;

use crate::error::StoreError;

/// Number of instructions of SQLite's virtual machine between two calls of a progress handler,
/// which take some tens of microseconds.
pub(super) const PROGRESS_INTERVAL: c_int = 10_000;

/// Runs a query on the thread of a reader. The query is interrupted if the future is dropped, so
/// that the reader is free for others.
pub(super) async fn read<T: Send + 'static>(
    reader: &deadpool_sqlite::Connection,
    query: impl FnOnce(&Connection) -> Result<T, StoreError> + Send + 'static,
) -> Result<T, StoreError> {
    let (_guard, is_cancelled) = CancelOnDrop::new();
    let result = reader.interact(move |connection| {
        if is_cancelled.load(Ordering::Relaxed) {
            return Err(StoreError::unavailable("the query was cancelled"));
        }
        let handler = move || is_cancelled.load(Ordering::Relaxed);
        connection
            .progress_handler(PROGRESS_INTERVAL, Some(handler))
            .map_err(StoreError::unavailable)?;
        let result = query(connection);
        connection
            .progress_handler(PROGRESS_INTERVAL, None::<fn() -> bool>)
            .map_err(StoreError::unavailable)
            .and(result)
    });
    result.await.map_err(|error| StoreError::unavailable(error.to_string()))?
}

/// Guard that sets a flag when it is dropped.
pub(super) struct CancelOnDrop(Arc<AtomicBool>);

impl CancelOnDrop {
    /// Creates a guard and its flag.
    pub(super) fn new() -> (Self, Arc<AtomicBool>) {
        let flag = Arc::new(AtomicBool::new(false));
        (Self(flag.clone()), flag)
    }
}

impl Drop for CancelOnDrop {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}
