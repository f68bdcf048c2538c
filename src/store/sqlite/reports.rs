//! Reports of the past.
//!
//! What is told of every key of a day is read in the order of the keys' ids and merged row by row, so
//! that a page of very many costs no more than its day; what is told of all keys together comes from
//! its own sums.

use std::collections::HashMap;

use rusqlite::{Connection, OptionalExtension, Row, params};

use super::rows;
use crate::{
    clock::Day,
    key::{DailyLimit, KeyId, KeyRecord},
    store::{
        GroupBy, Page, Tokens, UsageFigures, UsageQuery, UsageReport, UsageRow,
        report::{ReportRows, busiest_first, name_keys},
    },
};

/// The columns that [`figures`] reads, in its order.
const FIGURES: &str = "requests, succeeded, failed, refunded, rejected,
    prompt_tokens, completion_tokens, total_tokens, cached_tokens, reasoning_tokens";

const KEY_AND_DAY: GroupBy = GroupBy { key: true, day: true, model: false };

pub(super) fn read(
    connection: &Connection,
    query: &UsageQuery,
    default: DailyLimit,
) -> rusqlite::Result<UsageReport> {
    let mut report = match &query.key_id {
        Some(id) => of_key(connection, query, id)?,
        None if query.group_by == KEY_AND_DAY => by_key_and_day(connection, query)?,
        None if query.group_by.key => of_all_keys(connection, query)?,
        None => of_all_together(connection, query)?,
    };
    let records = records(connection, &report.rows, default)?;
    name_keys(&mut report, |id| records.get(id));
    let count = "SELECT count(*) FROM api_keys";
    report.total_keys = connection.prepare_cached(count)?.query_row([], |row| row.get(0))?;
    Ok(report)
}

fn of_key(
    connection: &Connection,
    query: &UsageQuery,
    id: &KeyId,
) -> rusqlite::Result<UsageReport> {
    let mut report = ReportRows::new(query.clone());
    let days = params![id.as_str(), query.from.to_string(), query.to.to_string()];
    let sql = format!(
        "SELECT {FIGURES}, day, model FROM usage_totals WHERE key_id = ?1 AND day BETWEEN ?2 AND ?3"
    );
    each(connection, &sql, days, |row| {
        let (day, model): (String, String) = (row.get(10)?, row.get(11)?);
        if let Ok(day) = day.parse() {
            report.add_figures(day, id, &model, figures(row)?);
        }
        Ok(())
    })?;
    let sql = "SELECT day, used FROM daily_usage WHERE key_id = ?1 AND day BETWEEN ?2 AND ?3";
    each(connection, sql, days, |row| {
        if let Ok(day) = row.get::<_, String>(0)?.parse() {
            report.add_used(day, id, row.get(1)?);
        }
        Ok(())
    })?;
    Ok(report.into_report())
}

fn of_all_keys(connection: &Connection, query: &UsageQuery) -> rusqlite::Result<UsageReport> {
    let mut report = ReportRows::new(query.clone());
    let days = params![query.from.to_string(), query.to.to_string()];
    let sql = format!(
        "SELECT {FIGURES}, day, model, key_id FROM usage_totals WHERE day BETWEEN ?1 AND ?2"
    );
    each(connection, &sql, days, |row| {
        let (day, model): (String, String) = (row.get(10)?, row.get(11)?);
        if let Ok(day) = day.parse() {
            report.add_figures(day, &KeyId::new(row.get::<_, String>(12)?), &model, figures(row)?);
        }
        Ok(())
    })?;
    let sql = "SELECT day, used, key_id FROM daily_usage WHERE day BETWEEN ?1 AND ?2";
    each(connection, sql, days, |row| {
        if let Ok(day) = row.get::<_, String>(0)?.parse() {
            report.add_used(day, &KeyId::new(row.get::<_, String>(2)?), row.get(1)?);
        }
        Ok(())
    })?;
    Ok(report.into_report())
}

