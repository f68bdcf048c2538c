//! The table `requests`, which keeps single requests for the retention time.

use std::{borrow::Cow, error::Error, time::Duration};

use bytes::BytesMut;
use tokio_postgres::{
    Client, Row,
    types::{IsNull, ToSql, Type, to_sql_checked},
};

use super::super::sql::{self, Param, bigint, int, text};
use crate::{
    clock::{from_unix_millis, unix_millis},
    key::KeyId,
    store::{
        RequestOutcome, Tokens, UsageEvent,
        engine::retention::ExpiryBatch,
        report::{Cell, RequestQuery, RequestRecord, request_cells},
    },
};

/// Inserts the rows of these requests, in their order.
pub(in super::super) async fn write(client: &Client, records: &[RequestRecord]) -> sql::Result<()> {
    let mut columns: Vec<Column<'_>> = Vec::new();
    for RequestRecord { number: _, event } in records {
        let cells = request_cells(event);
        if columns.is_empty() {
            columns.extend(cells.each_ref().map(|(name, cell)| Column::new(name, cell)));
        }
        for (column, (_, cell)) in columns.iter_mut().zip(cells) {
            column.cells.push(cell);
        }
    }
    if columns.is_empty() {
        return Ok(());
    }
    let names = columns.iter().map(|column| column.name).collect::<Vec<_>>().join(", ");
    let arrays = (1..=columns.len()).map(|number| format!("${number}")).collect::<Vec<_>>();
    let sql = format!(
        "INSERT INTO requests ({names}) SELECT {names}
         FROM unnest({}) WITH ORDINALITY AS request ({names}, position) ORDER BY position",
        arrays.join(", ")
    );
    let params: Vec<Param<'_>> = columns.iter().map(Column::param).collect();
    sql::execute(client, &sql, &params).await.map(drop)
}

/// Column of the rows to insert.
struct Column<'a> {
    name: &'static str,
    /// Type of an array of its cells.
    array: Type,
    cells: Vec<Cell<'a>>,
}

impl<'a> Column<'a> {
    /// Creates a column without cells, for those of the type of `first`.
    fn new(name: &'static str, first: &Cell<'_>) -> Self {
        let array = match first {
            Cell::Text(_) => Type::TEXT_ARRAY,
            Cell::Int(_) => Type::INT8_ARRAY,
            Cell::Bool(_) => Type::BOOL_ARRAY,
        };
        Self { name, array, cells: Vec::new() }
    }

    fn param(&self) -> Param<'_> {
        (&self.cells, self.array.clone())
    }
}

impl ToSql for Cell<'_> {
    fn to_sql(
        &self,
        ty: &Type,
        out: &mut BytesMut,
    ) -> Result<IsNull, Box<dyn Error + Sync + Send>> {
        match self {
            Self::Text(text) => text.map(sql::storable).to_sql(ty, out),
            Self::Int(number) => number.to_sql(ty, out),
            Self::Bool(value) => value.to_sql(ty, out),
        }
    }

    fn accepts(ty: &Type) -> bool {
        [Type::TEXT, Type::INT8, Type::BOOL].contains(ty)
    }

    to_sql_checked!();
}

/// Returns the selected rows, latest first.
pub(super) async fn read(
    client: &Client,
    query: &RequestQuery,
) -> Result<Vec<RequestRecord>, Box<dyn Error + Send + Sync>> {
    let RequestQuery { key_id, request_id, failed_only, before, limit } = query;
    let of_key = if key_id.is_some() { "AND key_id = $3" } else { "" };
    let of_id = if request_id.is_some() { "AND request_id = $4" } else { "" };
    // Same expression as in the index `requests_not_succeeded`.
    let failed = if *failed_only { "AND outcome <> 'succeeded'" } else { "" };
    let sql = format!(
        "SELECT * FROM requests WHERE number < $1 {of_key} {of_id} {failed}
         ORDER BY number DESC LIMIT $2"
    );
    let (before, limit) = (before.map_or(i64::MAX, bigint), bigint(*limit));
    let key_id = key_id.as_ref().map(|id| sql::storable(id.as_str()));
    let request_id = request_id.as_deref().map(sql::storable);
    let params = [int(&before), int(&limit), text(&key_id), text(&request_id)];
    sql::query(client, &sql, &params).await?.iter().map(record).collect()
}

