//! Stricter HTTP/1 than hyper's, which accepts a `Content-Length` next to a `Transfer-Encoding` and
//! rejects other heads with an empty body.
//!
//! [`ValidatedIo`] sits between the socket and hyper and validates each request's head. It replaces an
//! invalid head with a short valid one, so that the service renders the rejection like any other; the
//! server finds the reason in [`Rejection`].
//!
//! It also implements the timeouts between requests: hyper's header timeout runs while no byte of a head
//! has come, and the connection that it closes may have a request on its way.

mod chunked;
mod head;

use std::{
    io::{self, IoSlice},
    pin::Pin,
    sync::{Arc, OnceLock},
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::{Buf, BytesMut};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::Instant,
};
use tokio_util::io::poll_read_buf;

use chunked::ChunkedBody;
pub use head::RejectedHead;
use head::{Framing, validate};

use super::{
    activity::Activity,
    connection_limit::Inactivity,
    http2::{FrameTimeout, PREFACE},
    limits::HEAD_TIMEOUT,
    socket::ClientSocket,
    timeout::DeadlineTimer,
};

/// Size of a read.
const READ_BYTES: usize = 8 * 1024;
/// Maximum time for which an unread request body is discarded after the response.
const BODY_LINGER_TIMEOUT: Duration = Duration::from_secs(10);
/// Maximum time that a client may take to close an idle connection that was shut down here. Without it, a
/// request that has crossed the shutdown would cause a reset and might look like a lost request.
const IDLE_LINGER_TIMEOUT: Duration = Duration::from_secs(1);
/// Maximum time that a new connection may take for its first byte if it is being evicted.
const FIRST_BYTE_TIMEOUT: Duration = Duration::from_millis(100);
/// The head that replaces a rejected one.
const PLACEHOLDER_HEAD: &[u8] = b"GET / HTTP/1.1\r\nhost: rejected\r\nconnection: close\r\n\r\n";

/// Why the last head of this connection is rejected, if it is.
#[derive(Clone, Debug, Default)]
pub(super) struct Rejection(Arc<OnceLock<RejectedHead>>);

impl Rejection {
    pub(super) fn get(&self) -> Option<RejectedHead> {
        self.0.get().copied()
    }
}

/// A socket from which hyper reads only requests with valid heads.
pub(super) struct ValidatedIo {
    socket: ClientSocket,
    activity: Activity,
    idle_timeout: Duration,
    state: State,
    /// Bytes that were read from the socket but not by hyper.
    pending: BytesMut,
    /// Number of pending bytes that hyper may read: never more than one request, so that hyper has
    /// called the service for it before the next head is validated.
    released: usize,
    /// Number of pending bytes that were searched for the end of a head.
    searched: usize,
    rejection: Rejection,
    /// When the first byte of an incomplete head came.
    head_start: Option<Instant>,
    timer: DeadlineTimer,
    /// Whether the connection was shut down because it was idle.
    was_idle: bool,
    /// Until when bytes are discarded after the shutdown.
    linger_until: Option<Instant>,
}

/// Protocol of a connection.
#[derive(Clone, Copy, Debug)]
pub(super) enum Protocol {
    Http1,
    Http2,
}

enum State {
    Http2(FrameTimeout),
    Head,
    Body(u64),
    Chunked(ChunkedBody),
    Rejected,
}

impl ValidatedIo {
    /// Wraps `socket`, and shuts it down when no request comes within `idle_timeout`.
    pub(super) fn new(socket: ClientSocket, activity: Activity, idle_timeout: Duration) -> Self {
        Self {
            socket,
            activity,
            idle_timeout,
            state: State::Head,
            pending: BytesMut::new(),
            released: 0,
            searched: 0,
            rejection: Rejection::default(),
            head_start: None,
            timer: DeadlineTimer::default(),
            was_idle: false,
            linger_until: None,
        }
    }

    /// Returns the rejection that this connection's service must check for.
    pub(super) fn rejection(&self) -> Rejection {
        self.rejection.clone()
    }

