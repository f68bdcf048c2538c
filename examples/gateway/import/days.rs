//! How much keys were used on which day.

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

/// Requests by key and day.
pub(super) struct Days {
    by_key: HashMap<KeyHash, BTreeMap<Day, u64>>,
    today: Day,
    unreadable: usize,
    future: usize,
    /// Tables that do not say whose the requests were.
    nameless: Vec<&'static str>,
}

/// Where days or requests stand.
const TABLES: [&str; 5] = ["daily_usage", "usage_stats", "usage_logs", "usage_log", "request_logs"];
/// What the key's column is called.
const KEY: [&str; 4] = ["trial_key", "api_key", "key_hash", "key"];
/// What the column of a request's time is called.
const TIME: [&str; 2] = ["timestamp", "request_time"];

/// Reads sums by day or, where there are none, counts single requests.
pub(super) fn read(
    connection: &Connection,
    calendar: &Calendar,
    today: Day,
) -> rusqlite::Result<Days> {
    let mut days =
        Days { by_key: HashMap::new(), today, unreadable: 0, future: 0, nameless: Vec::new() };
    let mut counted = Vec::new();
    let mut sums = 0;
    for table in TABLES {
        let columns = columns(connection, table)?;
        let has = |name: &str| columns.iter().any(|column| column == name);
        let has_sums = has("day") && has("requests");
        let time = TIME.into_iter().find(|name| has(name));
        match (KEY.into_iter().find(|name| has(name)), time) {
            (Some(key), _) if has_sums => {
                let sql = format!("SELECT {key}, day, requests FROM {table}");
                sums += days.add_rows(connection, &sql, |day| day.parse().ok())?;
            }
            (Some(key), Some(time)) => {
                counted.push(format!("SELECT {key}, {time}, 1 FROM {table}"));
            }
            (None, _) if !columns.is_empty() => days.nameless.push(table),
            _ => {}
        }
    }
    for sql in counted.iter().filter(|_| sums == 0) {
        let day = |time: SystemTime| calendar.window(time).day;
        days.add_rows(connection, sql, |time| parse_timestamp(time).map(day))?;
    }
    Ok(days)
}

impl Days {
    /// Returns how many there were.
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
            _ => self.unreadable += 1,
        }
        Ok(())
    }

    /// The days of this key.
    pub(super) fn take(&mut self, key: KeyHash) -> BTreeMap<Day, u64> {
        self.by_key.remove(&key).unwrap_or_default()
    }

    /// What nobody has taken, and what could not be.
    pub(super) fn left_out(&self) -> Vec<String> {
        let orphans = self.by_key.values().map(BTreeMap::len).sum();
        let left_out = [
            (orphans, "days of keys that are not there"),
            (self.future, "rows of days to come"),
            (self.unreadable, "rows of use that cannot be read"),
        ];
        let some = left_out.into_iter().filter(|(count, _)| *count > 0);
        let some = some.map(|(count, what)| format!("{count} {what} were left out"));
        let nameless = self.nameless.iter();
        let nameless =
            nameless.map(|table| format!("{table} does not name keys, and was left out"));
        some.chain(nameless).collect()
    }
}

/// The hash of a key that is named by its text or by its hash.
fn hash(name: &str) -> Option<KeyHash> {
    KeyHash::from_hex(name).or_else(|| Some(SecretKey::parse(name).ok()?.hash()))
}
