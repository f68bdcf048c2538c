//! Look-up of presented keys in `api_keys`, through a cache.

pub(super) mod adopt;
pub(super) mod columns;

use std::{
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

use rusqlite::{Connection, OptionalExtension};

use super::{SqliteStore, core::Core, rows::read_count, unavailable};
use crate::{
    clock::parse_timestamp,
    error::{StoreError, StoreErrorKind},
    key::{DefaultLimits, KeyHash, KeyId, KeyRecord, SecretKey},
    store::{
        KeyStore, StoreFuture,
        counter::CounterKey,
        engine::{Counter, Engine},
        key_cache::CachedKey,
    },
};

/// Result of looking up a presented key in the table.
enum Found {
    /// Another request has put the record into the cache meanwhile.
    Cached(CachedKey),
    /// The record, and the time until which a rotated secret remains valid.
    Record(KeyRecord, Option<SystemTime>),
    /// A row with the key in clear, which must be adopted first.
    InClear,
    Nothing,
}

impl KeyStore for SqliteStore {
    fn find(&self, key: &SecretKey) -> StoreFuture<Option<Arc<KeyRecord>>> {
        let hash = key.hash();
        let core = &self.0.core;
        match core.keys.get(&hash) {
            Some(cached) => StoreFuture::ready(Ok(cached.record(|| core.now()))),
            None => StoreFuture::pending(self.clone().find_in_file(key.clone(), hash)),
        }
    }
}

impl SqliteStore {
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
        let insert = move |connection: &Connection| {
            let is_known =
                find_id(connection, &hash.to_hex())?.is_some() || has_id(connection, &record.id)?;
            if is_known {
                Ok(false)
            } else {
                columns::insert(connection, &record, hash).map(|()| true)
            }
        };
        let inserted = self.0.core.queue.call(insert, |_| ());
        StoreFuture::pending(async move {
            let conflict = || StoreError::new(StoreErrorKind::Conflict);
            inserted.await?.then_some(()).ok_or_else(conflict)
        })
    }

    async fn find_in_file(
        self,
        key: SecretKey,
        hash: KeyHash,
    ) -> Result<Option<Arc<KeyRecord>>, StoreError> {
        let core = &self.0.core;
        let mut found = self.read_key(&key, hash).await?;
        if let (_, Found::InClear) = &found {
            self.adopt(key.clone()).await?;
            found = self.read_key(&key, hash).await?;
        }
        let cached = match found {
            (_, Found::InClear | Found::Nothing) => return Ok(None),
            (_, Found::Cached(cached)) => cached,
            (generation, Found::Record(record, valid_until)) => {
                let cached = CachedKey::new(generation, record, valid_until);
                core.keys.insert(hash, cached.clone());
                cached
            }
        };
        Ok(cached.record(|| core.now()))
    }

    /// Reads the row of the key, and the generation of the table before the read.
    async fn read_key(&self, key: &SecretKey, hash: KeyHash) -> Result<(u64, Found), StoreError> {
        let generation = self.0.core.keys.generation();
        let defaults = self.0.core.default_limits;
        let clear = key.expose().to_owned();
        let cached = || self.0.core.keys.get(&hash).map(Found::Cached);
        let core = self.0.core.clone();
        let read = move |connection: &Connection| {
            let found = find(connection, hash, &clear, defaults)?;
            // The request that presents the key needs its counter next.
            if let Found::Record(record, _) = &found {
                daily_counter(connection, &core.engine, &record.id).map_err(unavailable)?;
            }
            Ok(found)
        };
        Ok((generation, self.look_up(cached, read).await?))
    }

    async fn adopt(&self, key: SecretKey) -> Result<(), StoreError> {
        let core: Arc<Core> = self.0.core.clone();
        let defaults = core.default_limits;
        let adopt =
            move |connection: &Connection| adopt::presented(connection, key.expose(), defaults);
        self.0.core.queue.call(adopt, move |()| core.keys.forget()).await
    }
}

/// Returns the counter of the daily units of a key, and loads it if it is not in memory.
pub(super) fn daily_counter(
    connection: &Connection,
    engine: &Engine,
    id: &KeyId,
) -> rusqlite::Result<Arc<Counter>> {
    let key = CounterKey::daily(id.clone());
    if let Some(counter) = engine.counter(&key) {
        return Ok(counter);
    }
    let count = read_count(connection, &key, engine.today())?;
    Ok(engine.insert_counter(key, count))
}

fn find(
    connection: &Connection,
    hash: KeyHash,
    clear: &str,
    defaults: DefaultLimits,
) -> Result<Found, StoreError> {
    let hash = hash.to_hex();
    let row = connection
        .prepare_cached(
            "SELECT key_hash = ?1 AS is_current, * FROM api_keys
             WHERE key_hash = ?1 OR old_key_hash = ?1",
        )
        .map_err(unavailable)?
        .query_row([&hash], |row| {
            let until: Option<String> = row.get("old_key_until")?;
            let is_current: bool = row.get("is_current")?;
            Ok((columns::record(row, defaults)?, (!is_current).then_some(until)))
        })
        .optional()
        .map_err(unavailable)?;
    if let Some((record, until)) = row {
        // A rotated secret without a valid time has expired.
        let until = until.map(|until| until.as_deref().and_then(parse_timestamp));
        return Ok(Found::Record(record?, until.map(|until| until.unwrap_or(UNIX_EPOCH))));
    }
    let is_in_clear: bool = connection
        .prepare_cached(
            "SELECT EXISTS (SELECT 1 FROM api_keys WHERE key = ?1 AND key_hash IS NULL)",
        )
        .and_then(|mut statement| statement.query_row([clear], |row| row.get(0)))
        .map_err(unavailable)?;
    Ok(if is_in_clear { Found::InClear } else { Found::Nothing })
}

/// Returns the id of the row with this hash, or with this hash before its last rotation.
pub(crate) fn find_id(connection: &Connection, hash: &str) -> rusqlite::Result<Option<String>> {
    connection
        .prepare_cached("SELECT id FROM api_keys WHERE key_hash = ?1 OR old_key_hash = ?1")?
        .query_row([hash], |row| row.get(0))
        .optional()
}

/// Whether there is a row with this id.
pub(crate) fn has_id(connection: &Connection, id: &KeyId) -> rusqlite::Result<bool> {
    connection
        .prepare_cached("SELECT EXISTS (SELECT 1 FROM api_keys WHERE id = ?1)")?
        .query_row([id.as_str()], |row| row.get(0))
}

/// Withdraws the unopened claims of a key.
pub(crate) fn withdraw_claims(connection: &Connection, id: &KeyId) -> rusqlite::Result<()> {
    connection
        .prepare_cached("UPDATE claims SET withdrawn = 1 WHERE key_id = ?1 AND opened_at IS NULL")?
        .execute([id.as_str()])?;
    Ok(())
}
