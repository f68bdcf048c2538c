//! The table `requests`, which keeps single requests for the retention time.

use std::{
    borrow::Cow,
    time::{Duration, SystemTime},
};

use rusqlite::{Connection, Row, params, types::Type};

use crate::{
    clock::{from_unix_millis, unix_millis},
    key::KeyId,
    store::{RequestOutcome, RequestQuery, RequestRecord, Tokens, UsageEvent},
};

pub(crate) fn write(connection: &Connection, records: &[RequestRecord]) -> rusqlite::Result<()> {
    if records.is_empty() {
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
    for RequestRecord { event, .. } in records {
        statement.execute(params![
            event.key_id.as_ref().map(KeyId::as_str),
            unix_millis(event.at),
            event.method.as_str(),
            event.path,
            event.status,
            event.outcome.as_str(),
            event.code,
            event.units,
            event.refunded,
            event.requested_model,
            event.model,
            event.tokens.map(|tokens| tokens.prompt),
            event.tokens.map(|tokens| tokens.completion),
            event.tokens.map(|tokens| tokens.total),
            event.tokens.and_then(|tokens| tokens.cached),
            event.tokens.and_then(|tokens| tokens.reasoning),
            event.bytes_in,
            event.bytes_out,
            event.time_to_head.map(micros),
            event.time_to_first_byte.map(micros),
            micros(event.duration.unwrap_or_default()),
            event.request_id,
        ])?;
    }
    Ok(())
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

fn row(row: &Row<'_>) -> rusqlite::Result<RequestRecord> {
    let tokens = match (row.get(12)?, row.get(13)?, row.get(14)?) {
        (Some(prompt), Some(completion), Some(total)) => Some(Tokens {
            cached: row.get(15)?,
            reasoning: row.get(16)?,
            ..Tokens::new(prompt, completion, total)
        }),
        _ => None,
    };
    let time = |column| row.get(column).map(|time: Option<u64>| time.map(Duration::from_micros));
    let mut event = UsageEvent::new(from_unix_millis(row.get(2)?));
    event.key_id = Some(KeyId::new(row.get::<_, String>(1)?));
    event.method = parsed(row, 3, |method| method.parse().ok())?;
    event.path = row.get(4)?;
    event.status = row.get(5)?;
    event.outcome = parsed(row, 6, RequestOutcome::from_name)?;
    event.code = row.get::<_, Option<String>>(7)?.map(Cow::Owned);
    event.units = row.get(8)?;
    event.refunded = row.get(9)?;
    event.requested_model = row.get(10)?;
    event.model = row.get(11)?;
    event.tokens = tokens;
    event.bytes_in = row.get(17)?;
    event.bytes_out = row.get(18)?;
    event.time_to_head = time(19)?;
    event.time_to_first_byte = time(20)?;
    event.duration = time(21)?;
    event.request_id = row.get(22)?;
    Ok(RequestRecord { number: row.get(0)?, event })
}

/// Parses the text of a column.
fn parsed<T>(
    row: &Row<'_>,
    column: usize,
    parse: impl FnOnce(&str) -> Option<T>,
) -> rusqlite::Result<T> {
    let text: String = row.get(column)?;
    parse(&text).ok_or_else(|| {
        let error = format!("unknown value {text:?}").into();
        rusqlite::Error::FromSqlConversionFailure(column, Type::Text, error)
    })
}

/// Deletes rows that are older than `cutoff`, among the next `limit` rows after number `after`.
///
/// Returns the number after which to continue, or `None` at the first row that must stay. Rows with
/// a time in the future, from before the clock was set back, are skipped.
pub(crate) fn delete_expired(
    connection: &Connection,
    after: i64,
    cutoff: SystemTime,
    now: SystemTime,
    limit: usize,
) -> rusqlite::Result<Option<i64>> {
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

fn micros(time: Duration) -> i64 {
    i64::try_from(time.as_micros()).unwrap_or(i64::MAX)
}
