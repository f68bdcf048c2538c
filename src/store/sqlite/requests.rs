//! Single requests, kept for a while.

use std::time::{Duration, SystemTime};

use rusqlite::{Connection, Row, params};

use crate::{
    key::KeyId,
    store::{
        RequestQuery, RequestRow, Tokens,
        journal::{from_unix_millis, unix_millis},
    },
};

pub(super) fn write(connection: &Connection, rows: &[RequestRow]) -> rusqlite::Result<()> {
    if rows.is_empty() {
        return Ok(());
    }
    let mut statement = connection.prepare_cached(
        "INSERT INTO requests (key_id, at, method, path, status, outcome, code, units, refunded,
             model_asked, model, prompt_tokens, completion_tokens, total_tokens, cached_tokens,
             reasoning_tokens, bytes_in, bytes_out, time_to_head, time_to_first_byte, duration,
             request_id)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18,
             ?19, ?20, ?21, ?22)",
    )?;
    for row in rows {
        statement.execute(params![
            row.key_id.as_str(),
            unix_millis(row.at),
            row.method,
            row.path,
            row.status,
            row.outcome,
            row.code,
            row.units,
            row.refunded,
            row.model_asked,
            row.model,
            row.tokens.map(|tokens| tokens.prompt),
            row.tokens.map(|tokens| tokens.completion),
            row.tokens.map(|tokens| tokens.total),
            row.tokens.and_then(|tokens| tokens.cached),
            row.tokens.and_then(|tokens| tokens.reasoning),
            row.bytes_in,
            row.bytes_out,
            row.time_to_head.map(micros),
            row.time_to_first_byte.map(micros),
            micros(row.duration),
            row.request_id,
        ])?;
    }
    Ok(())
}

/// The rows that are asked for, the latest first.
pub(super) fn read(
    connection: &Connection,
    query: &RequestQuery,
) -> rusqlite::Result<Vec<RequestRow>> {
    let of_key = if query.key_id.is_some() { "AND key_id = ?3" } else { "AND ?3 IS NULL" };
    let of_id = if query.request_id.is_some() { "AND request_id = ?4" } else { "AND ?4 IS NULL" };
    // As the index says it.
    let failed = if query.failed_only { "AND outcome <> 'succeeded'" } else { "" };
    let sql = format!(
        "SELECT number, key_id, at, method, path, status, outcome, code, units, refunded,
             model_asked, model, prompt_tokens, completion_tokens, total_tokens, cached_tokens,
             reasoning_tokens, bytes_in, bytes_out, time_to_head, time_to_first_byte, duration,
             request_id
         FROM requests
         WHERE number < coalesce(?1, 9223372036854775807) {of_key} {of_id} {failed}
         ORDER BY number DESC LIMIT ?2"
    );
    let key_id = query.key_id.as_ref().map(KeyId::as_str);
    let arguments = params![query.before, query.limit, key_id, query.request_id];
    connection.prepare_cached(&sql)?.query_map(arguments, row)?.collect()
}

fn row(row: &Row<'_>) -> rusqlite::Result<RequestRow> {
    let tokens = match (row.get(12)?, row.get(13)?, row.get(14)?) {
        (Some(prompt), Some(completion), Some(total)) => Some(Tokens {
            cached: row.get(15)?,
            reasoning: row.get(16)?,
            ..Tokens::new(prompt, completion, total)
        }),
        _ => None,
    };
    let time = |column| row.get(column).map(|time: Option<u64>| time.map(Duration::from_micros));
    Ok(RequestRow {
        number: row.get(0)?,
        key_id: KeyId::new(row.get::<_, String>(1)?),
        at: from_unix_millis(row.get(2)?),
        method: row.get(3)?,
        path: row.get(4)?,
        status: row.get(5)?,
        outcome: row.get(6)?,
        code: row.get(7)?,
        units: row.get(8)?,
        refunded: row.get(9)?,
        model_asked: row.get(10)?,
        model: row.get(11)?,
        tokens,
        bytes_in: row.get(17)?,
        bytes_out: row.get(18)?,
        time_to_head: time(19)?,
        time_to_first_byte: time(20)?,
        duration: Duration::from_micros(row.get(21)?),
        request_id: row.get(22)?,
    })
}

/// Looks at the rows behind the one of number `after`, at so many of them, and forgets those of before
/// this time. Returns behind which row to go on; `None` once the first row is met that is to stay.
/// Rows of a time to come, which a clock has made that was set back since, are passed by.
pub(super) fn forget(
    connection: &Connection,
    after: i64,
    before: SystemTime,
    now: SystemTime,
    most: usize,
) -> rusqlite::Result<Option<i64>> {
    let (before, now) = (unix_millis(before), unix_millis(now));
    let (last, stays): (Option<i64>, Option<i64>) = connection
        .prepare_cached(
            "SELECT max(number), min(number) FILTER (WHERE at BETWEEN ?2 AND ?3) FROM
             (SELECT number, at FROM requests WHERE number > ?1 ORDER BY number LIMIT ?4)",
        )?
        .query_row(params![after, before, now, most], |row| Ok((row.get(0)?, row.get(1)?)))?;
    let Some(last) = last else { return Ok(None) };
    connection
        .prepare_cached("DELETE FROM requests WHERE number > ?1 AND number < ?2 AND at < ?3")?
        .execute(params![after, stays.unwrap_or(last + 1), before])?;
    Ok(if stays.is_none() { Some(last) } else { None })
}

fn micros(time: Duration) -> i64 {
    i64::try_from(time.as_micros()).unwrap_or(i64::MAX)
}
