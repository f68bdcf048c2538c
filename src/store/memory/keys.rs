use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
    time::SystemTime,
};

use super::{MemoryStore, lock};
use crate::{
    error::{StoreError, StoreErrorKind},
    key::{KeyHash, KeyId, KeyRecord, SecretKey},
    store::{ImportOutcome, ImportedKey, KeyRef, KeyStore, StoreFuture},
};

/// Records in the order in which the keys were issued, indexed by id and by hash.
#[derive(Clone, Default)]
pub(super) struct KeyTable {
    rows: BTreeMap<u64, Row>,
    by_id: HashMap<KeyId, u64>,
    by_hash: HashMap<KeyHash, u64>,
    last_number: u64,
    /// Records of deleted keys, which reports of past usage need.
    deleted: HashMap<KeyId, Arc<KeyRecord>>,
    /// Hashes of secrets that were rotated or deleted, so that they are not imported again.
    revoked: HashMap<KeyHash, KeyId>,
}

#[derive(Clone)]
pub(super) struct Row {
    pub(super) record: Arc<KeyRecord>,
    pub(super) hash: KeyHash,
    old: Option<(KeyHash, SystemTime)>,
}

impl Row {
    /// Whether the label, id or masked key contains this lower-case text, the key has this hash, or
    /// its hash starts with these digits.
    pub(super) fn matches(&self, text: &str, hash: Option<KeyHash>) -> bool {
        self.record.matches(text)
            || hash == Some(self.hash)
            || self.old.is_some_and(|(old, _)| hash == Some(old))
            || text.len() >= 8 && self.hash.to_hex().starts_with(text)
    }
}

impl KeyTable {
    pub(super) fn insert(&mut self, hash: KeyHash, record: KeyRecord) -> Result<(), StoreError> {
        record.check().map_err(StoreError::misconfigured)?;
        if self.by_id.contains_key(&record.id) || self.by_hash.contains_key(&hash) {
            return Err(StoreError::new(StoreErrorKind::Conflict));
        }
        self.last_number += 1;
        self.by_id.insert(record.id.clone(), self.last_number);
        self.by_hash.insert(hash, self.last_number);
        self.rows.insert(self.last_number, Row { record: Arc::new(record), hash, old: None });
        Ok(())
    }

    fn find(&self, hash: &KeyHash, at: SystemTime) -> Option<Arc<KeyRecord>> {
        let row = &self.rows[self.by_hash.get(hash)?];
        let is_valid = row.hash == *hash || row.old.is_some_and(|(_, until)| at < until);
        is_valid.then(|| row.record.clone())
    }

    fn number(&self, key: &KeyRef) -> Option<u64> {
        let by_id = self.by_id.get(&key.id());
        by_id.or_else(|| self.by_hash.get(&key.secret()?.hash())).copied()
    }

    pub(super) fn get(&self, key: &KeyRef) -> Option<&Row> {
        self.rows.get(&self.number(key)?)
    }

    /// Inserts a key that was issued elsewhere, unless it is known.
    pub(super) fn import(&mut self, key: &ImportedKey) -> ImportOutcome {
        if let Some(number) = self.by_hash.get(&key.hash) {
            return ImportOutcome::Unchanged(self.rows[number].record.id.clone());
        }
        if let Some(id) = self.revoked.get(&key.hash) {
            return ImportOutcome::Revoked(id.clone());
        }
        let id = key.record.id.clone();
        match self.insert(key.hash, key.record.clone()) {
            Ok(()) => ImportOutcome::New(id),
            Err(_) => ImportOutcome::IdTaken,
        }
    }

    pub(super) fn by_id(&self, id: &KeyId) -> Option<&KeyRecord> {
        Some(&self.rows[self.by_id.get(id)?].record)
    }

    pub(super) fn update(&mut self, key: &KeyRef, change: impl FnOnce(&mut KeyRecord)) {
        if let Some(row) = self.number(key).and_then(|number| self.rows.get_mut(&number)) {
            change(Arc::make_mut(&mut row.record));
        }
    }

    pub(super) fn rotate(
        &mut self,
        key: &KeyRef,
        secret: &SecretKey,
        old_until: Option<SystemTime>,
    ) {
        let Some(number) = self.number(key) else { return };
        let Some(row) = self.rows.get_mut(&number) else { return };
        let mut revoked: Vec<KeyHash> = row.old.take().map(|(hash, _)| hash).into_iter().collect();
        match old_until {
            Some(until) => row.old = Some((row.hash, until)),
            None => revoked.push(row.hash),
        }
        row.hash = secret.hash();
        Arc::make_mut(&mut row.record).masked = secret.masked();
        let (id, hash) = (row.record.id.clone(), row.hash);
        self.revoke(&id, revoked);
        self.by_hash.insert(hash, number);
    }

    pub(super) fn remove(&mut self, key: &KeyRef) {
        let row = self.number(key).and_then(|number| self.rows.remove(&number));
        let Some(Row { record, hash, old }) = row else { return };
        self.by_id.remove(&record.id);
        self.revoke(&record.id, old.map(|(old, _)| old).into_iter().chain([hash]));
        self.deleted.insert(record.id.clone(), record);
    }

    fn revoke(&mut self, id: &KeyId, hashes: impl IntoIterator<Item = KeyHash>) {
        for hash in hashes {
            self.by_hash.remove(&hash);
            self.revoked.insert(hash, id.clone());
        }
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
        if record.masked.is_empty() {
            record.masked = key.masked();
        }
        lock(&self.0.keys).insert(key.hash(), record)
    }
}

impl KeyStore for MemoryStore {
    fn find(&self, key: &SecretKey) -> StoreFuture<Option<Arc<KeyRecord>>> {
        let record = lock(&self.0.keys).find(&key.hash(), self.0.clock.now());
        StoreFuture::ready(Ok(record))
    }
}
