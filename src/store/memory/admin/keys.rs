//! Changes of the table of keys.

use std::{sync::Arc, time::SystemTime};

use super::super::keys::{KeyTable, Row};
use crate::{
    admin::store::{ImportOutcome, ImportedKey, KeyRef},
    key::{KeyHash, KeyId, KeyRecord, SecretKey},
};

impl KeyTable {
    fn number(&self, key: &KeyRef) -> Option<u64> {
        let by_id = self.by_id.get(&key.id());
        by_id.or_else(|| self.by_hash.get(&key.secret()?.hash())).copied()
    }

    pub(super) fn get(&self, key: &KeyRef) -> Option<&Row> {
        self.rows.get(&self.number(key)?)
    }

    /// Inserts a key that was issued elsewhere, unless it is known.
    pub(super) fn import(&mut self, key: &ImportedKey) -> ImportOutcome {
        if let Some(number) = self.by_hash.get(&key.hash()) {
            return ImportOutcome::Unchanged(self.rows[number].record.id.clone());
        }
        if let Some(id) = self.revoked.get(&key.hash()) {
            return ImportOutcome::Revoked(id.clone());
        }
        let id = key.record().id.clone();
        match self.insert(key.hash(), key.record().clone()) {
            Ok(()) => ImportOutcome::New(id),
            Err(_) => ImportOutcome::IdTaken,
        }
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

    /// Undoes the insertion of a key, which may be inserted or imported again.
    pub(super) fn undo_insert(&mut self, id: &KeyId) {
        let row = self.by_id.remove(id).and_then(|number| self.rows.remove(&number));
        if let Some(row) = row {
            self.by_hash.remove(&row.hash);
        }
    }

    fn revoke(&mut self, id: &KeyId, hashes: impl IntoIterator<Item = KeyHash>) {
        for hash in hashes {
            self.by_hash.remove(&hash);
            self.revoked.insert(hash, id.clone());
        }
    }
}
