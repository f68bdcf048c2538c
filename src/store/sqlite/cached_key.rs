use std::{sync::Arc, time::SystemTime};

use crate::key::KeyRecord;

/// A record in memory, valid for one state of `api_keys`.
#[derive(Clone)]
pub(super) struct CachedKey {
    pub(super) generation: u64,
    pub(super) record: Arc<KeyRecord>,
    /// Until when a rotated key still works.
    pub(super) until: Option<SystemTime>,
}

impl CachedKey {
    pub(super) fn record(&self, now: impl FnOnce() -> SystemTime) -> Option<Arc<KeyRecord>> {
        let valid = self.until.is_none_or(|until| now() < until);
        valid.then(|| self.record.clone())
    }
}
