use std::{sync::Arc, time::SystemTime};

use crate::key::KeyRecord;

/// Record of a presented key, valid for one generation of `api_keys`.
#[derive(Clone)]
pub(super) struct CachedKey {
    pub(super) generation: u64,
    pub(super) record: Arc<KeyRecord>,
    /// Time until which a rotated secret remains valid.
    pub(super) valid_until: Option<SystemTime>,
}

impl CachedKey {
    pub(super) fn record(&self, now: impl FnOnce() -> SystemTime) -> Option<Arc<KeyRecord>> {
        let is_valid = self.valid_until.is_none_or(|until| now() < until);
        is_valid.then(|| self.record.clone())
    }
}
