//! How much keys were used on which day.

use std::{
    collections::{BTreeMap, HashMap},
    time::SystemTime,
};

use rusqlite::{Connection, Row};
use tower_quota::clock::{Calendar, Day, parse_timestamp};

use super::original::{columns, text};

/// Requests by key, or by its hash, and day.
pub(super) struct Days {
    by_key: HashMap<String, BTreeMap<Day, u64>>,
    today: Day,
    unreadable: usize,
    future: usize,
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
    let mut days = Days { by_key: HashMap::new(), today, unreadable: 0, future: 0 };
    let mut counted = Vec::new();
    let mut has_sums = false;
    for table in TABLES {
        let columns = columns(connection, table)?;
        let Some(key) = KEY.into_iter().find(|name| columns.contains(*name)) else {
            continue;
        };
        if columns.contains("day") && columns.contains("requests") {
            has_sums = true;
            let sql = format!("SELECT {key}, day, requests FROM {table}");
            days.add_rows(connection, &sql, |day| day.parse().ok())?;
        } else if let Some(time) = TIME.into_iter().find(|name| columns.contains(*name)) {
            counted.push(format!("SELECT {key}, {time}, 1 FROM {table}"));
        }
    }
    for sql in counted.iter().filter(|_| !has_sums) {
        let day = |time: SystemTime| calendar.window(time).day;
        days.add_rows(connection, sql, |time| parse_timestamp(time).map(day))?;
    }
    Ok(days)
}

impl Days {
    fn add_rows(
        &mut self,
        connection: &Connection,
        sql: &str,
        day: impl Fn(&str) -> Option<Day>,
    ) -> rusqlite::Result<()> {
        let mut statement = connection.prepare(sql)?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            self.add(row, &day)?;
        }
        Ok(())
    }

    fn add(&mut self, row: &Row<'_>, day: impl Fn(&str) -> Option<Day>) -> rusqlite::Result<()> {
        let column = |at| row.get_ref(at).map(text);
        let requests = column(2)?.and_then(|text| text.parse::<u32>().ok()).map(u64::from);
        match (column(0)?, column(1)?.and_then(|text| day(&text)), requests) {
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

    /// The days of this key, or of this hash.
    pub(super) fn take(&mut self, key: &str) -> BTreeMap<Day, u64> {
        self.by_key.remove(key).unwrap_or_default()
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
        some.map(|(count, what)| format!("{count} {what} were left out")).collect()
    }
}
