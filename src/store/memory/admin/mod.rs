//! Administration of keys.

mod claims;
mod keys;

use std::{collections::HashMap, time::SystemTime};

use self::claims::ClaimRow;
use super::{
    Inner, MemoryStore,
    keys::{KeyTable, Row},
    lock,
};
use crate::{
    admin::store::{
        Actor, AdminStore, AuditEntry, AuditNote, AuditQuery, ChangeOutcome, ClaimOffer,
        CreateOutcome, IdempotencyKey, ImportOutcome, ImportedKey, KeyChange, KeyEdit, KeyPage,
        KeyPageQuery, KeyRef, KeySummary, NewKey, OnIssued,
    },
    clock::Day,
    error::StoreError,
    key::{KeyId, KeyRecord},
    store::{StoreFuture, counter::CounterKey, sync::Mutex},
};

/// What only the administration needs.
#[derive(Default)]
pub(super) struct Records {
    audit: Mutex<Vec<AuditEntry>>,
    claims: Mutex<Vec<ClaimRow>>,
    creations: Mutex<HashMap<[u8; 32], IdempotentCreation>>,
}

/// Keys that were issued with an idempotency key.
struct IdempotentCreation {
    request: [u8; 32],
    ids: Vec<KeyId>,
    at: SystemTime,
}

impl Inner {
    fn create(&self, keys: &[NewKey], by: &Actor) -> Result<Vec<KeyRecord>, StoreError> {
        let mut table = lock(&self.keys);
        let now = self.clock.now();
        let records: Vec<KeyRecord> = keys.iter().map(|key| key.issued_at(now)).collect();
        for (n, (key, record)) in keys.iter().zip(&records).enumerate() {
            if let Err(error) = table.insert(key.secret().hash(), record.clone()) {
                for record in &records[..n] {
                    table.undo_insert(&record.id);
                }
                return Err(error);
            }
        }
        for record in &records {
            self.write_audit(AuditNote::created(record), by);
        }
        Ok(records)
    }

    fn summary(&self, row: &Row) -> KeySummary {
        let record = &row.record;
        let totals = lock(&self.totals);
        let today = self.calendar.window(self.clock.now()).day;
        KeySummary {
            used_today: totals.used_on(&record.id, today),
            total_used: totals.used_in_all(&record.id),
            last_used_at: totals.last_used_at(&record.id),
            record: KeyRecord::clone(record),
            hash: Some(row.hash),
            claim: self.latest_claim(&record.id),
        }
    }

    fn import(&self, keys: &[ImportedKey], dry_run: bool, by: &Actor) -> Vec<ImportOutcome> {
        let mut table = lock(&self.keys);
        if dry_run {
            let mut copy = table.clone();
            return keys.iter().map(|key| copy.import(key)).collect();
        }
        let import = |key: &ImportedKey| {
            let imported = table.import(key);
            if let ImportOutcome::New(id) | ImportOutcome::Unchanged(id) = &imported {
                let mut totals = lock(&self.totals);
                key.used().iter().for_each(|(day, used)| totals.fill(id, *day, *used));
            }
            if let ImportOutcome::New(id) = &imported {
                self.write_audit(
                    AuditNote::imported(&KeyRecord { id: id.clone(), ..key.record().clone() }),
                    by,
                );
            }
            imported
        };
        keys.iter().map(import).collect()
    }

    fn write_audit(&self, note: AuditNote, by: &Actor) {
        let mut audit = lock(&self.admin.audit);
        let number = audit.len() as u64 + 1;
        audit.push(AuditEntry::new(number, self.clock.now(), by.clone(), note));
    }

    fn apply(&self, keys: &mut KeyTable, key: &KeyRef, id: &KeyId, change: &KeyChange) {
        match change {
            KeyChange::Update(patch) => keys.update(key, |record| patch.apply(record)),
            KeyChange::Rotate(rotation) => {
                keys.rotate(key, &rotation.secret, rotation.old_until(self.clock.now()));
            }
            KeyChange::ResetUsage => {
                let now = self.clock.now();
                // No counter is added meanwhile.
                let _eviction = lock(&self.eviction);
                let daily = CounterKey::daily(id.clone());
                self.change_used(&daily, daily.first_day(&self.calendar, now), |_| 0);
                for counter in self.counters.iter().filter(|counter| counter.key().subject == *id) {
                    counter.reset(|count| {
                        let day = counter.key().first_day(&self.calendar, now);
                        self.change_used(counter.key(), day, |_| 0);
                        count.after_reset(day)
                    });
                }
            }
            KeyChange::Delete => keys.remove(key),
        }
    }
}

