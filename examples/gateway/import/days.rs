//! Reads how many requests each key made per day.

use std::{
    collections::{BTreeMap, HashMap},
    time::SystemTime,
};

use rusqlite::{Connection, Row};
use tower_quota::{
    clock::{Calendar, Day, parse_timestamp},
    key::{KeyHash, SecretKey},
};

use super::source::{columns, text};

/// Number of requests by key and day.
pub(super) struct Days {
    by_key: HashMap<KeyHash, BTreeMap<Day, u64>>,
    today: Day,
    /// Number of rows that were invalid.
    invalid: usize,
    /// Number of rows with a day after today.
    future: usize,
    /// Tables without a column for the key.
    without_key: Vec<&'static str>,
}

/// Tables that may contain sums by day or single requests.
const TABLES: [&str; 5] = ["daily_usage", "usage_stats", "usage_logs", "usage_log", "request_logs"];
/// Possible names of the key's column.
const KEY_COLUMNS: [&str; 4] = ["trial_key", "api_key", "key_hash", "key"];
/// Possible names of the column with the time of a request.
const TIME_COLUMNS: [&str; 2] = ["timestamp", "request_time"];

/// Reads the sums by day or, if there are none, counts single requests.
pub(super) fn read(
    connection: &Connection,
    calendar: &Calendar,
    today: Day,
) -> rusqlite::Result<Days> {
    let mut days =
        Days { by_key: HashMap::new(), today, invalid: 0, future: 0, without_key: Vec::new() };
    let mut request_queries = Vec::new();
    let mut sum_rows = 0;
    for table in TABLES {
        let columns = columns(connection, table)?;
        let has = |name: &str| columns.iter().any(|column| column == name);
        let has_sums = has("day") && has("requests");
        let time = TIME_COLUMNS.into_iter().find(|name| has(name));
        match (KEY_COLUMNS.into_iter().find(|name| has(name)), time) {
            (Some(key), _) if has_sums => {
                let sql = format!("SELECT {key}, day, requests FROM {table}");
                sum_rows += days.add_rows(connection, &sql, |day| day.parse().ok())?;
            }
            (Some(key), Some(time)) => {
                request_queries.push(format!("SELECT {key}, {time}, 1 FROM {table}"));
            }
            (None, _) if !columns.is_empty() => days.without_key.push(table),
            _ => {}
        }
    }
    for sql in request_queries.iter().filter(|_| sum_rows == 0) {
        let day = |time: SystemTime| calendar.window(time).day;
        days.add_rows(connection, sql, |time| parse_timestamp(time).map(day))?;
    }
    Ok(days)
}

impl Days {
    /// Adds the rows of a query with the columns key, day and requests, and returns their number.
    fn add_rows(
        &mut self,
        connection: &Connection,
        sql: &str,
        day: impl Fn(&str) -> Option<Day>,
    ) -> rusqlite::Result<usize> {
        let mut statement = connection.prepare(sql)?;
        let (mut rows, mut count) = (statement.query([])?, 0);
        while let Some(row) = rows.next()? {
            self.add(row, &day)?;
            count += 1;
        }
        Ok(count)
    }

    fn add(&mut self, row: &Row<'_>, day: impl Fn(&str) -> Option<Day>) -> rusqlite::Result<()> {
        let column = |at| row.get_ref(at).map(text);
        let requests = column(2)?.and_then(|text| text.parse::<u32>().ok()).map(u64::from);
        let key = column(0)?.and_then(|text| hash(&text));
        match (key, column(1)?.and_then(|text| day(&text)), requests) {
            (_, _, Some(0)) => {}
            (Some(_), Some(day), Some(_)) if day > self.today => self.future += 1,
            (Some(key), Some(day), Some(requests)) => {
                let sum = self.by_key.entry(key).or_default().entry(day).or_default();
                *sum = sum.saturating_add(requests);
            }
            _ => self.invalid += 1,
        }
        Ok(())
    }

    /// Removes and returns the days of this key.
    pub(super) fn take(&mut self, key: KeyHash) -> BTreeMap<Day, u64> {
        self.by_key.remove(&key).unwrap_or_default()
    }

    /// Describes the rows that were not imported.
    pub(super) fn left_out(&self) -> Vec<String> {
        let orphans = self.by_key.values().map(BTreeMap::len).sum();
        let left_out = [
            (orphans, "days of unknown keys"),
            (self.future, "rows of future days"),
            (self.invalid, "invalid rows of usage"),
        ];
        let counts = left_out.into_iter().filter(|(count, _)| *count > 0);
        let counts = counts.map(|(count, what)| format!("{count} {what} were left out"));
        let tables = self.without_key.iter();
        let tables = tables.map(|table| format!("{table} has no column for keys and was left out"));
        counts.chain(tables).collect()
    }
}

/// Returns the hash of a key that is given by its text or by its hash.
fn hash(name: &str) -> Option<KeyHash> {
    KeyHash::from_hex(name).or_else(|| Some(SecretKey::parse(name).ok()?.hash()))
}
