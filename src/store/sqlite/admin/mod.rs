//! Administration of keys, and the tables `audit_log` and `issued_once`.

mod claims;
mod copy;
mod import;
mod list;
mod reset;

use std::{
    collections::HashSet,
    net::IpAddr,
    time::{SystemTime, UNIX_EPOCH},
};

use rusqlite::{Connection, OptionalExtension, Row, params};

pub(super) use self::copy::Copies;
use self::list::summary;
use super::{
    SqliteStore,
    core::Core,
    keys::{columns, find_id, withdraw_claims},
    rows, unavailable,
};
use crate::{
    admin::store::{
        Actor, AdminStore, AuditEntry, AuditNote, AuditQuery, ChangeOutcome, ClaimOffer,
        CreateOutcome, IdempotencyKey, ImportOutcome, ImportedKey, KeyChange, KeyEdit, KeyPage,
        KeyPageQuery, KeyRef, KeySummary, NewKey, OnIssued, Rotation, StoreBackup,
    },
    clock::{Day, parse_timestamp, rfc3339, unix_millis},
    error::{StoreError, StoreErrorKind},
    key::{KeyId, KeyRecord, hex},
    store::{Quota, StoreFuture, counter::CounterKey},
};

impl AdminStore for SqliteStore {
    fn create(&self, keys: Vec<NewKey>, by: Actor) -> StoreFuture<Vec<KeyRecord>> {
        let now = self.0.core.now();
        let created = self
            .0
            .core
            .queue
            .call(move |connection| insert_keys(connection, &keys, &by, now), |_| ());
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
            insert_once(connection, &keys, idempotency_key, &by, now)
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
        let write = move |connection: &Connection| write_audit(connection, now, &by, &note);
        self.0.core.queue.call(write, |()| ())
    }

    fn audit(&self, query: AuditQuery) -> StoreFuture<Vec<AuditEntry>> {
        self.read_now(move |connection, _| read_audit(connection, &query))
    }

    fn today(&self) -> Day {
        self.0.core.today()
    }

    fn now(&self) -> SystemTime {
        self.0.core.now()
    }

    fn is_alive(&self) -> bool {
        self.is_alive()
    }

    fn probe(&self) -> StoreFuture<()> {
        self.probe()
    }

    fn backup(&self) -> StoreFuture<StoreBackup> {
        let store = self.clone();
        StoreFuture::pending(async move { store.temporary_copy().await })
    }

    fn set_gauges(&self) -> StoreFuture<()> {
        self.set_gauges()
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
            apply(connection, &id, &change, now)?;
            let after = summary(connection, &core, &KeyRef::new(id.as_str()))?;
            let mut after = after.unwrap_or_else(|| before.clone());
            if change.withdraws_claims(&before.record, &after.record, now) {
                withdraw_claims(connection, &id)?;
                let key = summary(connection, &core, &KeyRef::new(id.as_str()))?;
                after.claim = key.and_then(|key| key.claim);
            }
            write_audit(connection, now, &by, &AuditNote::changed(&change, &before, &after))?;
            Ok(ChangeOutcome::Done(after.into()))
        };
        self.0.core.queue.call(work, move |_| after.keys.forget()).await
    }

    async fn reset(&self, edit: KeyEdit) -> Result<ChangeOutcome, StoreError> {
        let key = edit.key.clone();
        let find = move |connection: &Connection, core: &Core| {
            let Some(key) = summary(connection, core, &key)? else { return Ok(None) };
            let quotas = read_quotas(connection, &key.record.id)?;
            Ok(Some((key.record.id, quotas)))
        };
        let Some((id, quotas)) = self.read_now(find).await? else {
            return Ok(ChangeOutcome::UnknownKey);
        };
        let (core, mut counters) = (&self.0.core, Vec::new());
        for quota in quotas {
            let key = CounterKey { quota, subject: id.clone() };
            counters.push(self.load_counter(key, core.now()).await?);
        }
        let (job, reset) = reset::job(core.clone(), counters, id, edit);
        core.queue.push(job)?;
        reset.await
    }
}

