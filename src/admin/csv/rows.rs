use std::{
    fmt,
    future::Future,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

use crate::{body::ResponseBody, error::StoreError};

/// The body of the admin service's answers.
pub type AdminBody = ResponseBody<AdminRows>;

/// Some bytes of an answer, and how those behind them are read.
pub(in crate::admin) type Pages =
    Pin<Box<dyn Future<Output = Result<(Bytes, Option<More>), StoreError>> + Send>>;
/// Reads what is behind that which was read.
pub(in crate::admin) struct More(Box<dyn FnOnce() -> Pages + Send>);

impl More {
    pub(in crate::admin) fn new(read: impl FnOnce() -> Pages + Send + 'static) -> Self {
        Self(Box::new(read))
    }
}

/// Rows as CSV or a copy of the store, read from it page by page as they are sent.
pub struct AdminRows {
    begin: Option<Bytes>,
    pages: Option<Pages>,
    /// How many bytes there are still to come, where that is known.
    left: Option<u64>,
}

impl AdminRows {
    /// Rows behind this text.
    pub(in crate::admin) fn new(begin: String, pages: Pages) -> Self {
        Self { begin: Some(begin.into()), pages: Some(pages), left: None }
    }

    /// So many bytes.
    pub(in crate::admin) fn of_length(length: u64, pages: Pages) -> Self {
        Self { begin: None, pages: Some(pages), left: Some(length) }
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
            let (bytes, more) = read.inspect_err(|error| {
                tracing::warn!(%error, source = ?error, "an answer broke off");
            })?;
            this.pages = more.map(|More(read)| read());
            if !bytes.is_empty() {
                this.left = this.left.map(|left| left.saturating_sub(bytes.len() as u64));
                return Poll::Ready(Some(Ok(Frame::data(bytes))));
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.left == Some(0)
    }

    fn size_hint(&self) -> SizeHint {
        self.left.map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}

impl fmt::Debug for AdminRows {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AdminRows")
    }
}
