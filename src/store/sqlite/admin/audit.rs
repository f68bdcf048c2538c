//! The table `audit_log`.

use std::{
    net::IpAddr,
    time::{SystemTime, UNIX_EPOCH},
};

use rusqlite::{Connection, Row, params};

use super::super::rows;
use crate::{
    clock::{parse_timestamp, rfc3339},
    key::KeyId,
    store::{Actor, AuditEntry, AuditQuery},
};

pub(crate) fn write(
    connection: &Connection,
    at: SystemTime,
    by: &Actor,
    action: &str,
    key_id: Option<&KeyId>,
    detail: &str,
) -> rusqlite::Result<()> {
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
            key_id.map(KeyId::as_str),
            detail
        ])?;
    Ok(())
}

pub(crate) fn read(
    connection: &Connection,
    query: &AuditQuery,
) -> rusqlite::Result<Vec<AuditEntry>> {
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
    let entries = statement.query_map(values, entry)?;
    entries.collect()
}

/// Reads an entry. Invalid values are read as far as possible, as no row can be deleted from the
/// trail.
fn entry(row: &Row<'_>) -> rusqlite::Result<AuditEntry> {
    let text = |column| row.get_ref(column).map(rows::text);
    let ip = text(3)?.and_then(|ip| ip.parse::<IpAddr>().ok());
    Ok(AuditEntry {
        number: row.get(0)?,
        at: text(1)?.and_then(|at| parse_timestamp(&at)).unwrap_or(UNIX_EPOCH),
        actor: Actor { token_id: text(2)?.unwrap_or_default(), ip },
        action: text(4)?.unwrap_or_default(),
        key_id: text(5)?.map(KeyId::new),
        detail: text(6)?.unwrap_or_default(),
        label: text(7)?,
    })
}
