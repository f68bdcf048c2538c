//! Reports of past usage.
//!
//! Reports by key and day read each day in the order of the keys' ids and merge its rows, so that a
//! page costs no more than its day however many rows there are. Reports of all keys together use
//! the sums in `model_totals`.

mod by_day;
pub(super) mod requests;

use std::collections::HashMap;

use rusqlite::{Connection, OptionalExtension, Row, params};

use self::by_day::by_key_and_day;
use super::{SqliteStore, keys::columns, rows, unavailable};
use crate::{
    clock::Day,
    key::{DefaultLimits, KeyId, KeyRecord},
    store::{
        StoreFuture, Tokens, UsageEvent, UsageSink,
        report::{
            FIGURES, ReportPage, RequestQuery, RequestRecord, UsageFigures, UsageQuery,
            UsageReader, UsageReport, UsageRow,
        },
        support::ReportBuilder,
    },
};

/// Index of the first column after [`FIGURES`].
const NEXT: usize = FIGURES.len();

impl UsageSink for SqliteStore {
    fn record(&self, event: UsageEvent) {
        self.0.core.engine.record(event);
    }

    fn expect_events(&self) {
        self.0.core.engine.expect_events();
    }
}

impl UsageReader for SqliteStore {
    fn report(&self, query: UsageQuery) -> StoreFuture<UsageReport> {
        let store = self.clone();
        StoreFuture::pending(async move {
            store.flush_for_read().await;
            let defaults = store.0.core.default_limits;
            let is_of_key = query.key_id.is_some();
            let read = move |connection: &Connection| {
                read(connection, &query, defaults).map_err(unavailable)
            };
            if is_of_key { store.read_of_key(read).await } else { store.read_report(read).await }
        })
    }

    fn requests(&self, query: RequestQuery) -> StoreFuture<Vec<RequestRecord>> {
        let store = self.clone();
        StoreFuture::pending(async move {
            store.flush_for_read().await;
            let is_of_key = query.key_id.is_some();
            let read = move |connection: &Connection| {
                requests::read(connection, &query).map_err(unavailable)
            };
            if is_of_key { store.read_of_key(read).await } else { store.read(read).await }
        })
    }
}

fn read(
    connection: &Connection,
    query: &UsageQuery,
    defaults: DefaultLimits,
) -> rusqlite::Result<UsageReport> {
    let mut report = match &query.key_id {
        Some(_) => by_key(connection, query)?,
        None if query.group_by.key && query.group_by.day => by_key_and_day(connection, query)?,
        None if query.group_by.key => match &query.page {
            ReportPage::ById { after, limit } => key_by_key(connection, query, after, *limit)?,
            _ => by_key(connection, query)?,
        },
        None => of_all_keys(connection, query)?,
    };
    let records = records(connection, &report.rows, defaults)?;
    report.name_keys(|id| records.get(id));
    let count = "SELECT count(*) FROM api_keys";
    report.total_keys = connection.prepare_cached(count)?.query_row([], |row| row.get(0))?;
    Ok(report)
}

/// Groups the rows of the query's key, or of each key.
fn by_key(connection: &Connection, query: &UsageQuery) -> rusqlite::Result<UsageReport> {
    let mut report = ReportBuilder::new(query.clone());
    let key_id = query.key_id.as_ref().map(KeyId::as_str);
    let condition = if key_id.is_some() { "key_id = ?3" } else { "?3 IS NULL" };
    let parameters = params![query.from.to_string(), query.to.to_string(), key_id];
    let sql = format!(
        "SELECT {}, day, key_id, model FROM usage_totals
         WHERE day BETWEEN ?1 AND ?2 AND {condition}",
        FIGURES.join(", ")
    );
    each(connection, &sql, parameters, |row| {
        if let Ok(day) = row.get::<_, String>(NEXT)?.parse() {
            let id = KeyId::new(row.get::<_, String>(NEXT + 1)?);
            report.add_figures(day, &id, &row.get::<_, String>(NEXT + 2)?, figures(row)?);
        }
        Ok(())
    })?;
    let sql = format!(
        "SELECT day, key_id, used FROM daily_usage
         WHERE quota = 'daily' AND day BETWEEN ?1 AND ?2 AND {condition}"
    );
    each(connection, &sql, parameters, |row| {
        if let Ok(day) = row.get::<_, String>(0)?.parse() {
            let id = KeyId::new(row.get::<_, String>(1)?);
            report.add_used(day, &id, rows::units(row.get_ref(2)?));
        }
        Ok(())
    })?;
    Ok(report.into_report())
}

/// Returns the rows of all keys together.
fn of_all_keys(connection: &Connection, query: &UsageQuery) -> rusqlite::Result<UsageReport> {
    let mut report = ReportBuilder::new(query.clone());
    let days = params![query.from.to_string(), query.to.to_string()];
    let sql = format!(
        "SELECT {}, day, model FROM model_totals WHERE day BETWEEN ?1 AND ?2",
        FIGURES.join(", ")
    );
    // The report is not grouped by key.
    let any_key = KeyId::from("");
    each(connection, &sql, days, |row| {
        let (day, model): (String, String) = (row.get(NEXT)?, row.get(NEXT + 1)?);
        if let Ok(day) = day.parse() {
            report.add_figures(day, &any_key, &model, figures(row)?);
        }
        Ok(())
    })?;
    let mut report = report.into_report();
    report.active_keys = active_keys(connection, query)?;
    Ok(report)
}

