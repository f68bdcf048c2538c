//! A client's request body: as the layers read it, and the part that none of them reads.
//!
//! A response may be ready before the request's body has come: nothing reads the body of a request
//! that is rejected. hyper closes such a connection without `Connection: close`, and a client whose
//! next request is on its way by then gets no response to it. So the server reads a short rest itself
//! ([`UnreadBody`]) before the head goes out, or knows by then that the connection must close.

use std::{
    error::Error,
    fmt, io,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker, ready},
    time::Duration,
};

use bytes::{Buf, Bytes};
use http::{HeaderMap, Request, Version, header};
use hyper::body::{Body, Frame, Incoming, SizeHint};
use tokio::time::timeout;

use super::{BoxError, timeout::MinRateTimeout};

/// Maximum number of bytes that are read of an unread body. Coding assistants begin at 40 to 80 KB.
const MAX_UNREAD_BYTES: u64 = 256 * 1024;
/// Maximum time that the head of a response waits for the rest of the request's body.
const UNREAD_TIMEOUT: Duration = Duration::from_secs(1);

/// Body of a request, which fails if the client stalls it. The time runs only while it is polled.
pub struct RequestBody {
    /// `None` if the request has no body.
    shared: Option<Arc<Mutex<Shared>>>,
    read_timeout: MinRateTimeout,
}

/// The server's handle to a request's body until the head of the response goes out.
pub(super) struct UnreadBody {
    shared: Arc<Mutex<Shared>>,
    expects_continue: bool,
}

struct Shared {
    body: Incoming,
    is_http2: bool,
    /// Whether the body was polled, at which hyper sends `100 Continue`.
    is_polled: bool,
    end: Option<BodyEnd>,
    /// Whether the [`RequestBody`] is dropped.
    is_dropped: bool,
    server: Option<Waker>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum BodyEnd {
    Complete,
    Failed,
}

/// Why a body failed.
#[derive(Debug)]
enum BodyError {
    Stalled,
    Reset,
}

impl From<BodyError> for io::Error {
    fn from(error: BodyError) -> Self {
        let kind = match error {
            BodyError::Stalled => io::ErrorKind::TimedOut,
            BodyError::Reset => io::ErrorKind::ConnectionReset,
        };
        Self::new(kind, error)
    }
}

/// Splits off a handle with which the server can read what the layers leave of the body.
pub(super) fn share_body(
    request: Request<Incoming>,
    client_timeout: Duration,
) -> (Request<RequestBody>, Option<UnreadBody>) {
    let (head, body) = request.into_parts();
    let mut unread = None;
    if !body.is_end_stream() {
        let shared = Shared {
            body,
            is_http2: head.version == Version::HTTP_2,
            is_polled: false,
            end: None,
            is_dropped: false,
            server: None,
        };
        unread = Some(UnreadBody {
            shared: Arc::new(Mutex::new(shared)),
            expects_continue: expects_continue(&head.headers),
        });
    }
    let body = RequestBody {
        shared: unread.as_ref().map(|unread| unread.shared.clone()),
        read_timeout: MinRateTimeout::new(client_timeout),
    };
    (Request::from_parts(head, body), unread)
}

fn expects_continue(headers: &HeaderMap) -> bool {
    let value = headers.get(header::EXPECT);
    value.is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"100-continue"))
}

fn lock(shared: &Mutex<Shared>) -> MutexGuard<'_, Shared> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shared {
    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        self.is_polled = true;
        let frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
        let frame = match frame {
            // hyper reports RST_STREAM with NO_ERROR as the end of the body, wherever it comes.
            None if self.is_http2 && !self.body.is_end_stream() => {
                Some(Err(io::Error::from(BodyError::Reset).into()))
            }
            frame => frame.map(|frame| frame.map_err(Into::into)),
        };
        match &frame {
            Some(Err(_)) => self.end(BodyEnd::Failed),
            None => self.end(BodyEnd::Complete),
            Some(Ok(frame)) if frame.is_trailers() || self.body.is_end_stream() => {
                self.end(BodyEnd::Complete);
            }
            Some(Ok(_)) => {}
        }
        Poll::Ready(frame)
    }

    fn end(&mut self, end: BodyEnd) {
        self.end = Some(end);
        self.wake_server();
    }

    fn wake_server(&mut self) {
        if let Some(server) = self.server.take() {
            server.wake();
        }
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let Self { shared: Some(shared), read_timeout } = &mut *self else {
            return Poll::Ready(None);
        };
        let shared = &mut *lock(shared);
        let Poll::Ready(frame) = shared.poll_frame(cx) else {
            ready!(read_timeout.poll_expired(cx));
            shared.end(BodyEnd::Failed);
            return Poll::Ready(Some(Err(io::Error::from(BodyError::Stalled).into())));
        };
        if let Some(Ok(frame)) = &frame {
            read_timeout.record(frame.data_ref().map_or(0, Buf::remaining));
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.shared.as_ref().is_none_or(|shared| lock(shared).body.is_end_stream())
    }

    fn size_hint(&self) -> SizeHint {
        let shared = self.shared.as_ref();
        shared.map_or_else(|| SizeHint::with_exact(0), |shared| lock(shared).body.size_hint())
    }
}

impl Drop for RequestBody {
    fn drop(&mut self) {
        if let Some(shared) = &self.shared {
            let shared = &mut *lock(shared);
            shared.is_dropped = true;
            shared.wake_server();
        }
    }
}

impl UnreadBody {
    /// Waits for the end of the body: a layer that reads it continues to, and what no layer reads is
    /// discarded here. Returns `false` if the body is too long, too slow or failed.
    pub(super) async fn finish(self) -> bool {
        let mut left = MAX_UNREAD_BYTES;
        let finished = std::future::poll_fn(|cx| self.poll_finish(&mut left, cx));
        timeout(UNREAD_TIMEOUT, finished).await.unwrap_or(false)
    }

    fn poll_finish(&self, left: &mut u64, cx: &mut Context<'_>) -> Poll<bool> {
        let shared = &mut *lock(&self.shared);
        loop {
            if let Some(end) = shared.end {
                return Poll::Ready(end == BodyEnd::Complete);
            }
            let awaits_continue = self.expects_continue && !shared.is_polled;
            if awaits_continue || shared.body.size_hint().lower() > *left {
                return Poll::Ready(false);
            }
            if !shared.is_dropped {
                shared.server = Some(cx.waker().clone());
                return Poll::Pending;
            }
            if let Some(Ok(frame)) = ready!(shared.poll_frame(cx)) {
                let data = frame.data_ref().map_or(0, Buf::remaining);
                match left.checked_sub(data as u64) {
                    Some(less) => *left = less,
                    None => return Poll::Ready(false),
                }
            }
        }
    }

    /// Returns whether a layer or the upstream may still read the body.
    pub(super) fn has_reader(&self) -> bool {
        !lock(&self.shared).is_dropped
    }
}

impl fmt::Debug for RequestBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RequestBody").field("size", &self.size_hint()).finish_non_exhaustive()
    }
}

impl fmt::Display for BodyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Stalled => "the request body stalled",
            Self::Reset => "the request body was reset before its end",
        })
    }
}

impl Error for BodyError {}
