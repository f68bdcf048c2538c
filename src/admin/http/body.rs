//! The response body of the admin service.

use std::{
    fmt,
    future::Future,
    mem,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http::{HeaderValue, Response, header};
use http_body::{Body, Frame, SizeHint};

use crate::error::StoreError;

/// Reads one chunk of a body, and returns how to read the next one.
pub(crate) type Chunks =
    Pin<Box<dyn Future<Output = Result<(Bytes, Option<NextChunk>), StoreError>> + Send>>;

/// Reads the chunk after the one that was read.
pub(crate) struct NextChunk(Box<dyn FnOnce() -> Chunks + Send>);

impl NextChunk {
    pub(crate) fn new(read: impl FnOnce() -> Chunks + Send + 'static) -> Self {
        Self(Box::new(read))
    }
}

/// Response body of [`AdminService`](super::super::AdminService): bytes in memory, or an export, a
/// report or a backup that is read from the store in chunks while it is sent.
pub struct AdminBody {
    /// Sent before the chunks.
    head: Bytes,
    chunks: Option<Chunks>,
    /// Number of remaining bytes, if it is known.
    remaining: Option<u64>,
}

impl AdminBody {
    /// A body of chunks after `head`, of unknown length.
    pub(crate) fn chunked(head: Bytes, chunks: Chunks) -> Self {
        Self { head, chunks: Some(chunks), remaining: None }
    }

    /// A body of chunks with `len` bytes.
    pub(crate) fn with_len(len: u64, chunks: Chunks) -> Self {
        Self { head: Bytes::new(), chunks: Some(chunks), remaining: Some(len) }
    }
}

impl From<Bytes> for AdminBody {
    fn from(bytes: Bytes) -> Self {
        Self { remaining: Some(bytes.len() as u64), head: bytes, chunks: None }
    }
}

impl Body for AdminBody {
    type Data = Bytes;
    type Error = StoreError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, StoreError>>> {
        let this = &mut *self;
        let mut bytes = mem::take(&mut this.head);
        while bytes.is_empty() {
            let Some(chunks) = &mut this.chunks else { return Poll::Ready(None) };
            let chunk = ready!(chunks.as_mut().poll(cx));
            this.chunks = None;
            let (read, next) = chunk.inspect_err(|error| {
                tracing::warn!(%error, source = ?error, "store read failed: aborting the response");
            })?;
            this.chunks = next.map(|NextChunk(read)| read());
            bytes = read;
        }
        this.remaining = this.remaining.map(|left| left.saturating_sub(bytes.len() as u64));
        Poll::Ready(Some(Ok(Frame::data(bytes))))
    }

    fn is_end_stream(&self) -> bool {
        self.remaining == Some(0)
    }

    fn size_hint(&self) -> SizeHint {
        self.remaining.map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}

impl fmt::Debug for AdminBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AdminBody").finish_non_exhaustive()
    }
}

/// A response that browsers save as a file with this name.
pub(crate) fn attachment(
    name: &str,
    content_type: &'static str,
    body: AdminBody,
) -> Response<AdminBody> {
    let mut response = Response::new(body);
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    if let Ok(name) = HeaderValue::try_from(format!("attachment; filename=\"{name}\"")) {
        headers.insert(header::CONTENT_DISPOSITION, name);
    }
    response
}
