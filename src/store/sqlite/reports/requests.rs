//! The table `requests`, which keeps single requests for the retention time.

use std::{borrow::Cow, time::Duration};

use rusqlite::{
    Connection, Row, ToSql, params,
    types::{ToSqlOutput, Type},
};

use super::rows::integer;
use crate::{
    clock::{from_unix_millis, unix_millis},
    key::KeyId,
    store::{
        RequestOutcome, Tokens, UsageEvent,
        engine::retention::ExpiryBatch,
        report::{Cell, RequestQuery, RequestRecord, request_cells},
    },
};

/// Number of rows that one statement inserts, as each statement reads and writes the last number of the table.
const ROWS: usize = 16;

/// Inserts the rows of these requests.
pub(crate) fn write(connection: &Connection, records: &[RequestRecord]) -> rusqlite::Result<()> {
    let many = records.chunks_exact(ROWS);
    let single = many.remainder();
    insert(connection, many, ROWS)?;
    insert(connection, single.chunks(1), 1)
}

/// Inserts the rows of chunks of this length.
fn insert<'a>(
    connection: &Connection,
    chunks: impl Iterator<Item = &'a [RequestRecord]>,
    rows: usize,
) -> rusqlite::Result<()> {
    let mut insert = None;
    for chunk in chunks {
        let mut parameter = 0;
        for RequestRecord { number: _, event } in chunk {
            let cells = request_cells(event);
            let insert = match &mut insert {
                Some(insert) => insert,
                None => {
                    let columns = cells.each_ref().map(|(column, _)| *column).join(", ");
                    let row = format!("({})", cells.each_ref().map(|_| "?").join(", "));
                    let rows = vec![row; rows].join(", ");
                    let sql = format!("INSERT INTO requests ({columns}) VALUES {rows}");
                    insert.insert(connection.prepare_cached(&sql)?)
                }
            };
            for (_, cell) in cells {
                parameter += 1;
                insert.raw_bind_parameter(parameter, cell)?;
            }
        }
        insert.as_mut().map_or(Ok(0), |insert| insert.raw_execute())?;
    }
    Ok(())
}

impl ToSql for Cell<'_> {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        match self {
            Self::Text(text) => text.to_sql(),
            Self::Int(number) => number.to_sql(),
            Self::Bool(value) => value.to_sql(),
        }
    }
}

/// Returns the selected rows, latest first.
pub(crate) fn read(
    connection: &Connection,
    query: &RequestQuery,
) -> rusqlite::Result<Vec<RequestRecord>> {
    let of_key = if query.key_id.is_some() { "AND key_id = ?3" } else { "AND ?3 IS NULL" };
    let of_id = if query.request_id.is_some() { "AND request_id = ?4" } else { "AND ?4 IS NULL" };
    // Same expression as in the index `requests_not_succeeded`.
    let failed = if query.failed_only { "AND outcome <> 'succeeded'" } else { "" };
    let sql = format!(
        "SELECT * FROM requests
         WHERE number < coalesce(?1, 9223372036854775807) {of_key} {of_id} {failed}
         ORDER BY number DESC LIMIT ?2"
    );
    let key_id = query.key_id.as_ref().map(KeyId::as_str);
    let (before, limit) = (query.before.map(integer), integer(query.limit));
    let arguments = params![before, limit, key_id, query.request_id];
    connection.prepare_cached(&sql)?.query_map(arguments, row)?.collect()
}

/// Returns the record of a row with all columns.
fn row(row: &Row<'_>) -> rusqlite::Result<RequestRecord> {
    let sums = (row.get("prompt_tokens")?, row.get("completion_tokens")?, row.get("total_tokens")?);
    let tokens = match sums {
        (Some(prompt), Some(completion), Some(total)) => Some(Tokens {
            cached: row.get("cached_tokens")?,
            reasoning: row.get("reasoning_tokens")?,
            ..Tokens::new(prompt, completion, total)
        }),
        _ => None,
    };
    let time = |column| row.get(column).map(|time: Option<u64>| time.map(Duration::from_micros));
    let event = UsageEvent {
        key_id: Some(KeyId::new(row.get::<_, String>("key_id")?)),
        at: from_unix_millis(row.get("at")?),
        request_id: row.get("request_id")?,
        method: parsed(row, "method", |method| method.parse().ok())?,
        path: row.get("path")?,
        status: row.get("status")?,
        outcome: parsed(row, "outcome", RequestOutcome::from_name)?,
        code: row.get::<_, Option<String>>("code")?.map(Cow::Owned),
        units: row.get("units")?,
        refunded: row.get("refunded")?,
        requested_model: row.get("model_asked")?,
        model: row.get("model")?,
        tokens,
        bytes_in: row.get("bytes_in")?,
        bytes_out: row.get("bytes_out")?,
        time_to_head: time("time_to_head")?,
        time_to_first_byte: time("time_to_first_byte")?,
        duration: time("duration")?,
        admission: None,
    };
    Ok(RequestRecord { number: row.get("number")?, event })
}

/// Parses the text of a column.
fn parsed<T>(
    row: &Row<'_>,
    column: &str,
    parse: impl FnOnce(&str) -> Option<T>,
) -> rusqlite::Result<T> {
    let text: String = row.get(column)?;
    parse(&text).ok_or_else(|| {
        let error = format!("unknown {column} {text:?}").into();
        rusqlite::Error::FromSqlConversionFailure(0, Type::Text, error)
    })
}

/// Deletes the rows of the batch that have expired.
///
/// Returns the number after which to continue, or `None` at the first row that must stay. Rows with
/// a time in the future, from before the clock was set back, are skipped.
pub(crate) fn delete_expired(
    connection: &Connection,
    batch: &ExpiryBatch,
) -> rusqlite::Result<Option<i64>> {
    let ExpiryBatch { after, cutoff, now, limit } = *batch;
    let (cutoff, now) = (unix_millis(cutoff), unix_millis(now));
    let (last, first_kept): (Option<i64>, Option<i64>) = connection
        .prepare_cached(
            "SELECT max(number), min(number) FILTER (WHERE at BETWEEN ?2 AND ?3) FROM
             (SELECT number, at FROM requests WHERE number > ?1 ORDER BY number LIMIT ?4)",
        )?
        .query_row(params![after, cutoff, now, limit], |row| Ok((row.get(0)?, row.get(1)?)))?;
    let Some(last) = last else { return Ok(None) };
    connection
        .prepare_cached("DELETE FROM requests WHERE number > ?1 AND number < ?2 AND at < ?3")?
        .execute(params![after, first_kept.unwrap_or(last + 1), cutoff])?;
    Ok(if first_kept.is_none() { Some(last) } else { None })
}