impl AdminStore for MemoryStore {
    fn create(&self, keys: Vec<NewKey>, by: Actor) -> StoreFuture<Vec<KeyRecord>> {
        StoreFuture::ready(self.0.create(&keys, &by))
    }

    fn create_once(
        &self,
        keys: Vec<NewKey>,
        idempotency_key: IdempotencyKey,
        by: Actor,
        on_issued: OnIssued,
    ) -> StoreFuture<CreateOutcome> {
        let (name, request) = (idempotency_key.name(), idempotency_key.request());
        let now = self.0.clock.now();
        let mut creations = lock(&self.0.admin.creations);
        creations.retain(|_, creation| {
            now.duration_since(creation.at).is_ok_and(|age| age < IdempotencyKey::RETENTION)
        });
        if let Some(creation) = creations.get(&name) {
            return StoreFuture::ready(Ok(if creation.request == request {
                CreateOutcome::Replayed(creation.ids.clone())
            } else {
                CreateOutcome::OtherRequest
            }));
        }
        let outcome = self.0.create(&keys, &by).map(|records| {
            let ids = records.iter().map(|record| record.id.clone()).collect();
            creations.insert(name, IdempotentCreation { request, ids, at: now });
            on_issued(&records);
            CreateOutcome::Issued(records)
        });
        StoreFuture::ready(outcome)
    }

    fn import(
        &self,
        keys: Vec<ImportedKey>,
        dry_run: bool,
        by: Actor,
    ) -> StoreFuture<Vec<ImportOutcome>> {
        StoreFuture::ready(Ok(self.0.import(&keys, dry_run, &by)))
    }

    fn list(&self, query: KeyPageQuery) -> StoreFuture<KeyPage> {
        let keys = lock(&self.0.keys);
        let summaries = keys.rows().map(|(number, row)| (number, row, self.0.summary(row)));
        let found = summaries.filter(|(_, row, key)| query.finds(key, row.old.map(|(old, _)| old)));
        let found = found.map(|(number, _, key)| (number, key));
        StoreFuture::ready(Ok(query.page(found, self.0.clock.now())))
    }

    fn get(&self, key: KeyRef) -> StoreFuture<Option<KeySummary>> {
        let keys = lock(&self.0.keys);
        StoreFuture::ready(Ok(keys.get(&key).map(|row| self.0.summary(row))))
    }

    fn change(&self, edit: KeyEdit) -> StoreFuture<ChangeOutcome> {
        let mut keys = lock(&self.0.keys);
        let Some(row) = keys.get(&edit.key) else {
            return StoreFuture::ready(Ok(ChangeOutcome::UnknownKey));
        };
        let before = self.0.summary(row);
        if !edit.applies_to(&before) {
            return StoreFuture::ready(Ok(ChangeOutcome::VersionMismatch));
        }
        let KeyEdit { change, by, .. } = edit;
        let id = before.record.id.clone();
        // `edit.key` may be the secret that a rotation replaces.
        let by_id = KeyRef::new(id.as_str());
        self.0.apply(&mut keys, &by_id, &id, &change);
        let mut after = keys.get(&by_id).map_or(before.clone(), |row| self.0.summary(row));
        if change.withdraws_claims(&before.record, &after.record, self.0.clock.now()) {
            self.0.withdraw_claims(&id);
            after.claim = self.0.latest_claim(&id);
        }
        self.0.write_audit(AuditNote::changed(&change, &before, &after), &by);
        StoreFuture::ready(Ok(ChangeOutcome::Done(after.into())))
    }

    fn offer_claim(&self, offer: ClaimOffer, by: Actor) -> StoreFuture<Option<KeySummary>> {
        StoreFuture::ready(Ok(self.0.offer_claim(offer, &by)))
    }

    fn note(&self, note: AuditNote, by: Actor) -> StoreFuture<()> {
        self.0.write_audit(note, &by);
        StoreFuture::ready(Ok(()))
    }

    fn audit(&self, query: AuditQuery) -> StoreFuture<Vec<AuditEntry>> {
        let keys = lock(&self.0.keys);
        let audit = lock(&self.0.admin.audit);
        let label = |id: &KeyId| Some(keys.by_id_or_deleted(id)?.label.clone());
        let with_label = |entry: &AuditEntry| AuditEntry {
            label: entry.key_id.as_ref().and_then(label),
            ..entry.clone()
        };
        let entries = audit.iter().rev().filter(|entry| query.matches(entry)).take(query.limit);
        StoreFuture::ready(Ok(entries.map(with_label).collect()))
    }

    fn today(&self) -> Day {
        self.0.calendar.window(self.0.clock.now()).day
    }

    fn now(&self) -> SystemTime {
        self.0.clock.now()
    }

    fn probe(&self) -> StoreFuture<()> {
        StoreFuture::ready(Ok(()))
    }
}
