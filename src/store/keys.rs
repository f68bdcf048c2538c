use std::sync::Arc;

use super::StoreFuture;
use crate::key::{KeyRecord, SecretKey};

/// Finds the record of a presented key.
pub trait KeyStore: Send + Sync + 'static {
    /// The key's record, or `None` if no such key was issued or it was deleted.
    ///
    /// # Errors
    ///
    /// `Unavailable` when the store cannot tell, `KeyMisconfigured` when the record holds a value
    /// that cannot be served. Never an unknown key because of a failing store.
    fn find(&self, key: &SecretKey) -> StoreFuture<Option<Arc<KeyRecord>>>;
}

impl<T: KeyStore + ?Sized> KeyStore for Arc<T> {
    fn find(&self, key: &SecretKey) -> StoreFuture<Option<Arc<KeyRecord>>> {
        (**self).find(key)
    }
}
