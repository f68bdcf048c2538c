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

/// Records in the order of their issue, found by id and by hash.
#[derive(Clone, Default)]
pub(super) struct KeyTable {
    rows: BTreeMap<u64, Row>,
    by_id: HashMap<KeyId, u64>,
    by_hash: HashMap<KeyHash, u64>,
    last: u64,
    /// What reports of the past show.
    deleted: HashMap<KeyId, Arc<KeyRecord>>,
    /// What was rotated away or deleted.
    revoked: HashMap<KeyHash, KeyId>,
}

#[derive(Clone)]
pub(super) struct Row {
    pub(super) record: Arc<KeyRecord>,
    pub(super) hash: KeyHash,
    old: Option<(KeyHash, SystemTime)>,
}

impl Row {
    /// Whether label, id or masked key holds this lower-case text, the key has this hash, or its hash
    /// begins with these digits.
    pub(super) fn matches(&self, text: &str, hash: Option<KeyHash>) -> bool {
        self.record.matches(text)
            || hash == Some(self.hash)
            || self.old.is_some_and(|(old, _)| hash == Some(old))
            || text.len() >= 8 && self.hash.to_hex().starts_with(text)
    }
}

impl KeyTable {
    pub(super) fn insert(&mut self, hash: KeyHash, record: KeyRecord) -> Result<(), StoreError> {
        if self.by_id.contains_key(&record.id) || self.by_hash.contains_key(&hash) {
            return Err(StoreError::new(StoreErrorKind::Conflict));
        }
        self.last += 1;
        self.by_id.insert(record.id.clone(), self.last);
        self.by_hash.insert(hash, self.last);
        self.rows.insert(self.last, Row { record: Arc::new(record), hash, old: None });
        Ok(())
    }

    fn find(&self, hash: &KeyHash, at: SystemTime) -> Option<Arc<KeyRecord>> {
        let row = &self.rows[self.by_hash.get(hash)?];
        let valid = row.hash == *hash || row.old.is_some_and(|(_, until)| at < until);
        valid.then(|| row.record.clone())
    }

    fn number(&self, key: &KeyRef) -> Option<u64> {
        let by_id = self.by_id.get(&key.id());
        by_id.or_else(|| self.by_hash.get(&key.secret()?.hash())).copied()
    }

    pub(super) fn get(&self, key: &KeyRef) -> Option<&Row> {
        self.rows.get(&self.number(key)?)
    }

    /// Takes over a key that was issued elsewhere, unless it is known.
    pub(super) fn import(&mut self, key: &ImportedKey) -> ImportOutcome {
        if let Some(number) = self.by_hash.get(&key.hash) {
            return ImportOutcome::Unchanged(self.rows[number].record.id.clone());
        }
        if let Some(id) = self.revoked.get(&key.hash) {
            return ImportOutcome::Revoked(id.clone());
        }
        let record = key.record();
        let id = record.id.clone();
        match self.insert(key.hash, record) {
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
        let Some(number) = self.number(key) else {
            return;
        };
        let Some(row) = self.rows.get_mut(&number) else {
            return;
        };
        let mut gone: Vec<KeyHash> = row.old.take().map(|(older, _)| older).into_iter().collect();
        match old_until {
            Some(until) => row.old = Some((row.hash, until)),
            None => gone.push(row.hash),
        }
        for hash in gone {
            self.by_hash.remove(&hash);
            self.revoked.insert(hash, row.record.id.clone());
        }
        row.hash = secret.hash();
        Arc::make_mut(&mut row.record).masked = secret.masked();
        self.by_hash.insert(row.hash, number);
    }

    pub(super) fn remove(&mut self, key: &KeyRef) {
        let Some(number) = self.number(key) else {
            return;
        };
        if let Some(row) = self.rows.remove(&number) {
            self.by_id.remove(&row.record.id);
            for hash in [Some(row.hash), row.old.map(|(old, _)| old)].into_iter().flatten() {
                self.by_hash.remove(&hash);
                self.revoked.insert(hash, row.record.id.clone());
            }
            self.deleted.insert(row.record.id.clone(), row.record);
        }
    }

    /// The record of this id, also of a key that was deleted.
    pub(super) fn by_id_ever(&self, id: &KeyId) -> Option<&KeyRecord> {
        self.by_id(id).or_else(|| Some(&**self.deleted.get(id)?))
    }

    /// The rows and their numbers, in the order of their issue.
    pub(super) fn rows(&self) -> impl Iterator<Item = (u64, &Row)> {
        self.rows.iter().map(|(number, row)| (*number, row))
    }

    pub(super) fn len(&self) -> usize {
        self.rows.len()
    }
}

impl MemoryStore {
    /// Issues `key` with this record.
    ///
    /// # Errors
    ///
    /// `Conflict` if the key or the record's id exists already.
    pub fn insert(&self, key: &SecretKey, mut record: KeyRecord) -> Result<(), StoreError> {
        if record.masked.is_empty() {
            record.masked = key.masked();
        }
        lock(&self.0.keys).insert(key.hash(), record)
    }
}

impl KeyStore for MemoryStore {
    fn find(&self, key: &SecretKey) -> StoreFuture<Option<Arc<KeyRecord>>> {
        let found = lock(&self.0.keys).find(&key.hash(), self.0.clock.now());
        StoreFuture::ready(Ok(found))
    }
}