fn of_all_together(connection: &Connection, query: &UsageQuery) -> rusqlite::Result<UsageReport> {
    let mut report = ReportRows::new(query.clone());
    let days = params![query.from.to_string(), query.to.to_string()];
    let sql = format!("SELECT {FIGURES}, day, model FROM model_totals WHERE day BETWEEN ?1 AND ?2");
    let nobody = KeyId::from("");
    each(connection, &sql, days, |row| {
        let (day, model): (String, String) = (row.get(10)?, row.get(11)?);
        if let Ok(day) = day.parse() {
            report.add_figures(day, &nobody, &model, figures(row)?);
        }
        Ok(())
    })?;
    let mut report = report.into_report();
    report.active_keys = active_keys(connection, query)?;
    Ok(report)
}

fn by_key_and_day(connection: &Connection, query: &UsageQuery) -> rusqlite::Result<UsageReport> {
    let mut report = UsageReport::default();
    let (mut skip, limit, mut after) = match &query.page {
        Page::Busiest { skip, limit } => (*skip, *limit, None),
        Page::ById { after, limit } => (0, *limit, after.clone()),
    };
    let is_busiest_first = matches!(query.page, Page::Busiest { .. });
    let mut day = after.as_ref().map_or(query.to, |(day, _)| *day);
    while day >= query.from && !report.has_more {
        // Of the day one row more than is told, to know whether there is one.
        let most = if is_busiest_first { usize::MAX } else { limit - report.rows.len() + 1 };
        let id = after.take().map(|(_, id)| id);
        let mut rows = rows_of_day(connection, day, id.as_ref(), most)?;
        if is_busiest_first {
            if query.from == query.to {
                let is_active = |row: &&UsageRow| row.figures.requests > 0 || row.used > Some(0);
                report.active_keys = rows.iter().filter(is_active).count() as u64;
            }
            rows.sort_unstable_by(busiest_first);
            let skipped = skip.min(rows.len());
            rows.drain(..skipped);
            skip -= skipped;
        }
        report.has_more = report.rows.len() + rows.len() > limit;
        rows.truncate(limit - report.rows.len());
        report.rows.append(&mut rows);
        day = day.minus(1);
    }
    if is_busiest_first {
        report.total_requests = total_requests(connection, query)?;
        if query.from < query.to {
            report.active_keys = active_keys(connection, query)?;
        }
    }
    Ok(report)
}

/// The rows of one day in the order of the keys' ids, after this one.
fn rows_of_day(
    connection: &Connection,
    day: Day,
    after: Option<&KeyId>,
    most: usize,
) -> rusqlite::Result<Vec<UsageRow>> {
    let after = after.map_or("", KeyId::as_str);
    let date = day.to_string();
    let sql = format!(
        "SELECT {FIGURES}, key_id FROM usage_totals WHERE day = ?1 AND key_id > ?2 ORDER BY key_id"
    );
    let mut told = connection.prepare_cached(&sql)?;
    let mut told = told.query(params![date, after])?;
    let mut counted = connection.prepare_cached(
        "SELECT used, key_id FROM daily_usage INDEXED BY daily_usage_by_day
         WHERE day = ?1 AND key_id > ?2 ORDER BY key_id",
    )?;
    let mut counted = counted.query(params![date, after])?;
    let mut rows: Vec<UsageRow> = Vec::new();
    let (mut a, mut b) = (told.next()?, counted.next()?);
    loop {
        let id = match (a, b) {
            (None, None) => break,
            (Some(a), None) => a.get_ref(10)?.as_str()?,
            (None, Some(b)) => b.get_ref(1)?.as_str()?,
            (Some(a), Some(b)) => a.get_ref(10)?.as_str()?.min(b.get_ref(1)?.as_str()?),
        };
        if rows.last().is_none_or(|row| row.key_id.as_ref().is_none_or(|last| last.as_str() != id))
        {
            if rows.len() == most {
                break;
            }
            rows.push(empty_row(day, KeyId::from(id)));
        }
        let Some(last) = rows.last_mut() else { break };
        let is_last = |id: &str| last.key_id.as_ref().is_some_and(|last| last.as_str() == id);
        let told_of = match a {
            Some(row) => is_last(row.get_ref(10)?.as_str()?),
            None => false,
        };
        let counted_of = match b {
            Some(row) => is_last(row.get_ref(1)?.as_str()?),
            None => false,
        };
        if let Some(row) = a.filter(|_| told_of) {
            last.figures += figures(row)?;
            a = told.next()?;
        }
        if let Some(row) = b.filter(|_| counted_of) {
            last.used = Some(row.get(0)?);
            b = counted.next()?;
        }
    }
    Ok(rows)
}

