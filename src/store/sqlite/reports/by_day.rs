//! Reports with rows for each key and day.
//!
//! The rows of a day are read one by one in the order of the keys' ids, and at most as many as fit
//! on the page are kept in memory.

use std::{cmp::Ordering, collections::BinaryHeap};

use rusqlite::{Connection, Row, params};

use super::{NEXT, active_keys, figures, rows, total_requests};
use crate::{
    clock::Day,
    key::KeyId,
    store::{
        report::{FIGURES, ReportPage, UsageQuery, UsageReport, UsageRow},
        support::busiest_first,
    },
};

pub(super) fn by_key_and_day(
    connection: &Connection,
    query: &UsageQuery,
) -> rusqlite::Result<UsageReport> {
    match &query.page {
        ReportPage::Busiest { skip, limit } => busiest_by_day(connection, query, *skip, *limit),
        ReportPage::ById { after, limit } => by_day_and_id(connection, query, after, *limit),
    }
}

fn by_day_and_id(
    connection: &Connection,
    query: &UsageQuery,
    after: &Option<(Option<Day>, KeyId)>,
    limit: usize,
) -> rusqlite::Result<UsageReport> {
    let (mut day, mut id) = match after {
        Some((day, id)) => (day.unwrap_or(query.to), Some(id)),
        None => (query.to, None),
    };
    let mut report = UsageReport::default();
    while day >= query.from && report.rows.is_empty() {
        let (rows, mut keys) = (&mut report.rows, 0);
        each_of_day(connection, query, day, id, |row| {
            let is_next = rows.last().is_none_or(|last| last.key_id != row.key_id);
            keys += usize::from(is_next);
            if keys <= limit {
                rows.push(row);
            }
            keys <= limit
        })?;
        report.has_more = keys > limit || day > query.from;
        (day, id) = (day.minus(1), None);
    }
    report.has_more &= !report.rows.is_empty();
    Ok(report)
}

fn busiest_by_day(
    connection: &Connection,
    query: &UsageQuery,
    mut skip: usize,
    limit: usize,
) -> rusqlite::Result<UsageReport> {
    let mut report = UsageReport::default();
    let mut day = query.to;
    while day >= query.from && !report.has_more {
        let mut busiest = Busiest::new(skip.saturating_add(limit - report.rows.len()));
        each_of_day(connection, query, day, None, |row| {
            busiest.add(row);
            true
        })?;
        report.has_more = busiest.has_more;
        let rows = busiest.rows.into_sorted_vec();
        let skipped = skip.min(rows.len());
        skip -= skipped;
        report.rows.extend(rows.into_iter().skip(skipped).map(|Ranked(row)| row));
        day = day.minus(1);
    }
    if query.idle && query.from == query.to && !report.has_more {
        let max_rows = (limit - report.rows.len()).saturating_add(1);
        let mut idle = idle_rows(connection, query.to, skip, max_rows)?;
        report.has_more = report.rows.len() + idle.len() > limit;
        idle.truncate(limit - report.rows.len());
        report.rows.append(&mut idle);
    }
    report.total_requests = total_requests(connection, query)?;
    report.active_keys = active_keys(connection, query)?;
    Ok(report)
}

/// The busiest `limit` of the rows that were added.
struct Busiest {
    limit: usize,
    rows: BinaryHeap<Ranked>,
    has_more: bool,
}

impl Busiest {
    fn new(limit: usize) -> Self {
        Self { limit, rows: BinaryHeap::new(), has_more: false }
    }

    fn add(&mut self, row: UsageRow) {
        self.rows.push(Ranked(row));
        if self.rows.len() > self.limit {
            self.rows.pop();
            self.has_more = true;
        }
    }
}

/// Row that is ordered before those that are less busy.
struct Ranked(UsageRow);

impl Ord for Ranked {
    fn cmp(&self, other: &Self) -> Ordering {
        busiest_first(&self.0, &other.0)
    }
}

