use std::{
    fmt,
    future::Future,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

use crate::{body::ResponseBody, error::StoreError};

/// Response body of the admin service.
pub type AdminBody = ResponseBody<AdminRows>;

/// Reads one chunk of a body, and returns how to read the next one.
pub(in crate::admin) type Chunks =
    Pin<Box<dyn Future<Output = Result<(Bytes, Option<NextChunk>), StoreError>> + Send>>;
/// Reads the chunk after the one that was read.
pub(in crate::admin) struct NextChunk(Box<dyn FnOnce() -> Chunks + Send>);

impl NextChunk {
    pub(in crate::admin) fn new(read: impl FnOnce() -> Chunks + Send + 'static) -> Self {
        Self(Box::new(read))
    }
}

/// CSV rows or a backup, read from the store in chunks while they are sent.
pub struct AdminRows {
    head: Option<Bytes>,
    chunks: Option<Chunks>,
    /// Number of remaining bytes, if it is known.
    remaining: Option<u64>,
}

impl AdminRows {
    /// A body of unknown length that begins with `head`.
    pub(in crate::admin) fn new(head: String, chunks: Chunks) -> Self {
        Self { head: Some(head.into()), chunks: Some(chunks), remaining: None }
    }

    /// A body of `len` bytes.
    pub(in crate::admin) fn with_len(len: u64, chunks: Chunks) -> Self {
        Self { head: None, chunks: Some(chunks), remaining: Some(len) }
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
        if let Some(head) = this.head.take() {
            return Poll::Ready(Some(Ok(Frame::data(head))));
        }
        loop {
            let Some(chunks) = &mut this.chunks else { return Poll::Ready(None) };
            let read = ready!(chunks.as_mut().poll(cx));
            this.chunks = None;
            let (bytes, next) = read.inspect_err(|error| {
                tracing::warn!(%error, source = ?error, "response body aborted: store error");
            })?;
            this.chunks = next.map(|NextChunk(read)| read());
            if !bytes.is_empty() {
                this.remaining = this.remaining.map(|left| left.saturating_sub(bytes.len() as u64));
                return Poll::Ready(Some(Ok(Frame::data(bytes))));
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.remaining == Some(0)
    }

    fn size_hint(&self) -> SizeHint {
        self.remaining.map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}

impl fmt::Debug for AdminRows {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AdminRows")
    }
}
