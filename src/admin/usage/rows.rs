use std::{
    fmt,
    future::Future,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http_body::{Body, Frame};

use super::{super::csv::Csv, item::Item};
use crate::{
    clock::Day,
    error::StoreError,
    key::KeyId,
    store::{StoreFuture, UsageReport},
};

type Place = Option<(Option<Day>, KeyId)>;
type Fetch = dyn Fn(Place) -> StoreFuture<UsageReport> + Send;

/// Rows of a report as CSV, read from the store page by page as they are sent.
pub struct AdminRows {
    begin: Option<Bytes>,
    page: Option<StoreFuture<UsageReport>>,
    fetch: Box<Fetch>,
    one_day: bool,
}

impl AdminRows {
    /// Begins with these bytes; `fetch` gives the page after a place.
    pub(super) fn new(
        begin: Bytes,
        one_day: bool,
        fetch: impl Fn(Place) -> StoreFuture<UsageReport> + Send + 'static,
    ) -> Self {
        Self { begin: Some(begin), page: Some(fetch(None)), fetch: Box::new(fetch), one_day }
    }
}

impl Body for AdminRows {
    type Data = Bytes;
    type Error = StoreError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, StoreError>>> {
        let this = &mut *self;
        if let Some(begin) = this.begin.take() {
            return Poll::Ready(Some(Ok(Frame::data(begin))));
        }
        let Some(page) = &mut this.page else { return Poll::Ready(None) };
        let report = ready!(Pin::new(page).poll(cx));
        this.page = None;
        let report = report.inspect_err(|error| {
            tracing::warn!(%error, source = ?error, "a report broke off");
        })?;
        let last = report.rows.last().and_then(|row| Some((row.day, row.key_id.clone()?)));
        this.page = last.filter(|_| report.has_more).map(|last| (this.fetch)(Some(last)));
        let mut csv = Csv::default();
        for row in report.rows {
            Item::new(row, this.one_day).write(&mut csv);
        }
        let text = csv.into_text();
        Poll::Ready((!text.is_empty()).then(|| Ok(Frame::data(text.into()))))
    }
}

impl fmt::Debug for AdminRows {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AdminRows")
    }
}
