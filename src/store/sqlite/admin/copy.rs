//! Temporary copies of the file, for downloads.

use std::{
    fs::File,
    io::{self, Read},
    ops::ControlFlow,
    sync::{Arc, atomic::Ordering},
};

use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::super::{
    SqliteOptions, SqliteStore,
    backup::{
        BackupError, Part, copy_with_journal,
        progress::{Observer, Progress},
        unfinished,
    },
    reading::CancelOnDrop,
};
use crate::{
    admin::store::StoreBackup,
    error::{StoreError, StoreErrorKind},
    store::{
        StoreFuture,
        sync::{Mutex, lock},
    },
};

/// Length of the chunks in which a copy is read, in bytes.
const CHUNK_LENGTH: u64 = 256 * 1024;

/// What temporary copies are made of, and the permit for one at a time.
pub(in crate::store::sqlite) struct Copies {
    options: SqliteOptions,
    permit: Arc<Semaphore>,
}

impl Copies {
    pub(in crate::store::sqlite) fn new(options: SqliteOptions) -> Self {
        Self { options, permit: Arc::new(Semaphore::new(1)) }
    }
}

/// Temporary copy that is read in chunks.
struct TemporaryCopy {
    file: File,
    _part: Part,
    /// Dropped last, because the next copy has the same name.
    _permit: OwnedSemaphorePermit,
}

impl TemporaryCopy {
    /// Makes the copy. Returns it with its length.
    fn make(
        options: &SqliteOptions,
        permit: OwnedSemaphorePermit,
        observer: &Observer,
    ) -> Result<(Self, u64), BackupError> {
        let part = Part::create(unfinished(&options.path))?;
        copy_with_journal(options, &part, observer)?;
        let open = || {
            let file = File::open(&part.path)?;
            let length = file.metadata()?.len();
            Ok((file, length))
        };
        let (file, length) = open().map_err(|error| part.failed(error))?;
        // On Unix, an open file remains readable after it was removed.
        if cfg!(unix) {
            part.remove();
        }
        Ok((Self { file, _part: part, _permit: permit }, length))
    }

    fn read_chunk(&self) -> io::Result<Bytes> {
        let mut chunk = Vec::with_capacity(CHUNK_LENGTH as usize);
        (&self.file).take(CHUNK_LENGTH).read_to_end(&mut chunk)?;
        Ok(chunk.into())
    }
}

impl SqliteStore {
    /// Makes a temporary copy beside the database, which is removed when the backup is dropped.
    pub(crate) async fn temporary_copy(&self) -> Result<StoreBackup, StoreError> {
        let permit = self.0.copies.permit.clone().try_acquire_owned();
        let permit = permit.map_err(|_| StoreError::new(StoreErrorKind::Busy))?;
        // Some counts, such as those of rejections, are not in the journal.
        self.flush_for_read().await;
        let (_guard, is_cancelled) = CancelOnDrop::new();
        let observer =
            Observer::new(move |_: &Progress| match is_cancelled.load(Ordering::Relaxed) {
                false => ControlFlow::Continue(()),
                true => ControlFlow::Break(()),
            });
        let store = self.clone();
        let make = move || TemporaryCopy::make(&store.0.copies.options, permit, &observer);
        let copy = tokio::task::spawn_blocking(make).await.map_err(StoreError::unavailable)?;
        let (copy, length) = copy.map_err(StoreError::unavailable)?;
        let copy = Arc::new(Mutex::new(copy));
        Ok(StoreBackup::new(length, move || {
            let copy = copy.clone();
            StoreFuture::pending(async move {
                let chunk = tokio::task::spawn_blocking(move || lock(&copy).read_chunk()).await;
                chunk.map_err(StoreError::unavailable)?.map_err(StoreError::unavailable)
            })
        }))
    }
}