/// Returns the rows of at most `limit` keys after this one, each with the sums of all days.
fn key_by_key(
    connection: &Connection,
    query: &UsageQuery,
    after: &Option<(Option<Day>, KeyId)>,
    limit: usize,
) -> rusqlite::Result<UsageReport> {
    let mut next = connection.prepare_cached(
        "SELECT min(id) FROM (SELECT min(key_id) AS id FROM usage_totals WHERE key_id > ?1
             UNION ALL SELECT min(key_id) FROM daily_usage WHERE key_id > ?1)",
    )?;
    let mut report = UsageReport::default();
    let mut last = after.as_ref().map_or_else(String::new, |(_, id)| id.as_str().to_owned());
    let mut keys = 0;
    while let Some(id) = next.query_row([&last], |row| row.get::<_, Option<String>>(0))? {
        let query = query.clone().page(ReportPage::all());
        let mut rows = by_key(connection, &query.key(KeyId::from(&*id)))?.rows;
        if !rows.is_empty() {
            keys += 1;
        }
        if keys > limit {
            report.has_more = true;
            break;
        }
        rows.sort_by(|a, b| a.model.cmp(&b.model));
        report.rows.append(&mut rows);
        last = id;
    }
    Ok(report)
}

fn total_requests(connection: &Connection, query: &UsageQuery) -> rusqlite::Result<u64> {
    connection
        .prepare_cached(
            "SELECT coalesce(sum(requests), 0) FROM model_totals WHERE day BETWEEN ?1 AND ?2",
        )?
        .query_row([query.from.to_string(), query.to.to_string()], |row| row.get(0))
}

/// Returns the number of keys that were used on these days.
fn active_keys(connection: &Connection, query: &UsageQuery) -> rusqlite::Result<u64> {
    let (from, to) = (MonthDay::of(query.from), MonthDay::of(query.to));
    connection
        .prepare_cached(
            "SELECT count(DISTINCT key_id) FROM active_days
             WHERE month BETWEEN ?1 AND ?2
                 AND days & iif(month = ?1, ?3, -1) & iif(month = ?2, ?4, -1)",
        )?
        .query_row(params![from.month, to.month, -from.bit, 2 * to.bit - 1], |row| row.get(0))
}

/// Day as it is stored in `active_days`.
struct MonthDay {
    month: String,
    bit: i64,
}

impl MonthDay {
    fn of(day: Day) -> Self {
        let mut month = day.to_string();
        let of_month = month.split_off(7);
        Self { month, bit: 1 << of_month[1..].parse().unwrap_or(0) }
    }
}

fn each(
    connection: &Connection,
    sql: &str,
    arguments: impl rusqlite::Params,
    mut row: impl FnMut(&Row<'_>) -> rusqlite::Result<()>,
) -> rusqlite::Result<()> {
    let mut statement = connection.prepare_cached(sql)?;
    let mut rows = statement.query(arguments)?;
    while let Some(next) = rows.next()? {
        row(next)?;
    }
    Ok(())
}

/// Reads the columns [`FIGURES`] at the start of a row.
fn figures(row: &Row<'_>) -> rusqlite::Result<UsageFigures> {
    Ok(UsageFigures {
        requests: row.get(0)?,
        succeeded: row.get(1)?,
        failed: row.get(2)?,
        refunded: row.get(3)?,
        rejected: row.get(4)?,
        tokens_unknown: row.get(5)?,
        tokens: Tokens {
            cached: row.get(9)?,
            reasoning: row.get(10)?,
            ..Tokens::new(row.get(6)?, row.get(7)?, row.get(8)?)
        },
    })
}

/// Returns the records of the keys of these rows, including keys that were deleted.
fn records(
    connection: &Connection,
    usage: &[UsageRow],
    defaults: DefaultLimits,
) -> rusqlite::Result<HashMap<KeyId, KeyRecord>> {
    let sql = "SELECT * FROM api_keys WHERE id = ?1";
    let mut present = connection.prepare_cached(sql)?;
    let sql =
        format!("SELECT {} FROM deleted_keys WHERE id = ?1 AND key IS NOT NULL", columns::DELETED);
    let mut deleted = connection.prepare_cached(&sql)?;
    let record = |row: &Row<'_>| columns::record_for_display(row, defaults);
    let mut records = HashMap::new();
    for id in usage.iter().filter_map(|row| row.key_id.as_ref()) {
        if records.contains_key(id) {
            continue;
        }
        let record = match present.query_row([id.as_str()], record).optional()? {
            None => deleted.query_row([id.as_str()], record).optional()?,
            present => present,
        };
        records.extend(record.map(|record| (id.clone(), record)));
    }
    Ok(records)
}
