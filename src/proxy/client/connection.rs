//! Sockets to the upstream: how they are opened, within which time, and what is known of their traffic.

use std::{
    future::{Future, poll_fn},
    io::{self, IoSlice},
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU8, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use http::Uri;
use hyper::rt;
use hyper_util::{client::legacy::connect::Connection, rt::TokioIo};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tower_service::Service;

use crate::proxy::error::{BoxError, ConnectError};

/// A connector of any type, with a timeout over everything it does, TLS handshake included.
pub(super) struct Connector {
    connect: Box<dyn Fn(Uri) -> Connecting + Send + Sync>,
    timeout: Duration,
}

type Connecting = Pin<Box<dyn Future<Output = Result<Box<dyn Socket>, BoxError>> + Send>>;

/// A connection of any type.
pub(super) trait Socket: rt::Read + rt::Write + Connection + Unpin + Send {}

impl<S> Socket for S where S: rt::Read + rt::Write + Connection + Unpin + Send {}

impl Connector {
    pub(super) fn new<C, S>(inner: C, timeout: Duration) -> Self
    where
        C: Service<Uri, Response = S, Error: Into<BoxError>, Future: Send + 'static>,
        C: Clone + Send + Sync + 'static,
        S: Socket + 'static,
    {
        let connect = move |uri| -> Connecting {
            let mut connector = inner.clone();
            Box::pin(async move {
                poll_fn(|cx| connector.poll_ready(cx)).await.map_err(Into::into)?;
                let socket = connector.call(uri).await.map_err(Into::into)?;
                Ok(Box::new(socket) as Box<dyn Socket>)
            })
        };
        Self { connect: Box::new(connect), timeout }
    }

    /// Opens a connection.
    pub(super) async fn connect(&self, uri: Uri) -> Result<Box<dyn Socket>, ConnectError> {
        let connected = tokio::time::timeout(self.timeout, (self.connect)(uri)).await;
        connected.map_err(ConnectError::new)?.map_err(ConnectError::new)
    }
}

/// What is known of the traffic of a connection. Clones share it.
#[derive(Clone, Debug, Default)]
pub(super) struct Traffic(Arc<State>);

#[derive(Debug, Default)]
struct State {
    last_direction: AtomicU8,
    /// Whether the body of the last request may go on.
    has_request_body: AtomicBool,
}

impl Traffic {
    const READ: u8 = 1;
    /// Something was written since the latest read. Never set before the first read.
    const WRITTEN: u8 = 2;

    /// Whether nothing was received since the latest write, on a connection that has received something before.
    pub(super) fn awaits_response(&self) -> bool {
        self.0.last_direction.load(Ordering::Relaxed) == Self::WRITTEN
    }

    fn note_read(&self) {
        self.0.last_direction.store(Self::READ, Ordering::Relaxed);
    }

    fn note_write(&self) {
        if self.0.last_direction.load(Ordering::Relaxed) == Self::READ {
            self.0.last_direction.store(Self::WRITTEN, Ordering::Relaxed);
        }
    }

    pub(super) fn has_request_body(&self) -> bool {
        self.0.has_request_body.load(Ordering::Relaxed)
    }

    /// Notes that a request begins, whose body has the guard.
    pub(super) fn begin_request(&self) -> RequestBodyGuard {
        self.0.has_request_body.store(true, Ordering::Relaxed);
        RequestBodyGuard(self.clone())
    }
}

/// Notes the end of a request's body when it is dropped.
pub(super) struct RequestBodyGuard(Traffic);

impl Drop for RequestBodyGuard {
    fn drop(&mut self) {
        self.0.0.has_request_body.store(false, Ordering::Relaxed);
    }
}

/// A connection that notes the direction of its traffic, and is read to its end after the peer has closed its receiving
/// side.
pub(super) struct TrackedIo {
    inner: TokioIo<Box<dyn Socket>>,
    traffic: Traffic,
    /// Whether writes are discarded, as the peer has closed its receiving side. What it sent before is still to be
    /// read: an upstream may respond and close before it has read the whole request.
    discards_writes: bool,
}

impl TrackedIo {
    pub(super) fn new(socket: Box<dyn Socket>) -> Self {
        Self { inner: TokioIo::new(socket), traffic: Traffic::default(), discards_writes: false }
    }

    pub(super) fn traffic(&self) -> Traffic {
        self.traffic.clone()
    }

    /// Returns the result of a write of `length` bytes. Once a write fails because the peer has closed its
    /// side, this and later writes are discarded.
    fn write_result(
        &mut self,
        length: usize,
        result: Poll<io::Result<usize>>,
    ) -> Poll<io::Result<usize>> {
        let is_closed = |error: &io::Error| {
            matches!(error.kind(), io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset)
        };
        match &result {
            Poll::Ready(Err(error)) if is_closed(error) => {
                self.discards_writes = true;
                Poll::Ready(Ok(length))
            }
            _ => result,
        }
    }
}

impl AsyncRead for TrackedIo {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let result = Pin::new(&mut self.inner).poll_read(cx, buf);
        if buf.filled().len() > before {
            self.traffic.note_read();
        }
        result
    }
}

impl AsyncWrite for TrackedIo {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        if self.discards_writes {
            return Poll::Ready(Ok(buf.len()));
        }
        self.traffic.note_write();
        let result = Pin::new(&mut self.inner).poll_write(cx, buf);
        self.write_result(buf.len(), result)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let length = bufs.iter().map(|buf| buf.len()).sum();
        if self.discards_writes {
            return Poll::Ready(Ok(length));
        }
        self.traffic.note_write();
        let result = Pin::new(&mut self.inner).poll_write_vectored(cx, bufs);
        self.write_result(length, result)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.discards_writes {
            return Poll::Ready(Ok(()));
        }
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}
