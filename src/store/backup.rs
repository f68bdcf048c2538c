use std::fmt;

use bytes::Bytes;

use super::StoreFuture;
use crate::error::StoreError;

/// A copy of a store, read piece by piece.
///
/// ```
/// use bytes::Bytes;
/// use tower_quota::store::{StoreBackup, StoreFuture};
///
/// let mut pieces = vec![Bytes::from_static(b"the copy")].into_iter();
/// let backup = StoreBackup::new(8, move || StoreFuture::ready(Ok(pieces.next().unwrap_or_default())));
/// assert_eq!(backup.len(), 8);
/// ```
pub struct StoreBackup {
    length: u64,
    left: u64,
    read: Box<dyn FnMut() -> StoreFuture<Bytes> + Send>,
}

impl StoreBackup {
    /// A copy of `length` bytes, the next of which each call of `read` returns; none at its end.
    /// What the copy holds on to, such as a temporary file, is given up when `read` is dropped.
    pub fn new(length: u64, read: impl FnMut() -> StoreFuture<Bytes> + Send + 'static) -> Self {
        Self { length, left: length, read: Box::new(read) }
    }

    /// The length of the whole copy, in bytes.
    pub fn len(&self) -> u64 {
        self.length
    }

    /// Whether the copy has no bytes at all.
    pub fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// The next bytes; none once all were read.
    ///
    /// # Errors
    ///
    /// They cannot be read, or are fewer or more than the copy was said to have.
    pub async fn next(&mut self) -> Result<Bytes, StoreError> {
        if self.left == 0 {
            return Ok(Bytes::new());
        }
        let bytes = (self.read)().await?;
        let left = self.left.checked_sub(bytes.len() as u64).filter(|_| !bytes.is_empty());
        self.left = left.ok_or_else(|| StoreError::unavailable("the copy has another length"))?;
        Ok(bytes)
    }
}

impl fmt::Debug for StoreBackup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StoreBackup").field("length", &self.length).finish_non_exhaustive()
    }
}
