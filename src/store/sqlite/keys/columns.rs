//! The columns of `api_keys` that hold a [`KeyRecord`]. This is the only place that names them.

use std::time::SystemTime;

use rusqlite::{Connection, Row, ToSql, types::ValueRef};

use super::super::rows::text;
use crate::{
    clock::{parse_timestamp, rfc3339},
    error::StoreError,
    key::{DefaultLimits, KeyHash, KeyId, KeyLimits, KeyRecord, Limit, null_limits},
};

/// Columns of `deleted_keys`, and those of `api_keys` that it lacks.
pub(crate) const DELETED: &str = concat!(
    "*, NULL AS created_at, NULL AS expires_at, 1 AS disabled, '' AS key_hash",
    null_limits!("")
);

/// Reads the record of a row of `api_keys`.
///
/// # Errors
///
/// The outer error is SQLite's. The inner one means that the row contains an invalid value.
pub(crate) fn record(
    row: &Row<'_>,
    defaults: DefaultLimits,
) -> rusqlite::Result<Result<KeyRecord, StoreError>> {
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
pub(crate) fn record_for_display(
    row: &Row<'_>,
    defaults: DefaultLimits,
) -> rusqlite::Result<KeyRecord> {
    read(row, defaults).map(|(record, _)| record)
}

/// Reads a record, and returns the first column with an invalid value, if there is one. The columns
/// may contain anything that people type.
fn read(
    row: &Row<'_>,
    defaults: DefaultLimits,
) -> rusqlite::Result<(KeyRecord, Option<&'static str>)> {
    let mut invalid_column = None;
    let mut note_invalid = |column| {
        invalid_column.get_or_insert(column);
    };
    let mut limit = |column, default| {
        let limit = limit(row.get_ref(column)?, default);
        Ok::<_, rusqlite::Error>(limit.unwrap_or_else(|| {
            note_invalid(column);
            default
        }))
    };
    let daily_limit = limit("daily_limit", defaults.daily)?;
    let limits = KeyLimits::try_read(|of| limit(of.name(), defaults.others.get(of)))?;
    let expires_at = optional_time(row.get_ref("expires_at")?).unwrap_or_else(|| {
        note_invalid("expires_at");
        None
    });
    // A key in clear is never shown.
    let is_adopted = !matches!(row.get_ref("key_hash")?, ValueRef::Null);
    let masked = if is_adopted { text(row.get_ref("key")?) } else { Some("…".to_owned()) };
    let record = KeyRecord {
        id: KeyId::new(text(row.get_ref("id")?).unwrap_or_default()),
        masked: masked.unwrap_or_default(),
        label: text(row.get_ref("label")?).unwrap_or_default(),
        daily_limit,
        limits,
        created_at: optional_time(row.get_ref("created_at")?).flatten(),
        expires_at,
        disabled: invalid_column.is_some() || is_true(row.get_ref("disabled")?),
    };
    Ok((record, invalid_column))
}

/// Returns the hash of a key, or `None` if the key is still in clear.
#[cfg(feature = "admin")]
pub(crate) fn hash(row: &Row<'_>) -> rusqlite::Result<Option<KeyHash>> {
    Ok(row.get_ref("key_hash")?.as_str().ok().and_then(KeyHash::from_hex))
}

/// Inserts the row of a record.
pub(crate) fn insert(
    connection: &Connection,
    record: &KeyRecord,
    hash: KeyHash,
) -> rusqlite::Result<()> {
    let KeyRecord { id, masked, label, daily_limit, limits, created_at, expires_at, disabled } =
        record;
    let columns: [(&str, &dyn ToSql); 8] = [
        ("id", &id.as_str()),
        ("key", masked),
        ("label", label),
        ("daily_limit", &stored(*daily_limit)?),
        ("created_at", &created_at.map(rfc3339)),
        ("expires_at", &expires_at.map(rfc3339)),
        ("disabled", disabled),
        ("key_hash", &hash.to_hex()),
    ];
    let limits = limits.iter().map(|(limit, value)| Ok((limit.name(), stored(value)?)));
    let limits: Vec<_> = limits.collect::<rusqlite::Result<_>>()?;
    let limits = limits.iter().map(|(name, value)| (*name, value as &dyn ToSql));
    let (names, values): (Vec<_>, Vec<_>) = columns.into_iter().chain(limits).unzip();
    let sql = format!(
        "INSERT INTO api_keys ({}) VALUES ({})",
        names.join(", "),
        vec!["?"; names.len()].join(", ")
    );
    connection.prepare_cached(&sql)?.execute(&values[..])?;
    Ok(())
}

/// Sets the columns for which the patch has a value.
#[cfg(feature = "admin")]
pub(crate) fn update(
    connection: &Connection,
    id: &KeyId,
    patch: &crate::key::KeyPatch,
) -> rusqlite::Result<()> {
    use rusqlite::{params, types::Value};

    let crate::key::KeyPatch { label, daily_limit, limits, expires_at, disabled } = patch;
    let mut columns: Vec<(&str, Option<Value>)> = vec![
        ("label", label.clone().map(Value::from)),
        ("daily_limit", daily_limit.map(stored).transpose()?.map(Value::from)),
        ("expires_at", expires_at.map(|at| at.map(rfc3339).into())),
        ("disabled", disabled.map(Value::from)),
    ];
    for (limit, value) in limits.iter() {
        columns.push((limit.name(), Some(stored(value)?.into())));
    }
    for (name, value) in columns {
        let Some(value) = value else { continue };
        let sql = format!("UPDATE api_keys SET {name} = ?2 WHERE id = ?1");
        connection.prepare_cached(&sql)?.execute(params![id.as_str(), value])?;
    }
    Ok(())
}

/// Returns the number of a limit. What is stored has one by construction.
fn stored(limit: Limit) -> rusqlite::Result<u32> {
    limit.to_stored().map_err(|error| rusqlite::Error::ToSqlConversionFailure(error.into()))
}

fn limit(value: ValueRef<'_>, default: Limit) -> Option<Limit> {
    match value {
        ValueRef::Null => Some(default),
        ValueRef::Integer(number) => Limit::from_stored(number).ok(),
        _ => None,
    }
}

/// Parses an optional time: `Some(None)` if the value is empty, `None` if it is not a time.
fn optional_time(value: ValueRef<'_>) -> Option<Option<SystemTime>> {
    match text(value) {
        None => Some(None),
        Some(text) if text.trim().is_empty() => Some(None),
        Some(text) => parse_timestamp(&text).map(Some),
    }
}

fn is_true(value: ValueRef<'_>) -> bool {
    match value {
        ValueRef::Null => false,
        ValueRef::Integer(number) => number != 0,
        _ => true,
    }
}
