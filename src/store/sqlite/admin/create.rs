//! The table `issued_once`: idempotent creation of keys.

use std::time::SystemTime;

use rusqlite::{Connection, OptionalExtension, params};

use super::changes;
use crate::{
    key::{KeyId, hex},
    store::{
        Actor, CreateOutcome, IDEMPOTENCY_RETENTION, IdempotencyKey, NewKey,
        engine::journal::unix_millis,
    },
};

/// Inserts the rows of new keys, unless a request with the same idempotency key has done so.
/// Returns `None` and inserts nothing if one of the keys already exists.
pub(crate) fn insert(
    connection: &Connection,
    keys: &[NewKey],
    idempotency_key: IdempotencyKey,
    by: &Actor,
    now: SystemTime,
) -> rusqlite::Result<Option<CreateOutcome>> {
    delete_expired(connection, now)?;
    let (name, request) = (hex(&idempotency_key.name()), hex(&idempotency_key.request()));
    if let Some((first_request, ids)) = find(connection, &name)? {
        return Ok(Some(if first_request == request {
            CreateOutcome::Replayed(ids)
        } else {
            CreateOutcome::OtherRequest
        }));
    }
    let Some(records) = changes::insert(connection, keys, by, now)? else { return Ok(None) };
    let ids: Vec<&str> = records.iter().map(|record| record.id.as_str()).collect();
    connection
        .prepare_cached(
            "INSERT INTO issued_once (name, request, key_ids, at) VALUES (?1, ?2, ?3, ?4)",
        )?
        .execute(params![name, request, ids.join(" "), unix_millis(now)])?;
    Ok(Some(CreateOutcome::Issued(records)))
}

fn find(connection: &Connection, name: &str) -> rusqlite::Result<Option<(String, Vec<KeyId>)>> {
    connection
        .prepare_cached("SELECT request, key_ids FROM issued_once WHERE name = ?1")?
        .query_row([name], |row| {
            let ids: String = row.get(1)?;
            Ok((row.get(0)?, ids.split(' ').map(KeyId::from).collect()))
        })
        .optional()
}

fn delete_expired(connection: &Connection, now: SystemTime) -> rusqlite::Result<()> {
    let since = now.checked_sub(IDEMPOTENCY_RETENTION).unwrap_or(SystemTime::UNIX_EPOCH);
    connection
        .prepare_cached("DELETE FROM issued_once WHERE at < ?1")?
        .execute([unix_millis(since)])?;
    Ok(())
}
