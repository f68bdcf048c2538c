//! Administration of keys, and the tables `audit_log` and `issued_once`.

mod claims;
mod import;
mod list;
mod nodes;
mod reset;

use std::{
    collections::HashSet,
    net::IpAddr,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use tokio_postgres::{Client, Row};

use self::list::summary;
pub use self::nodes::{nodes, release_node};
use super::{
    PostgresStore, columns,
    keys::{find_id, withdraw_claims},
    ledger::Tables,
    sql::{self, bigint, int, text},
    unavailable,
};
use crate::{
    admin::store::{
        Actor, AdminStore, AuditEntry, AuditNote, AuditQuery, ChangeOutcome, ClaimOffer,
        CreateOutcome, IdempotencyKey, ImportOutcome, ImportedKey, KeyChange, KeyEdit, KeyPage,
        KeyPageQuery, KeyRef, KeySummary, NewKey, NodeSummary, OnIssued, ReleaseOutcome, Rotation,
    },
    clock::{Day, parse_timestamp, rfc3339, unix_millis},
    error::{StoreError, StoreErrorKind},
    key::{KeyId, KeyRecord, hex},
    store::{Quota, StoreFuture, counter::CounterKey},
};

/// Time that an import may take, of which each key needs a few statements.
const IMPORT_TIMEOUT: Duration = Duration::from_secs(3600);

impl AdminStore for PostgresStore {
    fn create(&self, keys: Vec<NewKey>, by: Actor) -> StoreFuture<Vec<KeyRecord>> {
        let now = self.0.core.now();
        let created =
            self.write(async move |client: &Client| insert_keys(client, &keys, &by, now).await);
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
        let work = async move |client: &Client| {
            insert_once(client, &keys, idempotency_key, &by, now).await
        };
        let created = self.write_then(work, |outcome: &Option<CreateOutcome>| {
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
        let (core, now) = (self.0.core.clone(), self.0.core.now());
        let work = move |tables: &Tables| {
            let imported = import::import(&tables.session.client, &keys, dry_run, &by, now);
            tables.session.run_within(IMPORT_TIMEOUT, imported)
        };
        self.0.core.queue.call(work, move |_| core.keys.forget())
    }

    fn list(&self, query: KeyPageQuery) -> StoreFuture<KeyPage> {
        let store = self.clone();
        StoreFuture::pending(async move {
            store.flush_for_read().await;
            let client = store.reader().await?;
            list::page(&client, &store.0.core, &query).await.map_err(unavailable)
        })
    }

    fn get(&self, key: KeyRef) -> StoreFuture<Option<KeySummary>> {
        let store = self.clone();
        StoreFuture::pending(async move {
            store.flush_for_read().await;
            let client = store.reader().await?;
            summary(&client, &store.0.core, &key).await.map_err(unavailable)
        })
    }

    fn change(&self, edit: KeyEdit) -> StoreFuture<ChangeOutcome> {
        let store = self.clone();
        StoreFuture::pending(async move {
            // A transaction writes what was counted at its end, after it has read the key.
            store.flush_for_read().await;
            match edit.change {
                KeyChange::ResetUsage => store.reset(edit).await,
                _ => store.change_row(edit).await,
            }
        })
    }

    fn offer_claim(&self, offer: ClaimOffer, by: Actor) -> StoreFuture<Option<KeySummary>> {
        let store = self.clone();
        StoreFuture::pending(async move {
            store.flush_for_read().await;
            store.offer(offer, by).await
        })
    }

    fn note(&self, note: AuditNote, by: Actor) -> StoreFuture<()> {
        let now = self.0.core.now();
        self.write(async move |client: &Client| write_audit(client, now, &by, &[note]).await)
    }

    fn audit(&self, query: AuditQuery) -> StoreFuture<Vec<AuditEntry>> {
        let store = self.clone();
        StoreFuture::pending(async move {
            store.flush_for_read().await;
            let client = store.reader().await?;
            read_audit(&client, &query).await.map_err(unavailable)
        })
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

    fn nodes(&self) -> StoreFuture<Vec<NodeSummary>> {
        let store = self.clone();
        StoreFuture::pending(async move { store.list_nodes().await })
    }

    fn release_node(&self, number: u32, by: Actor) -> StoreFuture<ReleaseOutcome> {
        let store = self.clone();
        StoreFuture::pending(async move { store.release(number, &by).await })
    }

    fn set_gauges(&self) -> StoreFuture<()> {
        self.set_gauges()
    }
}

fn conflict() -> StoreError {
    StoreError::new(StoreErrorKind::Conflict)
}

impl PostgresStore {
    async fn change_row(&self, edit: KeyEdit) -> Result<ChangeOutcome, StoreError> {
        let (core, after) = (self.0.core.clone(), self.0.core.clone());
        let work = async move |client: &Client| {
            let Some(before) = summary(client, &core, &edit.key).await? else {
                return Ok(ChangeOutcome::UnknownKey);
            };
            if !edit.applies_to(&before) {
                return Ok(ChangeOutcome::VersionMismatch);
            }
            let KeyEdit { change, by, .. } = edit;
            let id = before.record.id.clone();
            let now = core.now();
            apply(client, &id, &change, now).await?;
            let key = KeyRef::new(id.as_str());
            let after = summary(client, &core, &key).await?;
            let mut after = after.unwrap_or_else(|| before.clone());
            if change.withdraws_claims(&before.record, &after.record, now) {
                withdraw_claims(client, &id).await?;
                after.claim = summary(client, &core, &key).await?.and_then(|key| key.claim);
            }
            let note = AuditNote::changed(&change, &before, &after);
            write_audit(client, now, &by, &[note]).await?;
            Ok(ChangeOutcome::Done(after.into()))
        };
        self.write_then(work, move |_| after.keys.forget()).await
    }

    async fn reset(&self, edit: KeyEdit) -> Result<ChangeOutcome, StoreError> {
        let found = {
            let client = self.reader().await?;
            let key = summary(&client, &self.0.core, &edit.key).await.map_err(unavailable)?;
            match key {
                None => None,
                Some(key) => {
                    let id = key.record.id;
                    let quotas = read_quotas(&client, &id).await.map_err(unavailable)?;
                    Some((id, quotas))
                }
            }
        };
        let Some((id, quotas)) = found else { return Ok(ChangeOutcome::UnknownKey) };
        let key = |quota| CounterKey { quota, subject: id.clone() };
        let edit = KeyEdit { key: KeyRef::new(id.as_str()), ..edit };
        reset::reset(self, quotas.into_iter().map(key).collect(), edit).await
    }
}

/// Returns the quotas of which a subject has used units, and those of a key's limits, whose units may not be in the
/// table yet.
async fn read_quotas(client: &Client, id: &KeyId) -> sql::Result<Vec<Quota>> {
    let query = "SELECT quota FROM daily_usage WHERE key_id = $1
         UNION SELECT 'daily' UNION SELECT 'monthly/month' ORDER BY quota";
    let rows = sql::query(client, query, &[text(&id.as_str())]).await?;
    let quotas = rows.iter().map(|row| row.try_get::<_, &str>(0));
    // A later version may know other periods.
    quotas.filter_map(|quota| quota.map(|quota| quota.parse().ok()).transpose()).collect()
}

/// Inserts the rows of new keys with their audit entries, or returns `None` and inserts nothing if
/// one of the keys already exists.
async fn insert_keys(
    client: &Client,
    keys: &[NewKey],
    by: &Actor,
    now: SystemTime,
) -> sql::Result<Option<Vec<KeyRecord>>> {
    let mut batch = HashSet::new();
    for key in keys {
        let hash = key.secret().hash();
        if !batch.insert(hash) || find_id(client, &hash).await?.is_some() {
            return Ok(None);
        }
    }
    let records: Vec<KeyRecord> = keys.iter().map(|key| key.issued_at(now)).collect();
    for (key, record) in keys.iter().zip(&records) {
        columns::insert(client, record, key.secret().hash()).await?;
    }
    let notes: Vec<AuditNote> = records.iter().map(AuditNote::created).collect();
    write_audit(client, now, by, &notes).await?;
    Ok(Some(records))
}

/// Applies a change to one row. A reset changes only the counter.
async fn apply(
    client: &Client,
    id: &KeyId,
    change: &KeyChange,
    now: SystemTime,
) -> sql::Result<()> {
    match change {
        KeyChange::Update(patch) => columns::update(client, id, patch).await,
        KeyChange::Rotate(rotation) => rotate(client, id, rotation, now).await,
        KeyChange::Delete => {
            let delete = "DELETE FROM api_keys WHERE id = $1";
            sql::execute(client, delete, &[text(&id.as_str())]).await.map(drop)
        }
        KeyChange::ResetUsage => Ok(()),
    }
}

async fn rotate(
    client: &Client,
    id: &KeyId,
    rotation: &Rotation,
    now: SystemTime,
) -> sql::Result<()> {
    let until = rotation.old_until(now).map(rfc3339);
    let (id, hash, masked) = (id.as_str(), rotation.hash().to_hex(), rotation.secret.masked());
    let update = "UPDATE api_keys SET
            old_key_hash = CASE WHEN $2 IS NULL THEN NULL ELSE key_hash END,
            old_key_until = $2, key_hash = $3, key = $4
        WHERE id = $1";
    let values = [text(&id), text(&until), text(&hash), text(&masked)];
    sql::execute(client, update, &values).await.map(drop)
}

/// Inserts the rows of new keys, unless a request with the same idempotency key has done so.
/// Returns `None` and inserts nothing if one of the keys already exists.
async fn insert_once(
    client: &Client,
    keys: &[NewKey],
    idempotency_key: IdempotencyKey,
    by: &Actor,
    now: SystemTime,
) -> sql::Result<Option<CreateOutcome>> {
    let since = now.checked_sub(IdempotencyKey::RETENTION).unwrap_or(UNIX_EPOCH);
    let expired = "DELETE FROM issued_once WHERE at < $1";
    sql::execute(client, expired, &[int(&unix_millis(since))]).await?;
    let (name, request) = (hex(&idempotency_key.name()), hex(&idempotency_key.request()));
    let find = "SELECT request, key_ids FROM issued_once WHERE name = $1";
    if let Some(row) = sql::optional(client, find, &[text(&name)]).await? {
        let ids: &str = row.try_get(1)?;
        return Ok(Some(if row.try_get::<_, &str>(0)? == request {
            CreateOutcome::Replayed(ids.split(' ').map(KeyId::from).collect())
        } else {
            CreateOutcome::OtherRequest
        }));
    }
    let Some(records) = insert_keys(client, keys, by, now).await? else { return Ok(None) };
    let ids: Vec<&str> = records.iter().map(|record| record.id.as_str()).collect();
    let (ids, at) = (ids.join(" "), unix_millis(now));
    let insert = "INSERT INTO issued_once (name, request, key_ids, at) VALUES ($1, $2, $3, $4)";
    sql::execute(client, insert, &[text(&name), text(&request), text(&ids), int(&at)]).await?;
    Ok(Some(CreateOutcome::Issued(records)))
}

/// Adds entries to the audit trail.
async fn write_audit(
    client: &Client,
    at: SystemTime,
    by: &Actor,
    notes: &[AuditNote],
) -> sql::Result<()> {
    let (at, ip) = (rfc3339(at), by.ip.map(|ip| ip.to_string()));
    let actions: Vec<&str> = notes.iter().map(|note| &*note.action).collect();
    let keys: Vec<Option<&str>> =
        notes.iter().map(|note| note.key_id.as_ref().map(KeyId::as_str)).collect();
    let details: Vec<&str> = notes.iter().map(|note| &*note.detail).collect();
    let insert = "INSERT INTO audit_log (at, token_id, ip, action, key_id, detail)
        SELECT $1, $2, $3, action, key_id, detail
        FROM unnest($4, $5, $6) WITH ORDINALITY AS added (action, key_id, detail, number)
        ORDER BY number";
    let values = [
        text(&at),
        text(&by.token_id),
        text(&ip),
        sql::texts(&actions),
        sql::texts(&keys),
        sql::texts(&details),
    ];
    sql::execute(client, insert, &values).await.map(drop)
}

async fn read_audit(client: &Client, query: &AuditQuery) -> sql::Result<Vec<AuditEntry>> {
    let select = "SELECT number, at, token_id, ip, action, key_id, detail,
            coalesce((SELECT label FROM api_keys k WHERE k.id = a.key_id),
                (SELECT label FROM deleted_keys k WHERE k.id = a.key_id))
        FROM audit_log a
        WHERE ($1 IS NULL OR number < $1) AND ($2 IS NULL OR key_id = $2)
            AND ($4 IS NULL OR starts_with(action, $4))
            AND ($5 IS NULL OR token_id = $5)
            AND ($6 IS NULL OR at >= $6) AND ($7 IS NULL OR at < $7)
        ORDER BY number DESC LIMIT $3";
    let (before, limit) = (query.before.map(bigint), bigint(query.limit));
    let key_id = query.key_id.as_ref().map(|id| sql::storable(id.as_str()));
    let action = query.action.as_deref().map(sql::storable);
    let token_id = query.token_id.as_deref().map(sql::storable);
    let (from, until) = (query.from.map(rfc3339), query.until.map(rfc3339));
    let values = [
        int(&before),
        text(&key_id),
        int(&limit),
        text(&action),
        text(&token_id),
        text(&from),
        text(&until),
    ];
    sql::query(client, select, &values).await?.iter().map(audit_entry).collect()
}

/// Reads an entry. Invalid values are read as far as possible, as no row can be deleted from the
/// trail.
fn audit_entry(row: &Row) -> sql::Result<AuditEntry> {
    let at = parse_timestamp(row.try_get(1)?).unwrap_or(UNIX_EPOCH);
    let ip = row.try_get::<_, Option<&str>>(3)?.and_then(|ip| ip.parse::<IpAddr>().ok());
    let actor = Actor { token_id: row.try_get(2)?, ip };
    let note = AuditNote {
        action: row.try_get::<_, String>(4)?.into(),
        key_id: row.try_get::<_, Option<String>>(5)?.map(KeyId::new),
        detail: row.try_get(6)?,
    };
    let mut entry = AuditEntry::new(sql::count(row.try_get(0)?), at, actor, note);
    entry.label = row.try_get(7)?;
    Ok(entry)
}
