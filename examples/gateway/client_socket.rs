//! A socket that gives up on peers that do not go on, or have gone.

use std::{
    future::Future,
    io::{self, IoSlice},
    pin::{Pin, pin},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use rustix::net::{RecvFlags, Shutdown, recv, shutdown};
use tokio::{
    io::{AsyncRead, AsyncWrite, Interest, ReadBuf},
    net::TcpStream,
    time::{Instant, Sleep, sleep},
};

use crate::min_rate::MinRateTimeout;

/// How often a peer that is not read from is looked after.
const LOOK: Duration = Duration::from_millis(500);

/// A socket with min_rate for those who read it.
pub(crate) struct ClientSocket {
    socket: TcpStream,
    min_rate: MinRateTimeout,
    /// Whether a read waits for the peer, and so would learn that it has gone.
    reading: bool,
    /// When the peer is looked after next.
    look: Option<Pin<Box<Sleep>>>,
    closing: Closing,
}

/// How a connection ends. In HTTP/1.0 the end of the connection is that of the answer, so one that
/// broke must be told from it.
#[derive(Clone, Default)]
pub(crate) struct Closing(Arc<AtomicBool>);

impl Closing {
    /// From now on the peer gets a reset unless all was sent.
    pub(crate) fn reset_if_broken(&self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

impl ClientSocket {
    /// Waits with `min_rate` for the peer to take what is sent.
    pub(crate) fn new(socket: TcpStream, min_rate: MinRateTimeout) -> Self {
        Self { socket, min_rate, reading: false, look: None, closing: Closing::default() }
    }

    /// How it will end, to be told by the connection's service.
    pub(crate) fn closing(&self) -> Closing {
        self.closing.clone()
    }

    /// Says that no more is sent, unless the peer has sent something that was not read: the last moment
    /// in which a request keeps a connection that was idle. `false` if something is there.
    pub(crate) fn close_unless_readable(&self) -> bool {
        let peeked = recv(&self.socket, &mut [0; 1], RecvFlags::PEEK | RecvFlags::DONTWAIT);
        let is_silent = !matches!(peeked, Ok((1.., _)));
        if is_silent && let Err(error) = shutdown(&self.socket, Shutdown::Write) {
            tracing::debug!(%error, "an idle connection was not closed");
        }
        is_silent
    }

    /// Passes on the outcome of a write, or ends one that has stalled for too long.
    fn with_min_rate(
        &mut self,
        cx: &mut Context<'_>,
        outcome: Poll<io::Result<usize>>,
    ) -> Poll<io::Result<usize>> {
        if let Poll::Ready(written) = &outcome {
            self.min_rate.record(*written.as_ref().unwrap_or(&0));
            return outcome;
        }
        ready!(self.min_rate.poll_expired(cx));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }

    /// Fails once a peer that nobody reads from has closed: what it sent before may never be wanted.
    fn check_peer(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        if self.reading && self.look.is_none() {
            return Ok(());
        }
        let look = self.look.get_or_insert_with(|| Box::pin(sleep(LOOK)));
        while look.as_mut().poll(cx).is_ready() {
            if self.reading {
                self.look = None;
                return Ok(());
            }
            let state = pin!(self.socket.ready(Interest::READABLE)).poll(cx);
            if matches!(state, Poll::Ready(Ok(state)) if state.is_read_closed()) {
                return Err(io::ErrorKind::ConnectionReset.into());
            }
            look.as_mut().reset(Instant::now() + LOOK);
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
        self.reading = read.is_pending();
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
        self.with_min_rate(cx, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.socket).poll_write_vectored(cx, bufs);
        self.with_min_rate(cx, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.socket.is_write_vectored()
    }

    /// hyper flushes whenever it looks at a connection, so this is also the place to look after the
    /// peer.
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(Pin::new(&mut self.socket).poll_flush(cx))?;
        Poll::Ready(self.check_peer(cx))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.closing.0.store(false, Ordering::Relaxed);
        Pin::new(&mut self.socket).poll_shutdown(cx)
    }
}

impl Drop for ClientSocket {
    fn drop(&mut self) {
        if self.closing.0.load(Ordering::Relaxed)
            && let Err(error) = self.socket.set_zero_linger()
        {
            tracing::debug!(%error, "no reset");
        }
    }
}