/// Returns the quotas of which a subject has used units, and those of a key's limits, whose units may not be in the
/// table yet.
fn read_quotas(connection: &Connection, id: &KeyId) -> rusqlite::Result<Vec<Quota>> {
    let mut statement = connection.prepare_cached(
        "SELECT quota FROM daily_usage WHERE key_id = ?1
         UNION SELECT 'daily' UNION SELECT 'monthly/month' ORDER BY quota",
    )?;
    let quotas = statement.query_map([id.as_str()], |row| row.get::<_, String>(0))?;
    // A later version may know other periods.
    quotas.filter_map(|quota| quota.map(|quota| quota.parse().ok()).transpose()).collect()
}

/// Inserts the rows of new keys with their audit entries, or returns `None` and inserts nothing if
/// one of the keys already exists.
fn insert_keys(
    connection: &Connection,
    keys: &[NewKey],
    by: &Actor,
    now: SystemTime,
) -> rusqlite::Result<Option<Vec<KeyRecord>>> {
    let mut batch = HashSet::new();
    for key in keys {
        let hash = key.secret().hash();
        if !batch.insert(hash) || find_id(connection, &hash.to_hex())?.is_some() {
            return Ok(None);
        }
    }
    let records: Vec<KeyRecord> = keys.iter().map(|key| key.issued_at(now)).collect();
    for (key, record) in keys.iter().zip(&records) {
        columns::insert(connection, record, key.secret().hash())?;
        write_audit(connection, now, by, &AuditNote::created(record))?;
    }
    Ok(Some(records))
}

/// Applies a change to one row. A reset changes only the counter.
fn apply(
    connection: &Connection,
    id: &KeyId,
    change: &KeyChange,
    now: SystemTime,
) -> rusqlite::Result<()> {
    match change {
        KeyChange::Update(patch) => columns::update(connection, id, patch),
        KeyChange::Rotate(rotation) => rotate(connection, id, rotation, now),
        KeyChange::Delete => {
            let sql = "DELETE FROM api_keys WHERE id = ?1";
            connection.prepare_cached(sql)?.execute([id.as_str()]).map(drop)
        }
        KeyChange::ResetUsage => Ok(()),
    }
}

fn rotate(
    connection: &Connection,
    id: &KeyId,
    rotation: &Rotation,
    now: SystemTime,
) -> rusqlite::Result<()> {
    connection
        .prepare_cached(
            "UPDATE api_keys SET
                 old_key_hash = CASE WHEN ?2 IS NULL THEN NULL ELSE key_hash END,
                 old_key_until = ?2, key_hash = ?3, key = ?4
             WHERE id = ?1",
        )?
        .execute(params![
            id.as_str(),
            rotation.old_until(now).map(rfc3339),
            rotation.hash().to_hex(),
            rotation.secret.masked(),
        ])?;
    Ok(())
}

/// Inserts the rows of new keys, unless a request with the same idempotency key has done so.
/// Returns `None` and inserts nothing if one of the keys already exists.
fn insert_once(
    connection: &Connection,
    keys: &[NewKey],
    idempotency_key: IdempotencyKey,
    by: &Actor,
    now: SystemTime,
) -> rusqlite::Result<Option<CreateOutcome>> {
    delete_expired_creations(connection, now)?;
    let (name, request) = (hex(&idempotency_key.name()), hex(&idempotency_key.request()));
    if let Some((first_request, ids)) = find_creation(connection, &name)? {
        return Ok(Some(if first_request == request {
            CreateOutcome::Replayed(ids)
        } else {
            CreateOutcome::OtherRequest
        }));
    }
    let Some(records) = insert_keys(connection, keys, by, now)? else { return Ok(None) };
    let ids: Vec<&str> = records.iter().map(|record| record.id.as_str()).collect();
    connection
        .prepare_cached(
            "INSERT INTO issued_once (name, request, key_ids, at) VALUES (?1, ?2, ?3, ?4)",
        )?
        .execute(params![name, request, ids.join(" "), unix_millis(now)])?;
    Ok(Some(CreateOutcome::Issued(records)))
}

