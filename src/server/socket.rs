//! A client's socket that times out peers that stop reading, and detects peers that have gone.

use std::{
    future::Future,
    io::{self, IoSlice},
    mem::MaybeUninit,
    net::Shutdown,
    pin::{Pin, pin},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use socket2::SockRef;
use tokio::{
    io::{AsyncRead, AsyncWrite, Interest, ReadBuf},
    net::TcpStream,
    time::{Instant, Sleep, sleep},
};

use super::timeout::MinRateTimeout;

/// Interval of the checks whether a peer that is not being read from has closed the connection.
const PEER_CHECK_INTERVAL: Duration = Duration::from_millis(500);

/// A socket with a timeout for writes.
pub(super) struct ClientSocket {
    socket: TcpStream,
    write_timeout: MinRateTimeout,
    /// Whether a read is pending, which would report that the peer has closed.
    is_reading: bool,
    next_peer_check: Option<Pin<Box<Sleep>>>,
    reset_on_drop: ResetOnDrop,
}

/// Whether dropping a socket that was not shut down resets the connection. In HTTP/1.0 the end of the
/// connection ends the response, so a broken response must not end the same way.
#[derive(Clone, Default)]
pub(super) struct ResetOnDrop(Arc<AtomicBool>);

impl ResetOnDrop {
    /// Resets the connection from now on, unless it is shut down first.
    pub(super) fn enable(&self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

impl ClientSocket {
    /// Wraps `socket`; writes fail when `write_timeout` expires.
    pub(super) fn new(socket: TcpStream, write_timeout: MinRateTimeout) -> Self {
        Self {
            socket,
            write_timeout,
            is_reading: false,
            next_peer_check: None,
            reset_on_drop: ResetOnDrop::default(),
        }
    }

    /// Returns the switch with which the connection's service controls how the connection ends.
    pub(super) fn reset_on_drop(&self) -> ResetOnDrop {
        self.reset_on_drop.clone()
    }

    /// Shuts down the write side, unless there are unread bytes: the last chance for a request to keep
    /// an idle connection open. Returns whether it was shut down.
    pub(super) fn close_unless_readable(&self) -> bool {
        let socket = SockRef::from(&self.socket);
        let is_silent = !matches!(socket.peek(&mut [MaybeUninit::uninit(); 1]), Ok(1..));
        if is_silent && let Err(error) = socket.shutdown(Shutdown::Write) {
            tracing::debug!(%error, "shutdown of an idle connection failed: closing it anyway");
        }
        is_silent
    }

    /// Passes on the outcome of a write, or fails if the peer has not read for too long.
    fn poll_written(
        &mut self,
        cx: &mut Context<'_>,
        written: Poll<io::Result<usize>>,
    ) -> Poll<io::Result<usize>> {
        if let Poll::Ready(result) = &written {
            self.write_timeout.record(*result.as_ref().unwrap_or(&0));
            return written;
        }
        ready!(self.write_timeout.poll_expired(cx));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }

    /// Fails once a peer that is not being read from has closed: what it sent before may never be read.
    fn check_peer(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        if self.is_reading && self.next_peer_check.is_none() {
            return Ok(());
        }
        let next = self.next_peer_check.get_or_insert_with(|| Box::pin(sleep(PEER_CHECK_INTERVAL)));
        while next.as_mut().poll(cx).is_ready() {
            if self.is_reading {
                self.next_peer_check = None;
                return Ok(());
            }
            let state = pin!(self.socket.ready(Interest::READABLE)).poll(cx);
            if matches!(state, Poll::Ready(Ok(state)) if state.is_read_closed()) {
                return Err(io::ErrorKind::ConnectionReset.into());
            }
            next.as_mut().reset(Instant::now() + PEER_CHECK_INTERVAL);
        }
        Ok(())
    }
}

impl AsyncRead for ClientSocket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let read = Pin::new(&mut self.socket).poll_read(cx, buf);
        self.is_reading = read.is_pending();
        read
    }
}

impl AsyncWrite for ClientSocket {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.socket).poll_write(cx, buf);
        self.poll_written(cx, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.socket).poll_write_vectored(cx, bufs);
        self.poll_written(cx, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.socket.is_write_vectored()
    }

    /// Also checks the peer, as hyper flushes each time it polls a connection.
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(Pin::new(&mut self.socket).poll_flush(cx))?;
        Poll::Ready(self.check_peer(cx))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.reset_on_drop.0.store(false, Ordering::Relaxed);
        Pin::new(&mut self.socket).poll_shutdown(cx)
    }
}

impl Drop for ClientSocket {
    fn drop(&mut self) {
        if self.reset_on_drop.0.load(Ordering::Relaxed)
            && let Err(error) = self.socket.set_zero_linger()
        {
            tracing::debug!(%error, "setting SO_LINGER failed: closing without a reset");
        }
    }
}
