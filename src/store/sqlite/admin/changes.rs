//! Changes to rows of `api_keys` and to their claims.

use std::{collections::HashSet, time::SystemTime};

use rusqlite::{Connection, OptionalExtension, params};

use super::{super::keys::columns, audit};
use crate::{
    clock::rfc3339,
    key::{KeyId, KeyRecord},
    store::{Actor, KeyChange, NewKey, Rotation},
};

/// Inserts the rows of new keys with their audit entries, or returns `None` and inserts nothing if
/// one of the keys already exists.
pub(crate) fn insert(
    connection: &Connection,
    keys: &[NewKey],
    by: &Actor,
    now: SystemTime,
) -> rusqlite::Result<Option<Vec<KeyRecord>>> {
    let mut batch = HashSet::new();
    for key in keys {
        let hash = key.secret.hash();
        if !batch.insert(hash) || find_id(connection, &hash.to_hex())?.is_some() {
            return Ok(None);
        }
    }
    let records: Vec<KeyRecord> = keys.iter().map(|key| key.issued_at(now)).collect();
    for (key, record) in keys.iter().zip(&records) {
        columns::insert(connection, record, key.secret.hash())?;
        let detail = record.audit_detail();
        audit::write(connection, now, by, "key.create", Some(&record.id), &detail)?;
    }
    Ok(Some(records))
}

/// Returns the id of the row with this hash, or with this hash before its last rotation.
pub(crate) fn find_id(connection: &Connection, hash: &str) -> rusqlite::Result<Option<String>> {
    connection
        .prepare_cached("SELECT id FROM api_keys WHERE key_hash = ?1 OR old_key_hash = ?1")?
        .query_row([hash], |row| row.get(0))
        .optional()
}

/// Applies a change to one row. A reset changes only the counter.
pub(crate) fn apply(
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

/// Withdraws the unopened claims of a key.
pub(crate) fn withdraw_claims(connection: &Connection, id: &KeyId) -> rusqlite::Result<()> {
    connection
        .prepare_cached("UPDATE claims SET withdrawn = 1 WHERE key_id = ?1 AND opened_at IS NULL")?
        .execute([id.as_str()])?;
    Ok(())
}
