use std::{
    io::{self, IoSlice},
    pin::Pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU8, Ordering},
    },
    task::{Context, Poll, Waker},
};

use http::Extensions;
use hyper::rt;
use hyper_util::{
    client::legacy::{
        self,
        connect::{Connected, Connection},
    },
    rt::TokioIo,
};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// What a connection tells of itself, and can be told.
#[derive(Clone, Debug, Default)]
pub(super) struct Traffic(Arc<State>);

#[derive(Debug, Default)]
struct State {
    last: AtomicU8,
    writing: Mutex<Writing>,
}

#[derive(Debug, Default)]
struct Writing {
    /// Who waits for the peer to take more.
    stalled: Option<Waker>,
    given_up: bool,
}

impl Traffic {
    const READ: u8 = 1;
    /// Something was written, and nothing has come since; before that, something had.
    const WRITTEN: u8 = 2;

    /// That of the connection, unless it carries other requests, too.
    pub(super) fn of(connected: &Connected) -> Option<Self> {
        let mut extras = Extensions::new();
        if !connected.is_negotiated_h2() {
            connected.get_extras(&mut extras);
        }
        extras.remove()
    }

    fn last(&self) -> u8 {
        self.0.last.load(Ordering::Relaxed)
    }

    fn read(&self) {
        self.0.last.store(Self::READ, Ordering::Relaxed);
    }

    fn written(&self) {
        let (from, to) = (Self::READ, Self::WRITTEN);
        // Where nothing has come so far, the connection is new.
        let _ = self.0.last.compare_exchange(from, to, Ordering::Relaxed, Ordering::Relaxed);
    }

    fn writing(&self) -> MutexGuard<'_, Writing> {
        self.0.writing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The request that the connection serves is not wanted any more. hyper closes the connection
    /// then, but not before the peer has taken what is written, and so maybe never: from now on a
    /// write that must wait fails.
    pub(super) fn give_up(&self) {
        let mut writing = self.writing();
        // Where an answer has begun and no write waits, hyper may use the connection again.
        writing.given_up |= writing.stalled.is_some() || self.last() != Self::READ;
        let stalled = writing.stalled.take();
        drop(writing);
        if let Some(waker) = stalled {
            waker.wake();
        }
    }
}

/// Whether a request failed on a connection that had served others and said nothing to this one: the
/// upstream had closed it before.
pub(super) fn was_stale(error: &legacy::Error) -> bool {
    let traffic = error.connect_info().and_then(Traffic::of);
    traffic.is_some_and(|traffic| traffic.last() == Traffic::WRITTEN)
}

/// A connection that knows what went over it last, and whether anybody still wants it.
pub(super) struct Watched<S> {
    inner: TokioIo<S>,
    traffic: Traffic,
    stalled: bool,
    /// The peer takes no more. What it has said before is still to be read: an upstream may answer a
    /// request and close before it has read all of it.
    is_deaf: bool,
}

impl<S> Watched<S> {
    pub(super) fn new(socket: S) -> Self {
        Self {
            inner: TokioIo::new(socket),
            traffic: Traffic::default(),
            stalled: false,
            is_deaf: false,
        }
    }

    /// Passes on the outcome of a write, or fails one that must wait for nobody.
    #[inline]
    fn outcome<T>(
        &mut self,
        cx: &Context<'_>,
        outcome: Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if outcome.is_pending() || self.stalled {
            let mut writing = self.traffic.writing();
            if outcome.is_pending() && writing.given_up {
                return Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into()));
            }
            writing.stalled = outcome.is_pending().then(|| cx.waker().clone());
            self.stalled = outcome.is_pending();
        }
        outcome
    }

    /// Passes on the outcome of a write of so many bytes; from the first that fails because the peer
    /// has gone, bytes are thrown away.
    fn written(
        &mut self,
        cx: &Context<'_>,
        length: usize,
        outcome: Poll<io::Result<usize>>,
    ) -> Poll<io::Result<usize>> {
        let outcome = self.outcome(cx, outcome);
        let has_gone = |error: &io::Error| {
            matches!(error.kind(), io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset)
        };
        match &outcome {
            Poll::Ready(Err(error)) if has_gone(error) => {
                self.is_deaf = true;
                Poll::Ready(Ok(length))
            }
            _ => outcome,
        }
    }
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
        if self.is_deaf {
            return Poll::Ready(Ok(buf.len()));
        }
        self.traffic.written();
        let written = Pin::new(&mut self.inner).poll_write(cx, buf);
        self.written(cx, buf.len(), written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let length = bufs.iter().map(|buf| buf.len()).sum();
        if self.is_deaf {
            return Poll::Ready(Ok(length));
        }
        self.traffic.written();
        let written = Pin::new(&mut self.inner).poll_write_vectored(cx, bufs);
        self.written(cx, length, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.is_deaf {
            return Poll::Ready(Ok(()));
        }
        let flushed = Pin::new(&mut self.inner).poll_flush(cx);
        self.outcome(cx, flushed)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let closed = Pin::new(&mut self.inner).poll_shutdown(cx);
        self.outcome(cx, closed)
    }
}
