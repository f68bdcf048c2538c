//! Look-up of presented keys in `api_keys`, through a cache.

use std::{sync::Arc, time::UNIX_EPOCH};

use tokio_postgres::Client;

use super::{
    PostgresStore, columns,
    sql::{self, text},
};
use crate::{
    clock::parse_timestamp,
    error::{StoreError, StoreErrorKind},
    key::{DefaultLimits, KeyHash, KeyId, KeyRecord, SecretKey},
    store::{KeyStore, StoreFuture, key_cache::CachedKey},
};

impl KeyStore for PostgresStore {
    fn find(&self, key: &SecretKey) -> StoreFuture<Option<Arc<KeyRecord>>> {
        let hash = key.hash();
        let core = &self.0.core;
        match core.keys.get(&hash).filter(|_| core.is_listening()) {
            Some(cached) => StoreFuture::ready(Ok(cached.record(|| core.now()))),
            None => StoreFuture::pending(self.clone().find_in_table(hash)),
        }
    }
}

impl PostgresStore {
    /// Inserts `key` with this record, without an entry in the audit trail.
    ///
    /// # Errors
    ///
    /// `Conflict` if the key or the record's id already exists, `KeyMisconfigured` if the limit has no
    /// stored form ([`Limit::to_stored`](crate::key::Limit::to_stored)).
    pub fn insert(&self, key: &SecretKey, mut record: KeyRecord) -> StoreFuture<()> {
        if let Err(error) = record.check() {
            return StoreFuture::ready(Err(StoreError::misconfigured(error)));
        }
        let hash = key.hash();
        if record.masked.is_empty() {
            record.masked = key.masked();
        }
        let inserted = self.write(async move |client: &Client| {
            let is_known =
                find_id(client, &hash).await?.is_some() || has_id(client, &record.id).await?;
            if !is_known {
                columns::insert(client, &record, hash).await?;
            }
            Ok(!is_known)
        });
        StoreFuture::pending(async move {
            let conflict = || StoreError::new(StoreErrorKind::Conflict);
            inserted.await?.then_some(()).ok_or_else(conflict)
        })
    }

    async fn find_in_table(self, hash: KeyHash) -> Result<Option<Arc<KeyRecord>>, StoreError> {
        let core = &self.0.core;
        let client = self.reader().await?;
        // Another request may have read the key while this one has waited.
        if let Some(cached) = core.keys.get(&hash).filter(|_| core.is_listening()) {
            return Ok(cached.record(|| core.now()));
        }
        let generation = core.keys.generation();
        let found = find(&client, hash, core.default_limits).await;
        let found = found.map_err(|error| self.look_up_failed(error))?;
        let Some(found) = found else { return Ok(None) };
        let (record, valid_until) = found?;
        let cached = CachedKey::new(generation, record, valid_until);
        core.keys.insert(hash, cached.clone());
        Ok(cached.record(|| core.now()))
    }
}

type Found = Result<(KeyRecord, Option<std::time::SystemTime>), StoreError>;

/// Returns the record of the row with this hash, and the time until which a rotated secret remains valid.
async fn find(
    client: &Client,
    hash: KeyHash,
    defaults: DefaultLimits,
) -> sql::Result<Option<Found>> {
    let sql = "SELECT key_hash = $1 AS is_current, * FROM api_keys
        WHERE key_hash = $1 OR old_key_hash = $1";
    let Some(row) = sql::optional(client, sql, &[text(&hash.to_hex())]).await? else {
        return Ok(None);
    };
    let until: Option<String> = row.try_get("old_key_until")?;
    let is_current: bool = row.try_get::<_, Option<bool>>("is_current")?.unwrap_or_default();
    // A rotated secret without a valid time has expired.
    let until = until.as_deref().and_then(parse_timestamp).unwrap_or(UNIX_EPOCH);
    let record = columns::record(&row, defaults)?;
    Ok(Some(record.map(|record| (record, (!is_current).then_some(until)))))
}

/// Returns the id of the row with this hash, or with this hash before its last rotation.
pub(super) async fn find_id(client: &Client, hash: &KeyHash) -> sql::Result<Option<KeyId>> {
    let sql = "SELECT id FROM api_keys WHERE key_hash = $1 OR old_key_hash = $1";
    let row = sql::optional(client, sql, &[text(&hash.to_hex())]).await?;
    row.map(|row| row.try_get::<_, &str>(0).map(KeyId::from)).transpose()
}

/// Whether there is a row with this id.
pub(super) async fn has_id(client: &Client, id: &KeyId) -> sql::Result<bool> {
    let exists = "SELECT EXISTS (SELECT 1 FROM api_keys WHERE id = $1)";
    sql::one(client, exists, &[text(&sql::storable(id.as_str()))]).await?.try_get(0)
}

/// Withdraws the unopened claims of a key.
#[cfg(feature = "admin")]
pub(super) async fn withdraw_claims(client: &Client, id: &KeyId) -> sql::Result<()> {
    let sql = "UPDATE claims SET withdrawn = true WHERE key_id = $1 AND opened_at IS NULL";
    sql::execute(client, sql, &[text(&id.as_str())]).await.map(drop)
}