/// Returns the record of a row with all columns.
fn record(row: &Row) -> Result<RequestRecord, Box<dyn Error + Send + Sync>> {
    let count = |column| row.try_get(column).map(|count: Option<i64>| count.map(sql::count));
    let sums = (count("prompt_tokens")?, count("completion_tokens")?, count("total_tokens")?);
    let tokens = match sums {
        (Some(prompt), Some(completion), Some(total)) => Some(Tokens {
            cached: count("cached_tokens")?,
            reasoning: count("reasoning_tokens")?,
            ..Tokens::new(prompt, completion, total)
        }),
        _ => None,
    };
    let time = |column| count(column).map(|time| time.map(Duration::from_micros));
    let status: Option<i64> = row.try_get("status")?;
    let event = UsageEvent {
        key_id: Some(KeyId::from(row.try_get::<_, &str>("key_id")?)),
        at: from_unix_millis(row.try_get("at")?),
        request_id: row.try_get("request_id")?,
        method: parsed(row, "method", |method| method.parse().ok())?,
        path: row.try_get("path")?,
        status: status.map(u16::try_from).transpose()?,
        outcome: parsed(row, "outcome", RequestOutcome::from_name)?,
        code: row.try_get::<_, Option<String>>("code")?.map(Cow::Owned),
        units: u32::try_from(row.try_get::<_, i64>("units")?)?,
        refunded: row.try_get("refunded")?,
        requested_model: row.try_get("model_asked")?,
        model: row.try_get("model")?,
        tokens,
        bytes_in: sql::count(row.try_get("bytes_in")?),
        bytes_out: sql::count(row.try_get("bytes_out")?),
        time_to_head: time("time_to_head")?,
        time_to_first_byte: time("time_to_first_byte")?,
        duration: time("duration")?,
        admission: None,
    };
    Ok(RequestRecord { number: sql::count(row.try_get("number")?), event })
}

/// Parses the text of a column.
fn parsed<T>(
    row: &Row,
    column: &str,
    parse: impl FnOnce(&str) -> Option<T>,
) -> Result<T, Box<dyn Error + Send + Sync>> {
    let text: &str = row.try_get(column)?;
    parse(text).ok_or_else(|| format!("unknown {column} {text:?}").into())
}

/// Deletes the rows of the batch that have expired.
///
/// Returns the number after which to continue, or `None` at the first row that must stay. Rows with
/// a time in the future, from before the clock was set back, are skipped.
pub(in super::super) async fn delete_expired(
    client: &Client,
    batch: &ExpiryBatch,
) -> sql::Result<Option<i64>> {
    let sql = "WITH batch AS (
            SELECT max(number) AS last, min(number) FILTER (WHERE at BETWEEN $2 AND $3) AS first_kept
            FROM (SELECT number, at FROM requests WHERE number > $1 ORDER BY number LIMIT $4) AS next
        ), deleted AS (
            DELETE FROM requests USING batch
            WHERE number > $1 AND number < coalesce(first_kept, last + 1) AND at < $2
        )
        SELECT last FROM batch WHERE first_kept IS NULL AND last IS NOT NULL";
    let ExpiryBatch { after, cutoff, now, limit } = *batch;
    let (cutoff, now, limit) = (unix_millis(cutoff), unix_millis(now), bigint(limit));
    let params = [int(&after), int(&cutoff), int(&now), int(&limit)];
    sql::optional(client, sql, &params).await?.map(|row| row.try_get(0)).transpose()
}
