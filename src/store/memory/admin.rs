use std::time::SystemTime;

use super::{
    Inner, MemoryStore,
    keys::{KeyTable, Row},
    lock,
};
use crate::{
    clock::Day,
    key::{KeyId, KeyRecord},
    store::{
        Actor, AdminStore, AuditEntry, AuditQuery, Changed, KeyChange, KeyEdit, KeyPage,
        KeyPageQuery, KeyRef, KeySummary, NewKey, StoreFuture,
    },
};

impl Inner {
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
        }
    }

    fn write_audit(&self, action: &str, key_id: Option<KeyId>, detail: String, by: &Actor) {
        let mut audit = lock(&self.audit);
        let number = audit.len() as u64 + 1;
        let (at, actor, action) = (self.clock.now(), by.clone(), action.to_owned());
        audit.push(AuditEntry { number, at, actor, action, key_id, detail });
    }

    fn apply(&self, keys: &mut KeyTable, key: &KeyRef, id: &KeyId, change: &KeyChange) {
        match change {
            KeyChange::Update(patch) => keys.update(key, |record| patch.apply(record)),
            KeyChange::Rotate(rotation) => {
                keys.rotate(key, &rotation.secret, rotation.old_until(self.clock.now()));
            }
            KeyChange::ResetUsage => {
                let at = self.clock.now();
                let day = self.calendar.window(at).day;
                self.counter(id, at).reset(|count| {
                    let origin = count.after_reset(day);
                    lock(&self.totals).used(id, origin.day, |_| 0);
                    origin
                });
            }
            KeyChange::Delete => keys.remove(key),
        }
    }
}

impl AdminStore for MemoryStore {
    fn create(&self, keys: Vec<NewKey>, by: Actor) -> StoreFuture<Vec<KeyRecord>> {
        let mut table = lock(&self.0.keys);
        let records: Vec<KeyRecord> =
            keys.iter().map(|key| key.record(self.0.clock.now())).collect();
        for (at, (key, record)) in keys.iter().zip(&records).enumerate() {
            if let Err(error) = table.insert(key.secret.hash(), record.clone()) {
                for record in &records[..at] {
                    table.remove(&KeyRef::new(record.id.as_str()));
                }
                return StoreFuture::ready(Err(error));
            }
        }
        for record in &records {
            self.0.write_audit("key.create", Some(record.id.clone()), record.audit_detail(), &by);
        }
        StoreFuture::ready(Ok(records))
    }

    fn list(&self, query: KeyPageQuery) -> StoreFuture<KeyPage> {
        let keys = lock(&self.0.keys);
        let search = query.search.as_deref().map(str::to_lowercase);
        let mut found = keys
            .after(query.after.unwrap_or_default())
            .filter(|(_, row)| search.as_deref().is_none_or(|text| row.record.matches(text)));
        let page: Vec<_> = found.by_ref().take(query.limit).collect();
        let more = found.next().is_some();
        StoreFuture::ready(Ok(KeyPage {
            next: page.last().map(|(number, _)| *number).filter(|_| more),
            keys: page.into_iter().map(|(_, row)| self.0.summary(row)).collect(),
        }))
    }

    fn get(&self, key: KeyRef) -> StoreFuture<Option<KeySummary>> {
        let keys = lock(&self.0.keys);
        StoreFuture::ready(Ok(keys.get(&key).map(|row| self.0.summary(row))))
    }

    fn change(&self, edit: KeyEdit) -> StoreFuture<Changed> {
        let mut keys = lock(&self.0.keys);
        let Some(row) = keys.get(&edit.key) else {
            return StoreFuture::ready(Ok(Changed::UnknownKey));
        };
        let before = self.0.summary(row);
        if !edit.applies_to(&before) {
            return StoreFuture::ready(Ok(Changed::OtherVersion));
        }
        let KeyEdit { change, by, .. } = edit;
        let id = before.record.id.clone();
        // A rotation may take away the very text that named the key.
        let by_id = KeyRef::new(id.as_str());
        self.0.apply(&mut keys, &by_id, &id, &change);
        let after = keys.get(&by_id).map_or(before.clone(), |row| self.0.summary(row));
        let detail = change.audit_detail(&before, &after);
        self.0.write_audit(change.action(), Some(id), detail, &by);
        StoreFuture::ready(Ok(Changed::Done(after)))
    }

    fn note(&self, action: &'static str, by: Actor) -> StoreFuture<()> {
        self.0.write_audit(action, None, "{}".to_owned(), &by);
        StoreFuture::ready(Ok(()))
    }

    fn audit(&self, query: AuditQuery) -> StoreFuture<Vec<AuditEntry>> {
        let audit = lock(&self.0.audit);
        let before = query.before.unwrap_or(u64::MAX);
        let wanted = |entry: &&AuditEntry| {
            entry.number < before
                && query.key_id.as_ref().is_none_or(|id| entry.key_id.as_ref() == Some(id))
        };
        let entries = audit.iter().rev().filter(wanted).take(query.limit).cloned().collect();
        StoreFuture::ready(Ok(entries))
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
