//! The keys of trial-key proxies, which name their tables and columns in several ways.

use std::{
    collections::{HashMap, HashSet},
    path::Path,
    time::SystemTime,
};

use rusqlite::{Connection, OpenFlags, types::ValueRef};
use tower::BoxError;
use tower_quota::{
    clock::{Calendar, parse_timestamp},
    key::DailyLimit,
    store::{ImportedKey, InvalidColumn},
};

use super::days::{self, Days};

/// What another proxy's file holds.
pub(super) struct Original {
    pub(super) keys: Vec<OriginalKey>,
    /// What could not be taken over as it was.
    pub(super) notes: Vec<String>,
}

/// One row of a table of keys.
pub(super) struct OriginalKey {
    pub(super) table: &'static str,
    /// Counted from 1.
    pub(super) row: usize,
    pub(super) read: Result<ImportedKey, InvalidColumn>,
}

/// Where keys stand.
const TABLES: [&str; 2] = ["trial_keys", "api_keys"];

/// Reads all of it, and changes nothing.
pub(super) fn read(
    file: &Path,
    default: DailyLimit,
    calendar: &Calendar,
) -> Result<Original, BoxError> {
    let shown = file.display();
    let failed = |error: rusqlite::Error| format!("{shown} cannot be read: {error}");
    let connection =
        Connection::open_with_flags(file, OpenFlags::SQLITE_OPEN_READ_ONLY).map_err(failed)?;
    let mut tables = Vec::new();
    for name in TABLES {
        let columns = columns(&connection, name).map_err(failed)?;
        if columns.contains("old_key_hash") {
            let instead = "export its keys on its page, and import them on the other's";
            return Err(format!("{shown} is this gateway's own: {instead}").into());
        }
        if columns.contains("key") || columns.contains("key_hash") {
            tables.push(name);
        }
    }
    if tables.is_empty() {
        return Err(format!("{shown} has neither trial_keys nor api_keys with keys in it").into());
    }
    let today = calendar.window(SystemTime::now()).day;
    let mut days = days::read(&connection, calendar, today).map_err(failed)?;
    let mut original = Original { keys: Vec::new(), notes: Vec::new() };
    let mut totals = 0;
    for table in tables {
        for (at, row) in rows(&connection, table).map_err(failed)?.iter().enumerate() {
            totals += usize::from(row.contains_key("total_quota"));
            original.keys.push(OriginalKey {
                table,
                row: at + 1,
                read: key(row, default, &mut days),
            });
        }
    }
    if totals > 0 {
        let limit = default.get();
        original.notes.push(format!(
            "{totals} keys had a quota for all time, which is not kept here: where they have no \
             daily limit they get {limit} a day, and those that had used it up are disabled"
        ));
    }
    original.notes.extend(days.left_out());
    Ok(original)
}

/// A row's columns that hold something, as text.
type Columns = HashMap<String, String>;

fn key(row: &Columns, default: DailyLimit, days: &mut Days) -> Result<ImportedKey, InvalidColumn> {
    let column = |name: &str| row.get(name).map(String::as_str);
    // When it was made is nice to know, and no reason to leave it behind.
    let made_at = column("created_at").filter(|text| parse_timestamp(text).is_some());
    let number = |name: &str| column(name)?.parse::<i64>().ok();
    let is_off = !matches!(column("is_active"), None | Some("1" | "true"))
        || number("total_quota").is_some_and(|total| number("used_quota") >= Some(total));
    let default = default.get().to_string();
    let mut key = ImportedKey::from_columns(|name| match name {
        // A number, where there is one; ids here are other ones.
        "id" => None,
        "key_sha256" => column("key_hash"),
        "label" => column("label").or(column("name")),
        "daily_limit" => column("daily_limit").or(Some(&default)),
        "disabled" if is_off => Some("true"),
        "created_at" => made_at,
        name => column(name),
    })?;
    key.used = days.take(key.hash).into_iter().collect();
    Ok(key)
}

/// The names of a table's columns in small letters, as SQLite takes them in any; none if there is no such
/// table.
pub(super) fn columns(connection: &Connection, table: &str) -> rusqlite::Result<HashSet<String>> {
    let mut statement = connection.prepare("SELECT lower(name) FROM pragma_table_info(?1)")?;
    statement.query_map([table], |row| row.get(0))?.collect()
}

fn rows(connection: &Connection, table: &str) -> rusqlite::Result<Vec<Columns>> {
    let mut statement = connection.prepare(&format!("SELECT * FROM {table}"))?;
    let names: Vec<String> = statement.column_names().into_iter().map(str::to_lowercase).collect();
    let read = |row: &rusqlite::Row<'_>| {
        let mut columns = Columns::new();
        for (at, name) in names.iter().enumerate() {
            if let Some(text) = text(row.get_ref(at)?) {
                columns.insert(name.clone(), text);
            }
        }
        Ok(columns)
    };
    statement.query_map([], read)?.collect()
}

/// Whatever was put into a column, as text.
pub(super) fn text(value: ValueRef<'_>) -> Option<String> {
    match value {
        ValueRef::Null => None,
        ValueRef::Integer(number) => Some(number.to_string()),
        ValueRef::Real(number) => Some(number.to_string()),
        ValueRef::Text(bytes) | ValueRef::Blob(bytes) => {
            Some(String::from_utf8_lossy(bytes).into_owned())
        }
    }
}