    /// Becomes ready with the protocol of the connection once so much has come that it is known, or nothing comes any
    /// more.
    pub(super) fn poll_protocol(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Protocol>> {
        loop {
            let length = self.pending.len().min(PREFACE.len());
            if self.pending[..length] != PREFACE[..length] {
                break;
            }
            if length == PREFACE.len() {
                self.activity.set_http2();
                self.state = State::Http2(FrameTimeout::default());
                return Poll::Ready(Ok(Protocol::Http2));
            }
            if !ready!(self.poll_fill(cx))? {
                break;
            }
        }
        Poll::Ready(Ok(Protocol::Http1))
    }

    /// Reads more bytes before they are released. Becomes ready with `false` if none will come.
    fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<bool>> {
        self.pending.reserve(READ_BYTES);
        match poll_read_buf(Pin::new(&mut self.socket), cx, &mut self.pending) {
            Poll::Ready(read) => Poll::Ready(read.map(|length| length > 0)),
            Poll::Pending => {
                // Most connections are idle most of the time, and need no buffer then.
                if self.pending.is_empty() {
                    self.pending = BytesMut::new();
                }
                self.poll_request_timeout(cx).map_ok(|()| false)
            }
        }
    }

    /// Releases pending bytes to hyper, and returns `false` if more must be read first.
    fn release(&mut self) -> io::Result<bool> {
        if self.pending.is_empty() {
            return Ok(false);
        }
        match &mut self.state {
            State::Http2(watch) => {
                watch.read(&self.pending);
                self.released = self.pending.len();
            }
            State::Head => return Ok(self.release_head()),
            State::Body(left) => {
                let here = usize::try_from(*left).unwrap_or(usize::MAX).min(self.pending.len());
                self.released = here;
                *left -= here as u64;
                if *left == 0 {
                    self.state = State::Head;
                }
            }
            State::Chunked(body) => {
                let (used, is_end) = body.advance(&self.pending).ok_or_else(malformed_chunk)?;
                self.released = used;
                if is_end {
                    self.state = State::Head;
                }
            }
            State::Rejected => return Ok(false),
        }
        Ok(true)
    }

    fn release_head(&mut self) -> bool {
        while self.pending.starts_with(b"\r\n") {
            self.pending.advance(2);
        }
        match validate(&self.pending, self.searched) {
            Ok(Some(head)) => {
                self.released = head.length;
                self.state = match head.framing {
                    Framing::Length(0) => State::Head,
                    Framing::Length(length) => State::Body(length),
                    Framing::Chunked => State::Chunked(ChunkedBody::default()),
                };
                self.searched = 0;
                true
            }
            Ok(None) => {
                self.searched = self.pending.len();
                false
            }
            Err(bad) => {
                // Nothing is read after a rejected head, so there is only one.
                let _ = self.rejection.0.set(bad);
                self.pending = BytesMut::from(PLACEHOLDER_HEAD);
                self.released = PLACEHOLDER_HEAD.len();
                self.state = State::Rejected;
                true
            }
        }
    }
}

fn malformed_chunk() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "malformed chunk")
}

impl ValidatedIo {
    /// Discards what follows, and becomes ready at its end: closing a socket with unread bytes resets the
    /// connection, at which the peer may lose the response.
    fn poll_discard(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let end = loop {
            self.pending.clear();
            self.pending.reserve(READ_BYTES);
            match poll_read_buf(Pin::new(&mut self.socket), cx, &mut self.pending) {
                Poll::Ready(Ok(1..)) => {}
                other => break other.map(drop),
            }
        };
        self.pending = BytesMut::new();
        end
    }

