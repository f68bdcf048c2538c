use std::sync::Arc;

use super::{
    super::csv::{Chunks, Csv, NextChunk},
    item::Item,
};
use crate::{
    clock::Day,
    key::KeyId,
    store::{StoreFuture, UsageReport},
};

/// Day and key of the last row that was read.
type Cursor = Option<(Option<Day>, KeyId)>;

/// Reads the rows of a report as CSV. `fetch` reads the page after a cursor.
pub(super) fn chunks(
    fetch: Arc<dyn Fn(Cursor) -> StoreFuture<UsageReport> + Send + Sync>,
    after: Cursor,
    one_day: bool,
) -> Chunks {
    Box::pin(async move {
        let report = fetch(after).await?;
        let last = report.rows.last().and_then(|row| Some((row.day, row.key_id.clone()?)));
        let mut csv = Csv::default();
        for row in report.rows {
            Item::new(row, one_day).write_row(&mut csv);
        }
        let last = last.filter(|_| report.has_more);
        let next = last.map(|last| NextChunk::new(move || chunks(fetch, Some(last), one_day)));
        Ok((csv.into_text().into(), next))
    })
}
