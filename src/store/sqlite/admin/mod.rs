//! Administration of keys.

pub(super) mod audit;
pub(super) mod changes;
pub(super) mod claims;
mod create;
mod import;

use std::time::{Duration, SystemTime};

use rusqlite::Connection;

use super::{
    Inner, SqliteStore,
    core::Core,
    keys::list::{self, summary},
    ledger::SqliteLedger,
    reset, unavailable,
};
use crate::{
    clock::Day,
    error::{StoreError, StoreErrorKind},
    key::KeyRecord,
    store::{
        Actor, AdminStore, AuditEntry, AuditNote, AuditQuery, ChangeOutcome, ClaimOffer,
        CreateOutcome, IdempotencyKey, ImportOutcome, ImportedKey, KeyChange, KeyEdit, KeyPage,
        KeyPageQuery, KeyRef, KeySummary, NewKey, OnIssued, StoreBackup, StoreFuture,
        counter::CounterKey, engine::Ledger, withdraws_claims,
    },
};

/// Age up to which a successful write counts as a probe.
const MAX_PROBE_AGE: Duration = Duration::from_secs(1);

impl AdminStore for SqliteStore {
    fn create(&self, keys: Vec<NewKey>, by: Actor) -> StoreFuture<Vec<KeyRecord>> {
        let now = self.0.core.now();
        let created = self
            .0
            .core
            .queue
            .call(move |connection| changes::insert(connection, &keys, &by, now), |_| ());
        StoreFuture::pending(async move { created.await?.ok_or_else(conflict) })
    }

    fn create_once(
        &self,
        keys: Vec<NewKey>,
        idempotency_key: IdempotencyKey,
        by: Actor,
        on_issued: OnIssued,
    ) -> StoreFuture<CreateOutcome> {
        let now = self.0.core.now();
        let work = move |connection: &Connection| {
            create::insert(connection, &keys, idempotency_key, &by, now)
        };
        let created = self.0.core.queue.call(work, |outcome: &Option<CreateOutcome>| {
            if let Some(CreateOutcome::Issued(records)) = outcome {
                on_issued(records);
            }
        });
        StoreFuture::pending(async move { created.await?.ok_or_else(conflict) })
    }

    fn import(
        &self,
        keys: Vec<ImportedKey>,
        dry_run: bool,
        by: Actor,
    ) -> StoreFuture<Vec<ImportOutcome>> {
        let imported = self.import_with_progress(keys, dry_run, by, ());
        StoreFuture::pending(async move { Ok(imported.await?.unwrap_or_default()) })
    }

    fn list(&self, query: KeyPageQuery) -> StoreFuture<KeyPage> {
        self.read_now(move |connection, core| list::page(connection, core, &query))
    }

    fn get(&self, key: KeyRef) -> StoreFuture<Option<KeySummary>> {
        self.read_now(move |connection, core| summary(connection, core, &key))
    }

    fn change(&self, edit: KeyEdit) -> StoreFuture<ChangeOutcome> {
        let store = self.clone();
        StoreFuture::pending(async move {
            match edit.change {
                KeyChange::ResetUsage => store.reset(edit).await,
                _ => store.change_row(edit).await,
            }
        })
    }

    fn offer_claim(&self, offer: ClaimOffer, by: Actor) -> StoreFuture<Option<KeySummary>> {
        self.offer(offer, by)
    }

    fn note(&self, note: AuditNote, by: Actor) -> StoreFuture<()> {
        let now = self.0.core.now();
        let write = move |connection: &Connection| {
            let AuditNote { action, key_id, detail } = note;
            audit::write(connection, now, &by, action, key_id.as_ref(), &detail)
        };
        self.0.core.queue.call(write, |()| ())
    }

    fn audit(&self, query: AuditQuery) -> StoreFuture<Vec<AuditEntry>> {
        self.read_now(move |connection, _| audit::read(connection, &query))
    }

    fn today(&self) -> Day {
        self.0.core.today()
    }

    fn now(&self) -> SystemTime {
        self.0.core.now()
    }

    fn is_alive(&self) -> bool {
        let Inner { writer, syncer, watchdog, .. } = &*self.0;
        writer.is_alive() && syncer.is_alive() && watchdog.is_alive()
    }

    fn probe(&self) -> StoreFuture<()> {
        let core = &self.0.core;
        if let Err(error) = core.engine.damage.check() {
            return StoreFuture::ready(Err(error));
        }
        if core.engine.is_open().is_ok() && core.engine.was_written_within(MAX_PROBE_AGE) {
            return StoreFuture::ready(Ok(()));
        }
        core.queue.call(SqliteLedger::probe, |()| ())
    }

    fn backup(&self) -> StoreFuture<StoreBackup> {
        let store = self.clone();
        StoreFuture::pending(async move { store.temporary_copy().await })
    }

    fn set_gauges(&self) -> StoreFuture<()> {
        self.gauges()
    }
}

fn conflict() -> StoreError {
    StoreError::new(StoreErrorKind::Conflict)
}

impl SqliteStore {
    /// Flushes the journal and then runs the query on a reader.
    fn read_now<T: Send + 'static>(
        &self,
        query: impl FnOnce(&Connection, &Core) -> rusqlite::Result<T> + Send + 'static,
    ) -> StoreFuture<T> {
        let store = self.clone();
        StoreFuture::pending(async move {
            store.flush_for_read().await;
            let core = store.0.core.clone();
            store.read(move |connection| query(connection, &core).map_err(unavailable)).await
        })
    }

    async fn change_row(&self, edit: KeyEdit) -> Result<ChangeOutcome, StoreError> {
        let (core, after) = (self.0.core.clone(), self.0.core.clone());
        let work = move |connection: &Connection| {
            let Some(before) = summary(connection, &core, &edit.key)? else {
                return Ok(ChangeOutcome::UnknownKey);
            };
            if !edit.applies_to(&before) {
                return Ok(ChangeOutcome::VersionMismatch);
            }
            let KeyEdit { change, by, .. } = edit;
            let id = before.record.id.clone();
            let now = core.now();
            changes::apply(connection, &id, &change, now)?;
            let after = summary(connection, &core, &KeyRef::new(id.as_str()))?;
            let mut after = after.unwrap_or_else(|| before.clone());
            if withdraws_claims(&change, &before.record, &after.record, now) {
                changes::withdraw_claims(connection, &id)?;
                let key = summary(connection, &core, &KeyRef::new(id.as_str()))?;
                after.claim = key.and_then(|key| key.claim);
            }
            let detail = change.audit_detail(&before, &after);
            audit::write(connection, now, &by, change.action(), Some(&id), &detail)?;
            Ok(ChangeOutcome::Done(after.into()))
        };
        self.0.core.queue.call(work, move |_| after.forget_keys()).await
    }

    async fn reset(&self, edit: KeyEdit) -> Result<ChangeOutcome, StoreError> {
        let Some(key) = self.get(edit.key.clone()).await? else {
            return Ok(ChangeOutcome::UnknownKey);
        };
        let (core, id) = (&self.0.core, key.record.id);
        let counter = self.load_counter(CounterKey::daily(id.clone()), core.today()).await?;
        let (job, reset) = reset::job(core.clone(), counter, id, edit);
        core.queue.push(job)?;
        reset.await
    }
}
