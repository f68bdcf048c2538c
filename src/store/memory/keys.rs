use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
    time::SystemTime,
};

use foldhash::fast::RandomState;

use super::{MemoryStore, lock};
use crate::{
    error::{StoreError, StoreErrorKind},
    key::{KeyHash, KeyId, KeyRecord, SecretKey},
    store::{KeyStore, StoreFuture},
};

/// Records in the order in which the keys were issued, indexed by id and by hash.
#[derive(Clone, Default)]
pub(super) struct KeyTable {
    pub(super) rows: BTreeMap<u64, Row>,
    pub(super) by_id: HashMap<KeyId, u64>,
    pub(super) by_hash: HashMap<KeyHash, u64, RandomState>,
    last_number: u64,
    /// Records of deleted keys, which reports of past usage need.
    pub(super) deleted: HashMap<KeyId, Arc<KeyRecord>>,
    /// Hashes of secrets that were rotated or deleted, so that they are not imported again.
    #[cfg(feature = "admin")]
    pub(super) revoked: HashMap<KeyHash, KeyId>,
}

#[derive(Clone)]
pub(super) struct Row {
    pub(super) record: Arc<KeyRecord>,
    pub(super) hash: KeyHash,
    pub(super) old: Option<(KeyHash, SystemTime)>,
}

impl KeyTable {
    pub(super) fn insert(&mut self, hash: KeyHash, record: KeyRecord) -> Result<(), StoreError> {
        if self.by_id.contains_key(&record.id) || self.by_hash.contains_key(&hash) {
            return Err(StoreError::new(StoreErrorKind::Conflict));
        }
        self.last_number += 1;
        self.by_id.insert(record.id.clone(), self.last_number);
        self.by_hash.insert(hash, self.last_number);
        self.rows.insert(self.last_number, Row { record: Arc::new(record), hash, old: None });
        Ok(())
    }

    fn find(&self, hash: &KeyHash, now: impl FnOnce() -> SystemTime) -> Option<Arc<KeyRecord>> {
        let row = &self.rows[self.by_hash.get(hash)?];
        let is_valid = row.hash == *hash || row.old.is_some_and(|(_, until)| now() < until);
        is_valid.then(|| row.record.clone())
    }

    pub(super) fn by_id(&self, id: &KeyId) -> Option<&KeyRecord> {
        Some(&self.rows[self.by_id.get(id)?].record)
    }

    /// Returns the record with this id, also if the key was deleted.
    pub(super) fn by_id_or_deleted(&self, id: &KeyId) -> Option<&KeyRecord> {
        self.by_id(id).or_else(|| Some(&**self.deleted.get(id)?))
    }

    /// Returns the rows and their sequence numbers, in the order in which the keys were issued.
    pub(super) fn rows(&self) -> impl Iterator<Item = (u64, &Row)> {
        self.rows.iter().map(|(number, row)| (*number, row))
    }

    pub(super) fn len(&self) -> usize {
        self.rows.len()
    }
}

impl MemoryStore {
    /// Inserts `key` with this record.
    ///
    /// # Errors
    ///
    /// `Conflict` if the key or the record's id already exists; `KeyMisconfigured` if the record's limit
    /// has no [stored](crate::key::Limit::to_stored) form.
    pub fn insert(&self, key: &SecretKey, mut record: KeyRecord) -> Result<(), StoreError> {
        record.check().map_err(StoreError::misconfigured)?;
        if record.masked.is_empty() {
            record.masked = key.masked();
        }
        lock(&self.0.keys).insert(key.hash(), record)
    }
}

impl KeyStore for MemoryStore {
    fn find(&self, key: &SecretKey) -> StoreFuture<Option<Arc<KeyRecord>>> {
        let hash = key.hash();
        let record = lock(&self.0.keys).find(&hash, || self.0.clock.now());
        StoreFuture::ready(Ok(record))
    }
}
