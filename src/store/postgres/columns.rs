//! The columns of `api_keys` that hold a [`KeyRecord`]. This is the only place that names them.

use std::time::SystemTime;

use tokio_postgres::{Client, Row};

use super::sql::{self, Param, int, text};
use crate::{
    clock::{parse_timestamp, rfc3339},
    error::StoreError,
    key::{DefaultLimits, KeyHash, KeyId, KeyLimits, KeyRecord, Limit, null_limits},
};

/// Columns of `deleted_keys`, and those of `api_keys` that it lacks.
pub(super) const DELETED: &str = concat!(
    "*, NULL AS created_at, NULL AS expires_at, 1::bigint AS disabled",
    null_limits!("::bigint")
);

/// Reads the record of a row of `api_keys`.
///
/// # Errors
///
/// The outer error is PostgreSQL's. The inner one means that the row contains an invalid value.
pub(super) fn record(
    row: &Row,
    defaults: DefaultLimits,
) -> sql::Result<Result<KeyRecord, StoreError>> {
    let (record, invalid_column) = read(row, defaults)?;
    Ok(match invalid_column {
        None => Ok(record),
        Some(column) => {
            let message = format!("api_keys row {}: {column} is not valid", record.id);
            Err(StoreError::misconfigured(message))
        }
    })
}

/// Reads a record for display. A row with an invalid value is shown as disabled.
pub(super) fn record_for_display(row: &Row, defaults: DefaultLimits) -> sql::Result<KeyRecord> {
    read(row, defaults).map(|(record, _)| record)
}

/// Reads a record, and returns the first column with an invalid value, if there is one.
fn read(row: &Row, defaults: DefaultLimits) -> sql::Result<(KeyRecord, Option<&'static str>)> {
    let mut invalid_column = None;
    let mut note_invalid = |column| {
        invalid_column.get_or_insert(column);
    };
    let mut limit = |column, default| {
        let limit = match row.try_get::<_, Option<i64>>(column)? {
            None => Some(default),
            Some(number) => Limit::from_stored(number).ok(),
        };
        Ok::<_, tokio_postgres::Error>(limit.unwrap_or_else(|| {
            note_invalid(column);
            default
        }))
    };
    let daily_limit = limit("daily_limit", defaults.daily)?;
    let limits = KeyLimits::try_read(|of| limit(of.name(), defaults.others.get(of)))?;
    let expires_at = optional_time(row.try_get("expires_at")?).unwrap_or_else(|| {
        note_invalid("expires_at");
        None
    });
    let text = |column| row.try_get::<_, Option<String>>(column).map(Option::unwrap_or_default);
    let disabled: Option<i64> = row.try_get("disabled")?;
    let record = KeyRecord {
        id: KeyId::new(text("id")?),
        masked: text("key")?,
        label: text("label")?,
        daily_limit,
        limits,
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
    let KeyRecord { id, masked, label, daily_limit, limits, created_at, expires_at, disabled } =
        record;
    let (id, hash, disabled) = (sql::storable(id.as_str()), hash.to_hex(), i64::from(*disabled));
    let label = sql::storable(label);
    let (limit, created_at, expires_at) =
        (stored(*daily_limit), created_at.map(rfc3339), expires_at.map(rfc3339));
    let limits: Vec<_> =
        limits.iter().map(|(limit, value)| (limit.name(), stored(value))).collect();
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
    let limits = limits.iter().map(|(name, value)| (*name, int(value)));
    let (names, values): (Vec<_>, Vec<_>) = columns.into_iter().chain(limits).unzip();
    let numbers: Vec<String> = (1..=names.len()).map(|number| format!("${number}")).collect();
    let (names, numbers) = (names.join(", "), numbers.join(", "));
    let sql = format!("INSERT INTO api_keys ({names}) VALUES ({numbers})");
    sql::execute(client, &sql, &values).await.map(drop)
}

/// Sets the columns for which the patch has a value.
#[cfg(feature = "admin")]
pub(super) async fn update(
    client: &Client,
    id: &KeyId,
    patch: &crate::key::KeyPatch,
) -> sql::Result<()> {
    let crate::key::KeyPatch { label, daily_limit, limits, expires_at, disabled } = patch;
    let label = label.as_deref().map(sql::storable);
    let limit = daily_limit.map(stored);
    let expiry = expires_at.map(|at| at.map(rfc3339));
    let disabled = disabled.map(i64::from);
    let limits: Vec<_> =
        limits.iter().map(|(limit, value)| (limit.name(), stored(value))).collect();
    let columns = [
        ("label", label.as_ref().map(text)),
        ("daily_limit", limit.as_ref().map(int)),
        ("expires_at", expiry.as_ref().map(text)),
        ("disabled", disabled.as_ref().map(int)),
    ];
    let limits = limits.iter().map(|(name, value)| (*name, Some(int(value))));
    for (name, value) in columns.into_iter().chain(limits) {
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