    /// Becomes ready when the wait for a request times out: with an error if part of a head has come,
    /// otherwise with the end of the stream.
    fn poll_request_timeout(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Some((inactivity, since)) = self.activity.inactive() else { return Poll::Pending };
        let is_idle = self.pending.is_empty();
        let mut deadline = if is_idle {
            since + self.idle_timeout
        } else {
            self.activity.begin_head();
            *self.head_start.get_or_insert_with(Instant::now) + HEAD_TIMEOUT
        };
        if self.activity.is_evicted() {
            let is_new = is_idle && inactivity == Inactivity::Head;
            deadline = if is_new { since + FIRST_BYTE_TIMEOUT } else { since };
        }
        ready!(self.timer.poll(deadline, cx));
        if !is_idle {
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        if !self.socket.close_unless_readable() {
            // The runtime is about to report the unread bytes.
            return Poll::Pending;
        }
        self.was_idle = true;
        Poll::Ready(Ok(()))
    }

    /// Reads a body into hyper's buffer. What follows it is pending.
    fn poll_body(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let start = buf.filled().len();
        match Pin::new(&mut self.socket).poll_read(cx, buf) {
            Poll::Ready(read) => read?,
            Poll::Pending => return self.poll_request_timeout(cx),
        }
        let read = &buf.filled()[start..];
        let (used, is_end) = match &mut self.state {
            State::Body(left) => {
                let used = usize::try_from(*left).unwrap_or(usize::MAX).min(read.len());
                *left -= used as u64;
                (used, *left == 0)
            }
            State::Chunked(body) => match body.advance(read) {
                Some(advanced) => advanced,
                None => {
                    // A read that fails has read nothing.
                    buf.set_filled(start);
                    return Poll::Ready(Err(malformed_chunk()));
                }
            },
            _ => (read.len(), false),
        };
        self.pending.extend_from_slice(&read[used..]);
        buf.set_filled(start + used);
        if is_end {
            self.state = State::Head;
        }
        Poll::Ready(Ok(()))
    }

    /// Returns whether the peer may still be sending a body.
    fn is_in_body(&self) -> bool {
        matches!(self.state, State::Body(_) | State::Chunked(_) | State::Rejected)
    }
}

impl AsyncRead for ValidatedIo {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if let State::Http2(watch) = &mut this.state
            && this.pending.is_empty()
        {
            let before = buf.filled().len();
            let read = Pin::new(&mut this.socket).poll_read(cx, buf);
            if read.is_pending() {
                ready!(watch.poll_expired(cx));
                return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
            }
            watch.read(&buf.filled()[before..]);
            return read;
        }
        while this.released == 0 {
            if matches!(this.state, State::Rejected) {
                let _ = this.poll_discard(cx);
                return Poll::Pending;
            }
            if this.is_in_body() && this.pending.is_empty() {
                return this.poll_body(cx, buf);
            }
            if !this.release()? && !ready!(this.poll_fill(cx))? {
                return Poll::Ready(Ok(()));
            }
        }
        this.head_start = None;
        let here = this.released.min(buf.remaining());
        buf.put_slice(&this.pending[..here]);
        this.pending.advance(here);
        this.released -= here;
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for ValidatedIo {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.socket).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.socket).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.socket.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        ready!(Pin::new(&mut this.socket).poll_flush(cx))?;
        if this.activity.flushed() && !matches!(this.state, State::Http2(_)) {
            // hyper reads again when the socket or this timer wakes it.
            let deadline = Instant::now() + this.idle_timeout;
            if this.timer.poll(deadline, cx).is_ready() {
                cx.waker().wake_by_ref();
            }
        }
        Poll::Ready(Ok(()))
    }

    /// Shuts down the write side, then discards for a while what the peer is still sending, so that it
    /// comes to read the response and sees an end instead of a reset.
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let until = match this.linger_until {
            Some(until) => until,
            None => {
                ready!(Pin::new(&mut this.socket).poll_shutdown(cx))?;
                let linger = match this.was_idle {
                    true => IDLE_LINGER_TIMEOUT,
                    false if this.is_in_body() => BODY_LINGER_TIMEOUT,
                    false => return Poll::Ready(Ok(())),
                };
                this.activity.flushed();
                this.activity.begin_head();
                *this.linger_until.insert(Instant::now() + linger)
            }
        };
        if !this.activity.is_evicted() && this.timer.poll(until, cx).is_pending() {
            ready!(this.poll_discard(cx));
        }
        Poll::Ready(Ok(()))
    }
}
