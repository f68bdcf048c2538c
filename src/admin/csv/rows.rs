use std::{
    fmt,
    future::Future,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http_body::{Body, Frame};

use crate::{body::ResponseBody, error::StoreError};

/// The body of the admin service's answers.
pub type AdminBody = ResponseBody<AdminRows>;

/// The text of some rows, and how those behind them are read.
pub(in crate::admin) type Pages =
    Pin<Box<dyn Future<Output = Result<(String, Option<More>), StoreError>> + Send>>;
/// Reads the rows behind those that were read.
pub(in crate::admin) struct More(Box<dyn FnOnce() -> Pages + Send>);

impl More {
    pub(in crate::admin) fn new(read: impl FnOnce() -> Pages + Send + 'static) -> Self {
        Self(Box::new(read))
    }
}

/// Rows as CSV, read from the store page by page as they are sent.
pub struct AdminRows {
    begin: Option<Bytes>,
    pages: Option<Pages>,
}

impl AdminRows {
    /// Rows behind this text.
    pub(in crate::admin) fn new(begin: String, pages: Pages) -> Self {
        Self { begin: Some(begin.into()), pages: Some(pages) }
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
        loop {
            let Some(pages) = &mut this.pages else { return Poll::Ready(None) };
            let read = ready!(pages.as_mut().poll(cx));
            this.pages = None;
            let (text, more) = read.inspect_err(|error| {
                tracing::warn!(%error, source = ?error, "a list broke off");
            })?;
            this.pages = more.map(|More(read)| read());
            if !text.is_empty() {
                return Poll::Ready(Some(Ok(Frame::data(text.into()))));
            }
        }
    }
}

impl fmt::Debug for AdminRows {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AdminRows")
    }
}
