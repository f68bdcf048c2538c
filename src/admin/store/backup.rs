use std::fmt;

use bytes::Bytes;

use crate::{error::StoreError, store::StoreFuture};

/// Copy of a store, read in chunks.
///
/// ```
/// use bytes::Bytes;
/// use tower_quota::{admin::store::StoreBackup, store::StoreFuture};
///
/// let mut chunks = vec![Bytes::from_static(b"the copy")].into_iter();
/// let backup = StoreBackup::new(8, move || StoreFuture::ready(Ok(chunks.next().unwrap_or_default())));
/// assert_eq!(backup.length(), 8);
/// ```
pub struct StoreBackup {
    length: u64,
    remaining: u64,
    read: Box<dyn FnMut() -> StoreFuture<Bytes> + Send>,
}

impl StoreBackup {
    /// Creates a copy of `length` bytes. Each call of `read` returns the next chunk, and an empty
    /// one at the end. Resources of the copy, such as a temporary file, are released when `read` is
    /// dropped.
    pub fn new(length: u64, read: impl FnMut() -> StoreFuture<Bytes> + Send + 'static) -> Self {
        Self { length, remaining: length, read: Box::new(read) }
    }

    /// Returns the length of the whole copy, in bytes.
    pub fn length(&self) -> u64 {
        self.length
    }

    /// Returns the next chunk, or an empty one once the whole copy was read.
    ///
    /// # Errors
    ///
    /// `Unavailable` if the chunk cannot be read, or the copy is shorter or longer than its length.
    pub async fn next(&mut self) -> Result<Bytes, StoreError> {
        if self.remaining == 0 {
            return Ok(Bytes::new());
        }
        let chunk = (self.read)().await?;
        let remaining = self.remaining.checked_sub(chunk.len() as u64);
        self.remaining = remaining
            .filter(|_| !chunk.is_empty())
            .ok_or_else(|| StoreError::unavailable("the copy differs from its announced length"))?;
        Ok(chunk)
    }
}

impl fmt::Debug for StoreBackup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StoreBackup").field("length", &self.length).finish_non_exhaustive()
    }
}