fn empty_row(day: Day, id: KeyId) -> UsageRow {
    UsageRow {
        key_id: Some(id),
        masked: None,
        label: None,
        daily_limit: None,
        day: Some(day),
        model: None,
        used: Some(0),
        figures: UsageFigures::default(),
    }
}

fn total_requests(connection: &Connection, query: &UsageQuery) -> rusqlite::Result<u64> {
    connection
        .prepare_cached(
            "SELECT coalesce(sum(requests), 0) FROM model_totals WHERE day BETWEEN ?1 AND ?2",
        )?
        .query_row([query.from.to_string(), query.to.to_string()], |row| row.get(0))
}

/// How many keys were used on these days.
fn active_keys(connection: &Connection, query: &UsageQuery) -> rusqlite::Result<u64> {
    connection
        .prepare_cached(
            "SELECT count(*) FROM (SELECT id FROM api_keys UNION SELECT id FROM deleted_keys) k
             WHERE EXISTS (SELECT 1 FROM daily_usage
                           WHERE key_id = k.id AND day BETWEEN ?1 AND ?2 AND used > 0)
                OR EXISTS (SELECT 1 FROM usage_totals
                           WHERE key_id = k.id AND day BETWEEN ?1 AND ?2 AND requests > 0)",
        )?
        .query_row([query.from.to_string(), query.to.to_string()], |row| row.get(0))
}

fn each(
    connection: &Connection,
    sql: &str,
    arguments: impl rusqlite::Params,
    mut row: impl FnMut(&Row<'_>) -> rusqlite::Result<()>,
) -> rusqlite::Result<()> {
    let mut statement = connection.prepare_cached(sql)?;
    let mut found = statement.query(arguments)?;
    while let Some(next) = found.next()? {
        row(next)?;
    }
    Ok(())
}

fn figures(row: &Row<'_>) -> rusqlite::Result<UsageFigures> {
    Ok(UsageFigures {
        requests: row.get(0)?,
        succeeded: row.get(1)?,
        failed: row.get(2)?,
        refunded: row.get(3)?,
        rejected: row.get(4)?,
        tokens: Tokens {
            cached: row.get(8)?,
            reasoning: row.get(9)?,
            ..Tokens::new(row.get(5)?, row.get(6)?, row.get(7)?)
        },
    })
}

/// What these rows' keys are, or were, called.
fn records(
    connection: &Connection,
    of: &[UsageRow],
    default: DailyLimit,
) -> rusqlite::Result<HashMap<KeyId, KeyRecord>> {
    let sql = format!("SELECT {} FROM api_keys k WHERE k.id = ?1", rows::RECORD);
    let mut present = connection.prepare_cached(&sql)?;
    let mut deleted = connection.prepare_cached(
        "SELECT id, key, label, daily_limit, NULL, NULL, 1, '' FROM deleted_keys WHERE id = ?1",
    )?;
    let record = |row: &Row<'_>| rows::record_for_show(row, default);
    let mut records = HashMap::new();
    for id in of.iter().filter_map(|row| row.key_id.as_ref()) {
        if records.contains_key(id) {
            continue;
        }
        let found = match present.query_row([id.as_str()], record).optional()? {
            None => deleted.query_row([id.as_str()], record).optional()?,
            found => found,
        };
        records.extend(found.map(|record| (id.clone(), record)));
    }
    Ok(records)
}
