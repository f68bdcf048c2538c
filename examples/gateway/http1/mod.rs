//! What hyper leaves open about HTTP/1 requests: it takes a `Content-Length` beside a
//! `Transfer-Encoding`, and answers what it does not take without a body.
//!
//! [`ValidatedIo`] stands between the socket and hyper and judges each request's head by its bytes. In
//! the place of one that is refused, hyper gets a short one that it takes, so that the answer is
//! made like any other; the service learns the reason from [`RejectedHead`].
//!
//! It has the time limits between requests, too: hyper's limit for a head runs while nothing of one has
//! come, and what it closes then may have a request on its way.

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
pub(crate) use head::BadHead;
use head::{Framing, judge};

use crate::{
    activity::Activity,
    client_socket::ClientSocket,
    connection_limit::Inactivity,
    http2::{FrameTimeout, PREFACE},
    min_rate::DeadlineTimer,
    server::HEAD_TIMEOUT,
};

/// How much is read at once.
const READ: usize = 8 * 1024;
/// How long a client may go on with a body that nobody reads, once its response is sent.
const BODY_LINGER: Duration = Duration::from_secs(10);
/// How long a client may take to close an idle connection that was closed here. What it has sent meanwhile
/// would be answered by a reset else, and might look like a request that was lost.
const IDLE_LINGER: Duration = Duration::from_secs(1);
/// How long a client that has just come may take to send something if its place is wanted.
const NEWCOMER_TIMEOUT: Duration = Duration::from_millis(100);
/// Takes the place of a request that is refused.
const PLACEHOLDER_HEAD: &[u8] = b"GET / HTTP/1.1\r\nhost: refused\r\nconnection: close\r\n\r\n";

/// Why the last request of this connection is refused, if it is.
#[derive(Clone, Debug, Default)]
pub(crate) struct RejectedHead(Arc<OnceLock<BadHead>>);

impl RejectedHead {
    pub(crate) fn get(&self) -> Option<BadHead> {
        self.0.get().copied()
    }
}

/// A socket of which hyper reads only requests with good heads.
pub(crate) struct ValidatedIo {
    socket: ClientSocket,
    activity: Activity,
    idle_timeout: Duration,
    state: State,
    /// What was read and not handed on.
    pending: BytesMut,
    /// How much of it may be handed on: never more than one request at once, so that hyper has
    /// called the service for it before the next is judged.
    released: usize,
    /// How much of it was searched for the end of a head.
    searched: usize,
    refused: RejectedHead,
    /// When the head that is not over began.
    head_begun: Option<Instant>,
    timer: DeadlineTimer,
    /// Whether it was closed for want of a request.
    was_idle: bool,
    /// How long it is still read from after the last response.
    lingering_until: Option<Instant>,
}

enum State {
    /// The protocol is not known yet.
    Opening,
    Http2(FrameTimeout),
    Head,
    Body(u64),
    Chunked(ChunkedBody),
    Rejected,
}

impl ValidatedIo {
    /// Closes it when no request has come for `idle_timeout`.
    pub(crate) fn new(socket: ClientSocket, activity: Activity, idle_timeout: Duration) -> Self {
        Self {
            socket,
            activity,
            idle_timeout,
            state: State::Opening,
            pending: BytesMut::new(),
            released: 0,
            searched: 0,
            refused: RejectedHead::default(),
            head_begun: None,
            timer: DeadlineTimer::default(),
            was_idle: false,
            lingering_until: None,
        }
    }

    /// What this connection's service must look at.
    pub(crate) fn refused(&self) -> RejectedHead {
        self.refused.clone()
    }

    /// Releases what of the pending bytes may be handed on; `false` if more must be read first.
    fn release(&mut self) -> io::Result<bool> {
        if self.pending.is_empty() {
            return Ok(false);
        }
        match &mut self.state {
            State::Opening => {
                let begun = self.pending.len().min(PREFACE.len());
                if self.pending[..begun] != PREFACE[..begun] {
                    self.state = State::Head;
                } else if begun == PREFACE.len() {
                    self.activity.set_http2();
                    self.state = State::Http2(FrameTimeout::default());
                } else {
                    return Ok(false);
                }
                return self.release();
            }
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
                let (used, over) = body.advance(&self.pending).ok_or_else(malformed_chunk)?;
                self.released = used;
                if over {
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
        match judge(&self.pending, self.searched) {
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
                // The first reason stays; there is no second, as nothing is read any more.
                let _ = self.refused.0.set(bad);
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
    /// Reads what follows and forgets it: a socket that is closed with unread bytes may cost the peer
    /// the answer. Ready when no more will come.
    fn poll_discard(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let end = loop {
            self.pending.clear();
            self.pending.reserve(READ);
            match poll_read_buf(Pin::new(&mut self.socket), cx, &mut self.pending) {
                Poll::Ready(Ok(1..)) => {}
                other => break other.map(drop),
            }
        };
        self.pending = BytesMut::new();
        end
    }

    /// Ready when no request is waited for any longer: with an error if one was begun, else with the end.
    fn poll_given_up(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Some((inactivity, since)) = self.activity.inactive() else { return Poll::Pending };
        let is_idle = self.pending.is_empty();
        let mut deadline = if is_idle {
            since + self.idle_timeout
        } else {
            self.activity.begin_head();
            *self.head_begun.get_or_insert_with(Instant::now) + HEAD_TIMEOUT
        };
        if self.activity.is_evicted() {
            let is_new = is_idle && inactivity == Inactivity::Head;
            deadline = if is_new { since + NEWCOMER_TIMEOUT } else { since };
        }
        ready!(self.timer.poll(deadline, cx));
        if !is_idle {
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        if !self.socket.close_unless_readable() {
            // The runtime is about to tell of what is there.
            return Poll::Pending;
        }
        self.was_idle = true;
        Poll::Ready(Ok(()))
    }

    /// Whether the peer may still be sending a body that nobody wants.
    fn is_amid_body(&self) -> bool {
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
            if this.release()? {
                continue;
            }
            this.pending.reserve(READ);
            match poll_read_buf(Pin::new(&mut this.socket), cx, &mut this.pending) {
                Poll::Ready(Ok(0)) => return Poll::Ready(Ok(())),
                Poll::Ready(Ok(_)) => {}
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => {
                    // Most connections wait most of the time.
                    if this.pending.is_empty() {
                        this.pending = BytesMut::new();
                    }
                    return this.poll_given_up(cx);
                }
            }
        }
        this.head_begun = None;
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
            // hyper reads on when the socket or this timer wakes it.
            let deadline = Instant::now() + this.idle_timeout;
            if this.timer.poll(deadline, cx).is_ready() {
                cx.waker().wake_by_ref();
            }
        }
        Poll::Ready(Ok(()))
    }

    /// Tells the peer that no more is sent. One that may still be sending may go on for a while, so that
    /// it comes to read the response, or sees an end and no reset.
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let until = match this.lingering_until {
            Some(until) => until,
            None => {
                ready!(Pin::new(&mut this.socket).poll_shutdown(cx))?;
                let linger = match this.was_idle {
                    true => IDLE_LINGER,
                    false if this.is_amid_body() => BODY_LINGER,
                    false => return Poll::Ready(Ok(())),
                };
                this.activity.flushed();
                this.activity.begin_head();
                *this.lingering_until.insert(Instant::now() + linger)
            }
        };
        if !this.activity.is_evicted() && this.timer.poll(until, cx).is_pending() {
            ready!(this.poll_discard(cx));
        }
        Poll::Ready(Ok(()))
    }
}
