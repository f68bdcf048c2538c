//! Hashing keys that were typed into `api_keys` in clear.

use rusqlite::{Connection, OptionalExtension, params};

use crate::key::{DailyLimit, KeyId, SecretKey};

/// Whether a row waits to be adopted.
pub(super) fn is_needed(connection: &Connection) -> rusqlite::Result<bool> {
    connection
        .prepare_cached("SELECT EXISTS (SELECT 1 FROM api_keys WHERE key_hash IS NULL)")?
        .query_row([], |row| row.get(0))
}

/// Adopts every row that waits. Returns how many there were.
pub(super) fn all(connection: &Connection, default: DailyLimit) -> rusqlite::Result<usize> {
    let waiting: Vec<String> = connection
        .prepare_cached("SELECT CAST(key AS TEXT) FROM api_keys WHERE key_hash IS NULL")?
        .query_map([], |row| row.get(0))?
        .collect::<rusqlite::Result<_>>()?;
    for clear in &waiting {
        one(connection, clear, default)?;
    }
    Ok(waiting.len())
}

/// Adopts the row of this clear key, if it waits: its hash is stored, its text masked.
pub(super) fn one(
    connection: &Connection,
    clear: &str,
    default: DailyLimit,
) -> rusqlite::Result<()> {
    let key = SecretKey::typed_in(clear);
    let hash = key.hash().to_hex();
    let taken: Option<String> = connection
        .prepare_cached("SELECT id FROM api_keys WHERE ?1 IN (key_hash, old_key_hash)")?
        .query_row([&hash], |row| row.get(0))
        .optional()?;
    let (stored, duplicate) = match taken {
        None => (hash, false),
        // No hash looks like this, so the row can never be presented.
        Some(id) => {
            tracing::warn!(%id, "a key typed into api_keys exists already; its row is switched off");
            (format!("duplicate of {id}: {}", KeyId::generate()), true)
        }
    };
    connection
        .prepare_cached(
            "UPDATE api_keys SET
                 key = ?2, key_hash = ?3,
                 daily_limit = coalesce(daily_limit, ?4),
                 label = coalesce(label, ''),
                 disabled = CASE WHEN ?5 THEN 1 ELSE coalesce(disabled, 0) END
             WHERE key = ?1 AND key_hash IS NULL",
        )?
        .execute(params![clear, key.masked(), stored, default.get(), duplicate])?;
    Ok(())
}
