//! Records of presented keys, of a table that others may change.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::SystemTime,
};

use super::sync::SharedMap;
use crate::key::{KeyHash, KeyRecord};

/// Record of a presented key, valid for one generation of the table.
#[derive(Clone)]
pub(crate) struct CachedKey {
    generation: u64,
    record: Arc<KeyRecord>,
    /// Time until which a rotated secret remains valid.
    valid_until: Option<SystemTime>,
}

/// Records of presented keys, of the current generation of the table.
#[derive(Default)]
pub(crate) struct KeyCache {
    keys: SharedMap<KeyHash, CachedKey>,
    generation: AtomicU64,
}

impl CachedKey {
    /// Creates an entry of a record that was read after this generation began.
    pub(crate) fn new(generation: u64, record: KeyRecord, valid_until: Option<SystemTime>) -> Self {
        Self { generation, record: Arc::new(record), valid_until }
    }

    /// Returns the record, unless the secret was rotated and is not valid any more.
    pub(crate) fn record(&self, now: impl FnOnce() -> SystemTime) -> Option<Arc<KeyRecord>> {
        let is_valid = self.valid_until.is_none_or(|until| now() < until);
        is_valid.then(|| self.record.clone())
    }
}

impl KeyCache {
    /// Returns the generation of the table; read it before the table.
    pub(crate) fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    /// Starts a new generation of the table.
    pub(crate) fn forget(&self) {
        self.generation.fetch_add(1, Ordering::AcqRel);
        self.keys.clear();
    }

    /// Returns the entry, if it is of the current generation.
    pub(crate) fn get(&self, hash: &KeyHash) -> Option<CachedKey> {
        let found = self.keys.get(hash)?;
        (found.generation == self.generation()).then(|| found.clone())
    }

    pub(crate) fn insert(&self, hash: KeyHash, key: CachedKey) {
        self.keys.insert(hash, key);
    }
}
