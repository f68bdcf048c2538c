use std::sync::Arc;

use super::{
    super::csv::{Csv, More, Pages},
    item::Item,
};
use crate::{
    clock::Day,
    key::KeyId,
    store::{StoreFuture, UsageReport},
};

type Place = Option<(Option<Day>, KeyId)>;

/// The rows of a report as CSV; `fetch` gives the page after a place.
pub(super) fn pages(
    fetch: Arc<dyn Fn(Place) -> StoreFuture<UsageReport> + Send + Sync>,
    after: Place,
    one_day: bool,
) -> Pages {
    Box::pin(async move {
        let report = fetch(after).await?;
        let last = report.rows.last().and_then(|row| Some((row.day, row.key_id.clone()?)));
        let mut csv = Csv::default();
        for row in report.rows {
            Item::new(row, one_day).write(&mut csv);
        }
        let more = last.filter(|_| report.has_more);
        let more = more.map(|last| More::new(move || pages(fetch, Some(last), one_day)));
        Ok((csv.into_text().into(), more))
    })
}