impl PartialOrd for Ranked {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Ranked {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Ranked {}

/// Returns the rows of keys that were not used on this day, in the order in which they were issued.
fn idle_rows(
    connection: &Connection,
    day: Day,
    skip: usize,
    limit: usize,
) -> rusqlite::Result<Vec<UsageRow>> {
    connection
        .prepare_cached(
            "SELECT id FROM api_keys k
             WHERE NOT EXISTS (SELECT 1 FROM usage_totals WHERE day = ?1 AND key_id = k.id)
                 AND NOT EXISTS (SELECT 1 FROM daily_usage
                     WHERE key_id = k.id AND quota = 'daily' AND day = ?1)
             ORDER BY seq LIMIT ?2 OFFSET ?3",
        )?
        .query_map(params![day.to_string(), rows::integer(limit), rows::integer(skip)], |row| {
            Ok(UsageRow::idle(day, KeyId::new(row.get::<_, String>(0)?)))
        })?
        .collect()
}

/// Calls `visit` with the rows of one day and of the keys after this one, until it returns `false`.
fn each_of_day(
    connection: &Connection,
    query: &UsageQuery,
    day: Day,
    after: Option<&KeyId>,
    visit: impl FnMut(UsageRow) -> bool,
) -> rusqlite::Result<()> {
    match query.group_by.model {
        true => each_model_of_day(connection, day, after, visit),
        false => each_key_of_day(connection, day, after, visit),
    }
}

fn each_model_of_day(
    connection: &Connection,
    day: Day,
    after: Option<&KeyId>,
    mut visit: impl FnMut(UsageRow) -> bool,
) -> rusqlite::Result<()> {
    let sql = format!(
        "SELECT {}, key_id, model FROM usage_totals
         WHERE day = ?1 AND key_id > ?2 ORDER BY key_id, model",
        FIGURES.join(", ")
    );
    let mut statement = connection.prepare_cached(&sql)?;
    let mut rows = statement.query(params![day.to_string(), after.map_or("", KeyId::as_str)])?;
    while let Some(row) = rows.next()? {
        let model_row = UsageRow {
            model: Some(row.get(NEXT + 1)?),
            used: None,
            figures: figures(row)?,
            ..UsageRow::idle(day, KeyId::from(row.get_ref(NEXT)?.as_str()?))
        };
        if !visit(model_row) {
            break;
        }
    }
    Ok(())
}

fn each_key_of_day(
    connection: &Connection,
    day: Day,
    after: Option<&KeyId>,
    mut visit: impl FnMut(UsageRow) -> bool,
) -> rusqlite::Result<()> {
    let from = params![day.to_string(), after.map_or("", KeyId::as_str)];
    let sql = format!(
        "SELECT {}, key_id FROM usage_totals WHERE day = ?1 AND key_id > ?2 ORDER BY key_id",
        FIGURES.join(", ")
    );
    let mut totals = connection.prepare_cached(&sql)?;
    let mut totals = totals.query(from)?;
    let mut usage = connection.prepare_cached(
        "SELECT used, key_id FROM daily_usage INDEXED BY daily_usage_by_day
         WHERE quota = 'daily' AND day = ?1 AND key_id > ?2 ORDER BY key_id",
    )?;
    let mut usage = usage.query(from)?;
    let (mut model, mut units) = (totals.next()?, usage.next()?);
    loop {
        let id = match (text(model, NEXT)?, text(units, 1)?) {
            (None, None) => return Ok(()),
            (Some(id), None) | (None, Some(id)) => KeyId::from(id),
            (Some(a), Some(b)) => KeyId::from(a.min(b)),
        };
        let mut row = UsageRow::idle(day, id.clone());
        while let Some(next) = model
            && text(model, NEXT)? == Some(id.as_str())
        {
            row.figures += figures(next)?;
            model = totals.next()?;
        }
        if let Some(next) = units
            && text(units, 1)? == Some(id.as_str())
        {
            row.used = Some(rows::units(next.get_ref(0)?));
            units = usage.next()?;
        }
        if !visit(row) {
            return Ok(());
        }
    }
}

/// Returns the text of a column, if there is a row.
fn text<'a>(row: Option<&'a Row<'_>>, column: usize) -> rusqlite::Result<Option<&'a str>> {
    Ok(row.map(|row| row.get_ref(column)).transpose()?.map(|value| value.as_str()).transpose()?)
}
