//! Hashing of keys that were typed into `api_keys` in clear.
//!
//! A row without `key_hash` contains a key in clear. It is adopted at the next opportunity: its
//! hash is stored and the key is masked.

use rusqlite::{Connection, OptionalExtension, params};

use super::{super::rows, find_id, withdraw_claims};
use crate::key::{DefaultLimits, KeyId, SecretKey};

/// Whether there is a row to adopt.
pub(crate) fn is_needed(connection: &Connection) -> rusqlite::Result<bool> {
    connection
        .prepare_cached("SELECT EXISTS (SELECT 1 FROM api_keys WHERE key_hash IS NULL)")?
        .query_row([], |row| row.get(0))
}

/// Adopts all rows with keys in clear, and returns their number.
pub(crate) fn all(connection: &Connection, defaults: DefaultLimits) -> rusqlite::Result<usize> {
    let rows: Vec<(i64, String)> = connection
        .prepare_cached("SELECT seq, key FROM api_keys WHERE key_hash IS NULL")?
        .query_map([], |row| {
            // People may type a value of any type, even a BLOB.
            Ok((row.get(0)?, rows::text(row.get_ref(1)?).unwrap_or_default()))
        })?
        .collect::<rusqlite::Result<_>>()?;
    for (seq, clear) in &rows {
        adopt_row(connection, *seq, clear, defaults)?;
    }
    Ok(rows.len())
}

/// Adopts the row of a presented key, if there is one.
pub(crate) fn presented(
    connection: &Connection,
    clear: &str,
    defaults: DefaultLimits,
) -> rusqlite::Result<()> {
    let seq = connection
        .prepare_cached("SELECT seq FROM api_keys WHERE key = ?1 AND key_hash IS NULL")?
        .query_row([clear], |row| row.get(0))
        .optional()?;
    seq.map_or(Ok(()), |seq| adopt_row(connection, seq, clear, defaults))
}

/// Stores the hash of a row's key and masks the key.
fn adopt_row(
    connection: &Connection,
    seq: i64,
    clear: &str,
    defaults: DefaultLimits,
) -> rusqlite::Result<()> {
    let key = SecretKey::new_unchecked(clear);
    let hash = key.hash().to_hex();
    let (stored_hash, is_duplicate) = match find_id(connection, &hash)? {
        None => (hash, false),
        // This is not a valid hash, so the row never matches a presented key.
        Some(id) => {
            tracing::warn!(first = %id, "duplicate key in api_keys: the newer row is disabled");
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
        .execute(params![seq, key.masked(), stored_hash, defaults.daily.number(), is_duplicate])?;
    for (limit, value) in defaults.others.iter() {
        let name = limit.name();
        let sql = format!("UPDATE api_keys SET {name} = ?2 WHERE seq = ?1 AND {name} IS NULL");
        connection.prepare_cached(&sql)?.execute(params![seq, value.number()])?;
    }
    // The row may have replaced the key that a claim was created for.
    withdraw_claims(connection, &ensure_id(connection, seq)?)?;
    ensure_positive_number(connection, seq)
}

/// Returns the id of the row, after replacing an id that is not a text.
fn ensure_id(connection: &Connection, seq: i64) -> rusqlite::Result<KeyId> {
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

/// Moves a row whose sequence number is not positive to the end, since lists start at 1.
fn ensure_positive_number(connection: &Connection, seq: i64) -> rusqlite::Result<()> {
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
