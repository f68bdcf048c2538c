//! Reads the keys of trial-key proxies, whose tables and columns have various names.

use std::time::SystemTime;

use rusqlite::Connection;
use tower::BoxError;
use tower_quota::{
    admin::store::{ImportedKey, InvalidColumn},
    clock::parse_timestamp,
};

use super::{
    days::{self, Days},
    source::{
        DefaultLimits, ReadOptions, Row, RowProblem, RowReport, Source, SourceRow, columns,
        for_each_row,
    },
};

/// Tables that may contain keys.
const TABLES: [&str; 2] = ["trial_keys", "api_keys"];

/// Returns whether the file is a database of this gateway.
pub(super) fn is_own(connection: &Connection) -> rusqlite::Result<bool> {
    Ok(columns(connection, "api_keys")?.iter().any(|name| name == "old_key_hash"))
}

/// Returns the tables that contain keys.
pub(super) fn tables(connection: &Connection) -> rusqlite::Result<Vec<&'static str>> {
    let mut tables = Vec::new();
    for name in TABLES {
        let columns = columns(connection, name)?;
        if columns.iter().any(|name| name == "key" || name == "key_hash") {
            tables.push(name);
        }
    }
    Ok(tables)
}

pub(super) fn read(
    connection: &Connection,
    tables: &[&'static str],
    options: &ReadOptions<'_>,
) -> Result<Source, BoxError> {
    let default = options.default_limits();
    let today = options.calendar.window(SystemTime::now()).day;
    let mut days = days::read(connection, options.calendar, today)?;
    let mut source = Source::default();
    let mut totals = 0;
    for table in tables {
        for_each_row(connection, table, options.progress, |number, row| {
            totals += usize::from(row.get("total_quota").is_some());
            let key = key(&row, &default, &mut days);
            let label = key.as_ref().map(|key| key.record().label.clone()).unwrap_or_default();
            source.rows.push(SourceRow {
                place: format!("{table} row {number}"),
                key: key.map_err(|error| RowProblem::Conflict(error.to_string())),
                report: RowReport { label, ..RowReport::default() },
            });
        })?;
    }
    if totals > 0 {
        let limit = options.daily_limit.number();
        source.notes.push(format!(
            "{totals} keys had a total quota, which is not kept here: without a daily limit they get \
             {limit} a day, and those that had used it up are disabled"
        ));
    }
    source.notes.extend(days.left_out());
    Ok(source)
}

fn key(
    row: &Row<'_>,
    default: &DefaultLimits,
    days: &mut Days,
) -> Result<ImportedKey, InvalidColumn> {
    let column = |name: &str| row.get(name);
    // An invalid creation time is no reason not to import a key.
    let created_at = column("created_at").filter(|text| parse_timestamp(text).is_some());
    let number = |name: &str| column(name)?.parse::<i64>().ok();
    let is_disabled = !matches!(column("is_active"), None | Some("1" | "true"))
        || number("total_quota").is_some_and(|total| number("used_quota") >= Some(total));
    let key = ImportedKey::from_columns(|name| match name {
        // A row number; this gateway's ids have another format.
        "id" => None,
        "key_sha256" => column("key_hash"),
        "label" => column("label").or(column("name")),
        "disabled" if is_disabled => Some("true"),
        "created_at" => created_at,
        name => column(name).or_else(|| default.get(name)),
    })?;
    let used = days.take(key.hash()).into_iter().collect();
    Ok(key.with_used(used))
}
