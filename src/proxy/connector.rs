use std::{
    future::Future,
    io::{self, IoSlice},
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU8, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use http::{Extensions, Uri};
use hyper::rt;
use hyper_util::{
    client::legacy::{
        self,
        connect::{Connected, Connection},
    },
    rt::TokioIo,
};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tower_service::Service;

use super::error::{BoxError, ConnectError};

/// A connector, limited to the end of what it does: with TLS, of the handshake.
#[derive(Clone)]
pub(super) struct Connector<C> {
    inner: C,
    limit: Duration,
}

impl<C> Connector<C> {
    pub(super) fn new(inner: C, limit: Duration) -> Self {
        Self { inner, limit }
    }
}

impl<C, S> Service<Uri> for Connector<C>
where
    C: Service<Uri, Response = S, Error: Into<BoxError>, Future: Send + 'static>,
    S: rt::Read + rt::Write + Connection + Unpin + Send + 'static,
{
    type Response = TokioIo<Watched<S>>;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, BoxError>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.inner.poll_ready(cx).map_err(Into::into)
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let connected = tokio::time::timeout(self.limit, self.inner.call(uri));
        Box::pin(async move {
            let socket = connected.await.map_err(ConnectError::new)?.map_err(Into::into)?;
            let socket = Watched { inner: TokioIo::new(socket), traffic: Traffic::default() };
            Ok(TokioIo::new(socket))
        })
    }
}

/// What went over a connection last.
#[derive(Clone, Debug, Default)]
struct Traffic(Arc<AtomicU8>);

impl Traffic {
    const READ: u8 = 1;
    /// Something was written, and nothing has come since; before that, something had.
    const WRITTEN: u8 = 2;

    fn read(&self) {
        self.0.store(Self::READ, Ordering::Relaxed);
    }

    fn written(&self) {
        let (from, to) = (Self::READ, Self::WRITTEN);
        // Where nothing has come so far, the connection is new.
        let _ = self.0.compare_exchange(from, to, Ordering::Relaxed, Ordering::Relaxed);
    }
}

/// Whether a request failed on a connection that had served others and said nothing to this one: the
/// upstream had closed it before.
pub(super) fn was_stale(error: &legacy::Error) -> bool {
    let mut extras = Extensions::new();
    if let Some(connected) = error.connect_info() {
        connected.get_extras(&mut extras);
    }
    let traffic: Option<&Traffic> = extras.get();
    traffic.is_some_and(|traffic| traffic.0.load(Ordering::Relaxed) == Traffic::WRITTEN)
}

/// A connection that knows what went over it last.
pub(super) struct Watched<S> {
    inner: TokioIo<S>,
    traffic: Traffic,
}

impl<S: Connection> Connection for Watched<S> {
    fn connected(&self) -> Connected {
        self.inner.inner().connected().extra(self.traffic.clone())
    }
}

impl<S: rt::Read + Unpin> AsyncRead for Watched<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let polled = Pin::new(&mut self.inner).poll_read(cx, buf);
        if buf.filled().len() > before {
            self.traffic.read();
        }
        polled
    }
}

impl<S: rt::Write + Unpin> AsyncWrite for Watched<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.traffic.written();
        Pin::new(&mut self.inner).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.traffic.written();
        Pin::new(&mut self.inner).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}