fn find_creation(
    connection: &Connection,
    name: &str,
) -> rusqlite::Result<Option<(String, Vec<KeyId>)>> {
    connection
        .prepare_cached("SELECT request, key_ids FROM issued_once WHERE name = ?1")?
        .query_row([name], |row| {
            let ids: String = row.get(1)?;
            Ok((row.get(0)?, ids.split(' ').map(KeyId::from).collect()))
        })
        .optional()
}

fn delete_expired_creations(connection: &Connection, now: SystemTime) -> rusqlite::Result<()> {
    let since = now.checked_sub(IdempotencyKey::RETENTION).unwrap_or(SystemTime::UNIX_EPOCH);
    connection
        .prepare_cached("DELETE FROM issued_once WHERE at < ?1")?
        .execute([unix_millis(since)])?;
    Ok(())
}

/// Adds an entry to the audit trail.
pub(crate) fn write_audit(
    connection: &Connection,
    at: SystemTime,
    by: &Actor,
    note: &AuditNote,
) -> rusqlite::Result<()> {
    let AuditNote { action, key_id, detail } = note;
    let ip = by.ip.map(|ip| ip.to_string());
    connection
        .prepare_cached(
            "INSERT INTO audit_log (at, token_id, ip, action, key_id, detail)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
        )?
        .execute(params![
            rfc3339(at),
            by.token_id,
            ip,
            action,
            key_id.as_ref().map(KeyId::as_str),
            detail
        ])?;
    Ok(())
}

fn read_audit(connection: &Connection, query: &AuditQuery) -> rusqlite::Result<Vec<AuditEntry>> {
    let mut statement = connection.prepare_cached(
        "SELECT number, at, token_id, ip, action, key_id, detail,
             coalesce((SELECT label FROM api_keys WHERE id = key_id),
                 (SELECT label FROM deleted_keys WHERE id = key_id))
         FROM audit_log
         WHERE (?1 IS NULL OR number < ?1) AND (?2 IS NULL OR key_id = ?2)
             AND (?4 IS NULL OR substr(action, 1, length(?4)) = ?4)
             AND (?5 IS NULL OR token_id = ?5)
             AND (?6 IS NULL OR at >= ?6) AND (?7 IS NULL OR at < ?7)
         ORDER BY number DESC LIMIT ?3",
    )?;
    let key_id = query.key_id.as_ref().map(KeyId::as_str);
    let (from, until) = (query.from.map(rfc3339), query.until.map(rfc3339));
    let (action, token_id) = (&query.action, &query.token_id);
    let values = params![query.before, key_id, query.limit, action, token_id, from, until];
    let entries = statement.query_map(values, audit_entry)?;
    entries.collect()
}

/// Reads an entry. Invalid values are read as far as possible, as no row can be deleted from the
/// trail.
fn audit_entry(row: &Row<'_>) -> rusqlite::Result<AuditEntry> {
    let text = |column| row.get_ref(column).map(rows::text);
    let at = text(1)?.and_then(|at| parse_timestamp(&at)).unwrap_or(UNIX_EPOCH);
    let ip = text(3)?.and_then(|ip| ip.parse::<IpAddr>().ok());
    let actor = Actor { token_id: text(2)?.unwrap_or_default(), ip };
    let note = AuditNote {
        action: text(4)?.unwrap_or_default().into(),
        key_id: text(5)?.map(KeyId::new),
        detail: text(6)?.unwrap_or_default(),
    };
    let mut entry = AuditEntry::new(row.get(0)?, at, actor, note);
    entry.label = text(7)?;
    Ok(entry)
}
