//! Reading of rows whose columns may contain anything that people type.

use std::time::SystemTime;

use rusqlite::{Connection, OptionalExtension, Row, types::ValueRef};

use crate::{
    clock::{Day, parse_timestamp},
    error::StoreError,
    key::{DailyLimit, KeyHash, KeyId, KeyRecord},
    store::{ClaimSummary, engine::counter::Count, engine::journal::from_unix_millis},
};

/// Columns that [`record`] reads, in its order.
pub(super) const RECORD: &str =
    "k.id, k.key, k.label, k.daily_limit, k.created_at, k.expires_at, k.disabled, k.key_hash";

/// Reads the record of a row that starts with the columns of [`RECORD`].
///
/// # Errors
///
/// The outer error is SQLite's. The inner one means that the row contains an invalid value.
pub(super) fn record(
    row: &Row<'_>,
    default: DailyLimit,
) -> rusqlite::Result<Result<KeyRecord, StoreError>> {
    let id = KeyId::new(text(row.get_ref(0)?).unwrap_or_default());
    let limit = daily_limit(row.get_ref(3)?, default);
    let expires_at = optional_time(row.get_ref(5)?);
    let (Some(daily_limit), Some(expires_at)) = (limit, expires_at) else {
        let column = if limit.is_none() { "daily_limit" } else { "expires_at" };
        let message = format!("api_keys row {id}: {column} is not valid");
        return Ok(Err(StoreError::misconfigured(message)));
    };
    Ok(Ok(KeyRecord {
        masked: masked(row)?,
        label: text(row.get_ref(2)?).unwrap_or_default(),
        created_at: optional_time(row.get_ref(4)?).flatten(),
        expires_at,
        disabled: is_true(row.get_ref(6)?),
        ..KeyRecord::new(id, daily_limit)
    }))
}

/// Reads a record for display. A row with an invalid value is shown as disabled.
pub(super) fn record_for_show(row: &Row<'_>, default: DailyLimit) -> rusqlite::Result<KeyRecord> {
    if let Ok(record) = record(row, default)? {
        return Ok(record);
    }
    let id = KeyId::new(text(row.get_ref(0)?).unwrap_or_default());
    Ok(KeyRecord {
        masked: masked(row)?,
        label: text(row.get_ref(2)?).unwrap_or_default(),
        created_at: optional_time(row.get_ref(4)?).flatten(),
        disabled: true,
        ..KeyRecord::new(id, default)
    })
}

/// Returns the hash of a key, or `None` if the key is still in clear.
pub(super) fn hash(value: ValueRef<'_>) -> Option<KeyHash> {
    KeyHash::from_hex(value.as_str().ok()?)
}

/// Returns the masked key, or only an ellipsis if the key is still in clear.
fn masked(row: &Row<'_>) -> rusqlite::Result<String> {
    let is_adopted = !matches!(row.get_ref(7)?, ValueRef::Null);
    Ok(if is_adopted { text(row.get_ref(1)?).unwrap_or_default() } else { "…".to_owned() })
}

fn daily_limit(value: ValueRef<'_>, default: DailyLimit) -> Option<DailyLimit> {
    match value {
        ValueRef::Null => Some(default),
        ValueRef::Integer(number) => DailyLimit::try_from(number).ok(),
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

/// Returns a number of units for display, or 0 if the value is not a valid one.
pub(super) fn units(value: ValueRef<'_>) -> u64 {
    /// Largest integer that JSON numbers represent exactly.
    const MAX_UNITS: i64 = 1 << 53;
    match value {
        ValueRef::Integer(count @ 0..=MAX_UNITS) => count.unsigned_abs(),
        _ => 0,
    }
}

/// Converts a value of any type to text.
pub(super) fn text(value: ValueRef<'_>) -> Option<String> {
    match value {
        ValueRef::Null => None,
        ValueRef::Integer(number) => Some(number.to_string()),
        ValueRef::Real(number) => Some(format!("{number:.0}")),
        ValueRef::Text(bytes) | ValueRef::Blob(bytes) => {
            Some(String::from_utf8_lossy(bytes).into_owned())
        }
    }
}

/// Returns the count of a subject on this day, or on a later day if there is one: setting the clock
/// back does not return to an earlier day, but a reset does.
pub(super) fn read_count(connection: &Connection, id: &KeyId, day: Day) -> rusqlite::Result<Count> {
    let count = connection
        .prepare_cached(
            "SELECT day, epoch, used, refunded FROM daily_usage
             WHERE key_id = ?1 ORDER BY epoch DESC, day DESC LIMIT 1",
        )?
        .query_row([id.as_str()], |row| {
            Ok(Count {
                day: row.get::<_, String>(0)?.parse().unwrap_or(day),
                epoch: row.get(1)?,
                used: row.get(2)?,
                refunded: row.get(3)?,
            })
        })
        .optional()?;
    Ok(count.map_or_else(
        || Count::new(day),
        |count| if count.day < day { count.on(day) } else { count },
    ))
}

/// Column with the number of the latest claim of the key `k`, unless it was withdrawn.
pub(super) const LATEST_CLAIM: &str = "
    (SELECT number FROM claims c WHERE c.key_id = k.id AND NOT c.withdrawn
     ORDER BY number DESC LIMIT 1)";

/// Reads the claim with this number.
pub(super) fn read_claim(connection: &Connection, number: i64) -> rusqlite::Result<ClaimSummary> {
    connection
        .prepare_cached("SELECT created_at, expires_at, opened_at FROM claims WHERE number = ?1")?
        .query_row([number], claim)
}

/// Reads the claim of a row that starts with `created_at`, `expires_at` and `opened_at`.
pub(super) fn claim(row: &Row<'_>) -> rusqlite::Result<ClaimSummary> {
    Ok(ClaimSummary {
        created_at: from_unix_millis(row.get(0)?),
        expires_at: from_unix_millis(row.get(1)?),
        opened_at: row.get::<_, Option<i64>>(2)?.map(from_unix_millis),
    })
}
