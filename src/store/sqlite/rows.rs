//! Reading of rows whose columns may contain anything that people type.

use rusqlite::{Connection, OptionalExtension, types::ValueRef};

use crate::{
    clock::Day,
    store::counter::{Count, CounterKey, MAX_UNITS},
};

/// Returns a number of units for display, or 0 if the value is not a valid one.
pub(super) fn units(value: ValueRef<'_>) -> u64 {
    const MAX: i64 = MAX_UNITS as i64;
    match value {
        ValueRef::Integer(count @ 0..=MAX) => count.unsigned_abs(),
        _ => 0,
    }
}

/// Converts a number to SQLite's integers, the largest of which stands for larger numbers.
pub(super) fn integer(number: impl TryInto<i64>) -> i64 {
    number.try_into().unwrap_or(i64::MAX)
}

/// Converts a value of any type to text.
pub(crate) fn text(value: ValueRef<'_>) -> Option<String> {
    match value {
        ValueRef::Null => None,
        ValueRef::Integer(number) => Some(number.to_string()),
        ValueRef::Real(number) => Some(format!("{number:.0}")),
        ValueRef::Text(bytes) | ValueRef::Blob(bytes) => {
            Some(String::from_utf8_lossy(bytes).into_owned())
        }
    }
}

/// Returns the count of the period that begins on this day, or of a later one if there is one: setting
/// the clock back does not return to an earlier period, but a reset does.
pub(super) fn read_count(
    connection: &Connection,
    key: &CounterKey,
    day: Day,
) -> rusqlite::Result<Count> {
    let count = connection
        .prepare_cached(
            "SELECT day, epoch, used, refunded FROM daily_usage
             WHERE key_id = ?1 AND quota = ?2 ORDER BY epoch DESC, day DESC LIMIT 1",
        )?
        .query_row([key.subject.as_str(), key.quota.as_str()], |row| {
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
