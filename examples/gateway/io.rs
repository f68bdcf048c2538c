//! A socket that gives up on peers that do not go on.

use std::{
    future::Future,
    io::{self, IoSlice},
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
    time::Sleep,
};

use crate::patience::Patience;

/// The HTTP/2 preface, and less than any valid HTTP/1.1 head. hyper has no time limit for telling
/// the two protocols apart.
const OPENING: usize = 24;

/// A socket with a time limit for its first bytes, and with patience for those who read it.
pub(crate) struct PatientSocket {
    socket: TcpStream,
    opening_left: usize,
    opening_until: Pin<Box<Sleep>>,
    patience: Patience,
}

impl PatientSocket {
    /// Waits `opening` for the first bytes, and with `patience` for the peer to take what is sent.
    pub(crate) fn new(socket: TcpStream, opening: Duration, patience: Patience) -> Self {
        Self {
            socket,
            opening_left: OPENING,
            opening_until: Box::pin(tokio::time::sleep(opening)),
            patience,
        }
    }

    /// Passes on the outcome of a write, or ends one that has stalled for too long.
    fn within_patience(
        &mut self,
        cx: &mut Context<'_>,
        outcome: Poll<io::Result<usize>>,
    ) -> Poll<io::Result<usize>> {
        if let Poll::Ready(written) = &outcome {
            self.patience.moved(*written.as_ref().unwrap_or(&0));
            return outcome;
        }
        ready!(self.patience.poll_over(cx));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

impl AsyncRead for PatientSocket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let read = Pin::new(&mut self.socket).poll_read(cx, buf);
        if self.opening_left == 0 {
            return read;
        }
        if read.is_ready() {
            let bytes = buf.filled().len() - before;
            self.opening_left = self.opening_left.saturating_sub(bytes);
            return read;
        }
        ready!(self.opening_until.as_mut().poll(cx));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

impl AsyncWrite for PatientSocket {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.socket).poll_write(cx, buf);
        self.within_patience(cx, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.socket).poll_write_vectored(cx, bufs);
        self.within_patience(cx, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.socket.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_shutdown(cx)
    }
}
