//! The columns of `api_keys` that hold a [`KeyRecord`]. This is the only place that names them.

use std::time::SystemTime;

use tokio_postgres::{Client, Row};

use super::sql::{self, Param, int, text};
use crate::{
    clock::{parse_timestamp, rfc3339},
    error::StoreError,
    key::{KeyHash, KeyId, KeyRecord, Limit},
};

/// Columns of `deleted_keys`, and those of `api_keys` that it lacks.
pub(super) const DELETED: &str = "*, NULL AS created_at, NULL AS expires_at, 1::bigint AS disabled";

/// Reads the record of a row of `api_keys`.
///
/// # Errors
///
/// The outer error is PostgreSQL's. The inner one means that the row contains an invalid value.
pub(super) fn record(row: &Row, default: Limit) -> sql::Result<Result<KeyRecord, StoreError>> {
    let (record, invalid_column) = read(row, default)?;
    Ok(match invalid_column {
        None => Ok(record),
        Some(column) => {
            let message = format!("api_keys row {}: {column} is not valid", record.id);
            Err(StoreError::misconfigured(message))
        }
    })
}

/// Reads a record for display. A row with an invalid value is shown as disabled.
pub(super) fn record_for_display(row: &Row, default: Limit) -> sql::Result<KeyRecord> {
    read(row, default).map(|(record, _)| record)
}

/// Reads a record, and returns the first column with an invalid value, if there is one.
fn read(row: &Row, default: Limit) -> sql::Result<(KeyRecord, Option<&'static str>)> {
    let limit = match row.try_get::<_, Option<i64>>("daily_limit")? {
        None => Some(default),
        Some(number) => Limit::from_stored(number).ok(),
    };
    let expiry = optional_time(row.try_get("expires_at")?);
    let (daily_limit, expires_at, invalid_column) = match (limit, expiry) {
        (Some(limit), Some(expiry)) => (limit, expiry, None),
        (None, _) => (default, None, Some("daily_limit")),
        (_, None) => (default, None, Some("expires_at")),
    };
    let text = |column| row.try_get::<_, Option<String>>(column).map(Option::unwrap_or_default);
    let disabled: Option<i64> = row.try_get("disabled")?;
    let record = KeyRecord {
        id: KeyId::new(text("id")?),
        masked: text("key")?,
        label: text("label")?,
        daily_limit,
        created_at: optional_time(row.try_get("created_at")?).flatten(),
        expires_at,
        disabled: invalid_column.is_some() || disabled.unwrap_or_default() != 0,
    };
    Ok((record, invalid_column))
}

/// Returns the hash of a key.
#[cfg(feature = "admin")]
pub(super) fn hash(row: &Row) -> sql::Result<Option<KeyHash>> {
    let digits: Option<&str> = row.try_get("key_hash")?;
    Ok(digits.and_then(KeyHash::from_hex))
}

/// Inserts the row of a record.
pub(super) async fn insert(client: &Client, record: &KeyRecord, hash: KeyHash) -> sql::Result<()> {
    let KeyRecord { id, masked, label, daily_limit, created_at, expires_at, disabled } = record;
    let (id, hash, disabled) = (sql::storable(id.as_str()), hash.to_hex(), i64::from(*disabled));
    let label = sql::storable(label);
    let (limit, created_at, expires_at) =
        (stored(*daily_limit), created_at.map(rfc3339), expires_at.map(rfc3339));
    let columns: [(&str, Param<'_>); 8] = [
        ("id", text(&id)),
        ("key", text(masked)),
        ("label", text(&label)),
        ("daily_limit", int(&limit)),
        ("created_at", text(&created_at)),
        ("expires_at", text(&expires_at)),
        ("disabled", int(&disabled)),
        ("key_hash", text(&hash)),
    ];
    let names = columns.each_ref().map(|(name, _)| *name).join(", ");
    let numbers: Vec<String> = (1..=columns.len()).map(|number| format!("${number}")).collect();
    let sql = format!("INSERT INTO api_keys ({names}) VALUES ({})", numbers.join(", "));
    sql::execute(client, &sql, &columns.map(|(_, value)| value)).await.map(drop)
}

/// Sets the columns for which the patch has a value.
#[cfg(feature = "admin")]
pub(super) async fn update(
    client: &Client,
    id: &KeyId,
    patch: &crate::key::KeyPatch,
) -> sql::Result<()> {
    let crate::key::KeyPatch { label, daily_limit, expires_at, disabled } = patch;
    let label = label.as_deref().map(sql::storable);
    let limit = daily_limit.map(stored);
    let expiry = expires_at.map(|at| at.map(rfc3339));
    let disabled = disabled.map(i64::from);
    let columns = [
        ("label", label.as_ref().map(text)),
        ("daily_limit", limit.as_ref().map(int)),
        ("expires_at", expiry.as_ref().map(text)),
        ("disabled", disabled.as_ref().map(int)),
    ];
    for (name, value) in columns {
        let Some(value) = value else { continue };
        let sql = format!("UPDATE api_keys SET {name} = $2 WHERE id = $1");
        sql::execute(client, &sql, &[text(&id.as_str()), value]).await?;
    }
    Ok(())
}

/// Returns the number of a limit. Stores have checked before that it has one; no key is served with a negative one.
fn stored(limit: Limit) -> i64 {
    limit.to_stored().map_or(-1, i64::from)
}

/// Parses an optional time: `Some(None)` if the value is empty, `None` if it is not a time.
fn optional_time(value: Option<String>) -> Option<Option<SystemTime>> {
    match value {
        None => Some(None),
        Some(text) if text.trim().is_empty() => Some(None),
        Some(text) => parse_timestamp(&text).map(Some),
    }
}
