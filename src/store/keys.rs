use std::sync::Arc;

use super::StoreFuture;
use crate::key::{KeyRecord, SecretKey};

/// Finds the record of a presented key.
pub trait KeyStore: Send + Sync + 'static {
    /// Returns the record of the key, or `None` if the key was never issued or was deleted.
    ///
    /// # Errors
    ///
    /// `Unavailable` if the store fails, which must never look like an unknown key, and
    /// `KeyMisconfigured` if the record contains an invalid value.
    fn find(&self, key: &SecretKey) -> StoreFuture<Option<Arc<KeyRecord>>>;
}

impl<T: KeyStore + ?Sized> KeyStore for Arc<T> {
    fn find(&self, key: &SecretKey) -> StoreFuture<Option<Arc<KeyRecord>>> {
        (**self).find(key)
    }
}
