//! Hashing keys that were typed into `api_keys` in clear.

use rusqlite::{Connection, OptionalExtension, params};

use super::{changes, rows};
use crate::key::{DailyLimit, KeyId, SecretKey};

/// Whether a row waits to be adopted.
pub(super) fn is_needed(connection: &Connection) -> rusqlite::Result<bool> {
    connection
        .prepare_cached("SELECT EXISTS (SELECT 1 FROM api_keys WHERE key_hash IS NULL)")?
        .query_row([], |row| row.get(0))
}

/// Adopts every row that waits. Returns how many there were.
pub(super) fn all(connection: &Connection, default: DailyLimit) -> rusqlite::Result<usize> {
    let waiting: Vec<(i64, String)> = connection
        .prepare_cached("SELECT seq, key FROM api_keys WHERE key_hash IS NULL")?
        .query_map([], |row| {
            // Whatever was typed; a BLOB among them.
            Ok((row.get(0)?, rows::text(row.get_ref(1)?).unwrap_or_default()))
        })?
        .collect::<rusqlite::Result<_>>()?;
    for (seq, clear) in &waiting {
        one(connection, *seq, clear, default)?;
    }
    Ok(waiting.len())
}

/// Adopts the row of this clear key, if it waits.
pub(super) fn presented(
    connection: &Connection,
    clear: &str,
    default: DailyLimit,
) -> rusqlite::Result<()> {
    let seq = connection
        .prepare_cached("SELECT seq FROM api_keys WHERE key = ?1 AND key_hash IS NULL")?
        .query_row([clear], |row| row.get(0))
        .optional()?;
    seq.map_or(Ok(()), |seq| one(connection, seq, clear, default))
}

/// Stores the row's hash and masks its text.
fn one(
    connection: &Connection,
    seq: i64,
    clear: &str,
    default: DailyLimit,
) -> rusqlite::Result<()> {
    let key = SecretKey::new_unchecked(clear);
    let hash = key.hash().to_hex();
    let taken: Option<String> = connection
        .prepare_cached("SELECT id FROM api_keys WHERE key_hash = ?1 OR old_key_hash = ?1")?
        .query_row([&hash], |row| row.get(0))
        .optional()?;
    let (stored, duplicate) = match taken {
        None => (hash, false),
        // No hash looks like this, so the row can never be presented.
        Some(id) => {
            tracing::warn!(first = %id, "a key was typed in that exists already; its new row is switched off");
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
             WHERE seq = ?1",
        )?
        .execute(params![seq, key.masked(), stored, default.get(), duplicate])?;
    // It may be another key in the place of one that has a claim.
    changes::withdraw_claims(connection, &readable_id(connection, seq)?)?;
    listed(connection, seq)
}

/// The row's id; a new one if it is no text.
fn readable_id(connection: &Connection, seq: i64) -> rusqlite::Result<KeyId> {
    let id: Option<String> =
        connection
            .prepare_cached("SELECT id FROM api_keys WHERE seq = ?1")?
            .query_row([seq], |row| Ok(row.get_ref(0)?.as_str().ok().map(str::to_owned)))?;
    if let Some(id) = id.filter(|id| !id.is_empty()) {
        return Ok(KeyId::new(id));
    }
    let id = KeyId::generate();
    connection
        .prepare_cached("UPDATE api_keys SET id = ?2 WHERE seq = ?1")?
        .execute(params![seq, id.as_str()])?;
    Ok(id)
}

/// Puts a row to which somebody gave a number that lists do not know behind all others.
fn listed(connection: &Connection, seq: i64) -> rusqlite::Result<()> {
    connection
        .prepare_cached(
            "UPDATE api_keys SET seq = (SELECT max(seq, 0) + 1 FROM
                 (SELECT max(seq) AS seq FROM api_keys UNION SELECT seq FROM sqlite_sequence
                  WHERE name = 'api_keys' ORDER BY seq DESC LIMIT 1))
             WHERE seq = ?1 AND seq < 1",
        )?
        .execute([seq])?;
    Ok(())
}
