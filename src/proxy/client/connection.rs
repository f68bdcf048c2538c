//! Connections to the upstream: their timeout, what they report about themselves, and how a blocked
//! write is aborted.

use std::{
    future::{Future, poll_fn},
    io::{self, IoSlice},
    pin::Pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicU8, Ordering},
    },
    task::{Context, Poll, Waker},
    time::Duration,
};

use http::{Extensions, Request, Uri};
use http_body::Body;
use hyper::rt;
use hyper_util::{
    client::legacy::{
        self,
        connect::{CaptureConnection, Connected, Connection, capture_connection},
    },
    rt::TokioIo,
};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tower_service::Service;

use super::{OutgoingBody, pool::UpstreamProtocol};
use crate::proxy::error::{BoxError, ConnectError};

/// A connector of any type, with a timeout over everything it does, TLS handshake included.
#[derive(Clone)]
pub(super) struct Connector {
    connect: Arc<dyn Fn(Uri) -> Connecting<Box<dyn Socket>> + Send + Sync>,
    timeout: Duration,
    protocol: UpstreamProtocol,
}

type Connecting<S> = Pin<Box<dyn Future<Output = Result<S, BoxError>> + Send>>;

/// A connection of any type.
pub(super) trait Socket: rt::Read + rt::Write + Connection + Unpin + Send {}

impl<S> Socket for S where S: rt::Read + rt::Write + Connection + Unpin + Send {}

impl Connector {
    /// Creates a connector that records the protocol of each connection in `protocol`.
    pub(super) fn new<C, S>(inner: C, timeout: Duration, protocol: UpstreamProtocol) -> Self
    where
        C: Service<Uri, Response = S, Error: Into<BoxError>, Future: Send + 'static>,
        C: Clone + Send + Sync + 'static,
        S: Socket + 'static,
    {
        let connect = move |uri| -> Connecting<Box<dyn Socket>> {
            let mut connector = inner.clone();
            Box::pin(async move {
                poll_fn(|cx| connector.poll_ready(cx)).await.map_err(Into::into)?;
                let socket = connector.call(uri).await.map_err(Into::into)?;
                Ok(Box::new(socket) as Box<dyn Socket>)
            })
        };
        Self { connect: Arc::new(connect), timeout, protocol }
    }
}

impl Service<Uri> for Connector {
    type Response = TokioIo<TrackedIo>;
    type Error = BoxError;
    type Future = Connecting<Self::Response>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let connect = tokio::time::timeout(self.timeout, (self.connect)(uri));
        let protocol = self.protocol.clone();
        Box::pin(async move {
            let socket = connect.await.map_err(ConnectError::new)??;
            protocol.set(socket.connected().is_negotiated_h2());
            Ok(TokioIo::new(TrackedIo::new(socket)))
        })
    }
}

/// A handle of an HTTP/1 connection: the direction of its latest traffic, and whether its request was
/// abandoned.
#[derive(Clone, Debug, Default)]
struct ConnectionHandle(Arc<State>);

#[derive(Debug, Default)]
struct State {
    last_direction: AtomicU8,
    writer: Mutex<WriterState>,
}

#[derive(Debug, Default)]
struct WriterState {
    /// The task that waits until the peer reads more.
    blocked: Option<Waker>,
    is_aborted: bool,
}

impl ConnectionHandle {
    const READ: u8 = 1;
    /// Something was written since the latest read. Never set before the first read.
    const WRITTEN: u8 = 2;

    /// Returns the handle of a connection, or `None` for HTTP/2, where other requests share it.
    fn of(connected: &Connected) -> Option<Self> {
        let mut extras = Extensions::new();
        if !connected.is_negotiated_h2() {
            connected.get_extras(&mut extras);
        }
        extras.remove()
    }

    fn last_direction(&self) -> u8 {
        self.0.last_direction.load(Ordering::Relaxed)
    }

    fn record_read(&self) {
        self.0.last_direction.store(Self::READ, Ordering::Relaxed);
    }

    fn record_write(&self) {
        let (from, to) = (Self::READ, Self::WRITTEN);
        // A connection from which nothing was read is new.
        let _ =
            self.0.last_direction.compare_exchange(from, to, Ordering::Relaxed, Ordering::Relaxed);
    }

