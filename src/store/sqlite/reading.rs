//! Reading on the readers' threads, for as long as somebody waits for it.

use std::{
    ffi::c_int,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use rusqlite::Connection;

use crate::error::StoreError;

/// So many steps of SQLite's machine lie between two looks at whether anybody still waits: some tens
/// of microseconds.
pub(super) const STEPS: c_int = 10_000;

/// Reads, and gives up when the future is dropped: the reader is needed by others.
pub(super) async fn read<T: Send + 'static>(
    reader: &deadpool_sqlite::Connection,
    query: impl FnOnce(&Connection) -> Result<T, StoreError> + Send + 'static,
) -> Result<T, StoreError> {
    let (_waits, still) = Waits::new();
    let left = || StoreError::unavailable("nobody waits for it");
    let answer = reader.interact(move |connection| {
        if !still.load(Ordering::Relaxed) {
            return Err(left());
        }
        let has_left = move || !still.load(Ordering::Relaxed);
        connection.progress_handler(STEPS, Some(has_left)).map_err(StoreError::unavailable)?;
        let answer = query(connection);
        let none = connection.progress_handler(STEPS, None::<fn() -> bool>);
        none.map_err(StoreError::unavailable).and(answer)
    });
    answer.await.map_err(|error| StoreError::unavailable(error.to_string()))?
}

/// Tells the reader's thread when nobody waits any more.
pub(super) struct Waits(Arc<AtomicBool>);

impl Waits {
    /// The waiting side, and the flag that is set as long as it is there.
    pub(super) fn new() -> (Self, Arc<AtomicBool>) {
        let flag = Arc::new(AtomicBool::new(true));
        (Self(flag.clone()), flag)
    }
}

impl Drop for Waits {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Relaxed);
    }
}
