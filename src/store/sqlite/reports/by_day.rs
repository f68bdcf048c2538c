//! What is told of every key of each day.

use rusqlite::{Connection, params};

use super::{FIGURES, active_keys, figures, total_requests};
use crate::{
    clock::Day,
    key::KeyId,
    store::{Page, UsageQuery, UsageReport, UsageRow, report::busiest_first},
};

/// Day by day, so that no more than one day is held.
pub(super) fn by_key_and_day(
    connection: &Connection,
    query: &UsageQuery,
) -> rusqlite::Result<UsageReport> {
    match &query.page {
        Page::Busiest { skip, limit } => busiest_by_day(connection, query, *skip, *limit),
        Page::ById { after, limit } => by_day_and_id(connection, query, after, *limit),
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
    while day >= query.from {
        let DayRows { rows, has_more } = rows_of_day(connection, query, day, id, limit)?;
        let has_more = has_more || day > query.from;
        if !rows.is_empty() {
            return Ok(UsageReport { rows, has_more, ..UsageReport::default() });
        }
        (day, id) = (day.minus(1), None);
    }
    Ok(UsageReport::default())
}

fn busiest_by_day(
    connection: &Connection,
    query: &UsageQuery,
    mut skip: usize,
    limit: usize,
) -> rusqlite::Result<UsageReport> {
    let mut report = UsageReport::default();
    let is_one_day = query.from == query.to;
    let mut day = query.to;
    while day >= query.from && !report.has_more {
        let mut rows = rows_of_day(connection, query, day, None, usize::MAX)?.rows;
        if is_one_day && !query.group_by.model {
            let is_active = |row: &&UsageRow| row.figures.requests > 0 || row.used > Some(0);
            report.active_keys = rows.iter().filter(is_active).count() as u64;
        }
        rows.sort_unstable_by(busiest_first);
        let skipped = skip.min(rows.len());
        rows.drain(..skipped);
        skip -= skipped;
        report.has_more = report.rows.len() + rows.len() > limit;
        rows.truncate(limit - report.rows.len());
        report.rows.append(&mut rows);
        day = day.minus(1);
    }
    if query.idle && is_one_day && !report.has_more {
        let room = (limit - report.rows.len()).saturating_add(1);
        let mut idle = idle_rows(connection, query.to, skip, room)?;
        report.has_more = report.rows.len() + idle.len() > limit;
        idle.truncate(limit - report.rows.len());
        report.rows.append(&mut idle);
    }
    report.total_requests = total_requests(connection, query)?;
    if !is_one_day || query.group_by.model {
        report.active_keys = active_keys(connection, query)?;
    }
    Ok(report)
}

/// Keys without figures on this day, in the order of their issue.
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
                 AND NOT EXISTS (SELECT 1 FROM daily_usage WHERE key_id = k.id AND day = ?1)
             ORDER BY seq LIMIT ?2 OFFSET ?3",
        )?
        .query_map(params![day.to_string(), number(limit), number(skip)], |row| {
            Ok(UsageRow::empty(day, KeyId::new(row.get::<_, String>(0)?)))
        })?
        .collect()
}

/// As SQLite has it.
fn number(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

/// Some rows of one day, and whether there are more.
struct DayRows {
    rows: Vec<UsageRow>,
    has_more: bool,
}

fn rows_of_day(
    connection: &Connection,
    query: &UsageQuery,
    day: Day,
    after: Option<&KeyId>,
    keys: usize,
) -> rusqlite::Result<DayRows> {
    if query.group_by.model {
        return models_of_day(connection, day, after, keys);
    }
    // One row more than is told, to know whether there is one.
    let mut rows = keys_of_day(connection, day, after, keys.saturating_add(1))?;
    let has_more = rows.len() > keys;
    rows.truncate(keys);
    Ok(DayRows { rows, has_more })
}

/// The rows of one day by key and model, of so many keys after this one.
fn models_of_day(
    connection: &Connection,
    day: Day,
    after: Option<&KeyId>,
    most: usize,
) -> rusqlite::Result<DayRows> {
    let sql = format!(
        "SELECT {FIGURES}, key_id, model FROM usage_totals
         WHERE day = ?1 AND key_id > ?2 ORDER BY key_id, model"
    );
    let mut statement = connection.prepare_cached(&sql)?;
    let mut found = statement.query(params![day.to_string(), after.map_or("", KeyId::as_str)])?;
    let (mut rows, mut keys): (Vec<UsageRow>, _) = (Vec::new(), 0);
    while let Some(row) = found.next()? {
        let id = row.get_ref(10)?.as_str()?;
        let last = rows.last().and_then(|row| row.key_id.as_ref());
        let same = last.filter(|last| last.as_str() == id).cloned();
        if same.is_none() {
            if keys == most {
                return Ok(DayRows { rows, has_more: true });
            }
            keys += 1;
        }
        rows.push(UsageRow {
            model: Some(row.get(11)?),
            used: None,
            figures: figures(row)?,
            ..UsageRow::empty(day, same.unwrap_or_else(|| KeyId::from(id)))
        });
    }
    Ok(DayRows { rows, has_more: false })
}

/// The rows of one day in the order of the keys' ids, after this one.
fn keys_of_day(
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
            rows.push(UsageRow::empty(day, KeyId::from(id)));
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