    fn writer(&self) -> MutexGuard<'_, WriterState> {
        self.0.writer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Aborts writes that block, as the request was abandoned. hyper closes the connection of such a
    /// request only once the peer has read what is written, and so maybe never.
    fn abort(&self) {
        let mut writer = self.writer();
        // If a response has started and no write blocks, hyper may reuse the connection.
        writer.is_aborted |= writer.blocked.is_some() || self.last_direction() != Self::READ;
        let blocked = writer.blocked.take();
        drop(writer);
        if let Some(waker) = blocked {
            waker.wake();
        }
    }
}

/// Whether a request failed on a connection that had served others and received nothing of a response to
/// this one: the upstream had closed it before.
pub(super) fn was_stale(error: &legacy::Error) -> bool {
    let handle = error.connect_info().and_then(ConnectionHandle::of);
    handle.is_some_and(|handle| handle.last_direction() == ConnectionHandle::WRITTEN)
}

/// Number of bytes that the system's socket buffers accept, whatever the upstream does.
const SOCKET_BUFFER: u64 = 8 * 1024;

/// Aborts blocked writes of a request's connection on drop, if the response or the request body has not
/// come to its end.
pub(super) struct AbortGuard {
    connection: CaptureConnection,
    /// Alive as long as the request's body.
    request_body: Weak<()>,
    has_response: bool,
}

impl AbortGuard {
    /// Creates a guard for a request, if writing its body may block.
    pub(super) fn new<B: Body>(request: &mut Request<OutgoingBody<B>>) -> Option<Box<Self>> {
        if request.body().size_hint().upper().is_some_and(|length| length <= SOCKET_BUFFER) {
            return None;
        }
        let connection = capture_connection(request);
        let request_body = request.body_mut().alive();
        Some(Box::new(Self { connection, request_body, has_response: false }))
    }

    /// Marks that the response has started: once the request body has ended, too, the connection may serve
    /// other requests.
    pub(super) fn response_started(mut self: Box<Self>) -> Box<Self> {
        self.has_response = true;
        self
    }
}

impl Drop for AbortGuard {
    fn drop(&mut self) {
        if self.has_response && self.request_body.strong_count() == 0 {
            return;
        }
        let connected = self.connection.connection_metadata();
        if let Some(handle) = connected.as_ref().and_then(ConnectionHandle::of) {
            handle.abort();
        }
    }
}

/// A connection that updates its [`ConnectionHandle`] and obeys it.
pub(super) struct TrackedIo {
    inner: TokioIo<Box<dyn Socket>>,
    handle: ConnectionHandle,
    is_blocked: bool,
    /// Whether the peer has closed its receiving side, so that writes are discarded. What it sent before
    /// is still to be read: an upstream may respond and close before it has read the whole request.
    discards_writes: bool,
}

impl TrackedIo {
    fn new(socket: Box<dyn Socket>) -> Self {
        Self {
            inner: TokioIo::new(socket),
            handle: ConnectionHandle::default(),
            is_blocked: false,
            discards_writes: false,
        }
    }

    /// Returns the result of a write, or an error if it blocks for an abandoned request.
    #[inline]
    fn abort_if_blocked<T>(
        &mut self,
        cx: &Context<'_>,
        result: Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if result.is_pending() || self.is_blocked {
            let mut writer = self.handle.writer();
            if result.is_pending() && writer.is_aborted {
                return Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into()));
            }
            writer.blocked = result.is_pending().then(|| cx.waker().clone());
            self.is_blocked = result.is_pending();
        }
        result
    }

    /// Returns the result of a write of `length` bytes. Once a write fails because the peer has closed its
    /// side, this and later writes are discarded.
    fn write_result(
        &mut self,
        cx: &Context<'_>,
        length: usize,
        result: Poll<io::Result<usize>>,
    ) -> Poll<io::Result<usize>> {
        let result = self.abort_if_blocked(cx, result);
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

impl Connection for TrackedIo {
    fn connected(&self) -> Connected {
        self.inner.inner().connected().extra(self.handle.clone())
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
            self.handle.record_read();
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
        self.handle.record_write();
        let result = Pin::new(&mut self.inner).poll_write(cx, buf);
        self.write_result(cx, buf.len(), result)
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
        self.handle.record_write();
        let result = Pin::new(&mut self.inner).poll_write_vectored(cx, bufs);
        self.write_result(cx, length, result)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.discards_writes {
            return Poll::Ready(Ok(()));
        }
        let result = Pin::new(&mut self.inner).poll_flush(cx);
        self.abort_if_blocked(cx, result)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let result = Pin::new(&mut self.inner).poll_shutdown(cx);
        self.abort_if_blocked(cx, result)
    }
}
