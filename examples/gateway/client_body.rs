//! A client's request body: as the layers read it, and the part that none of them reads.
//!
//! A response may be ready before the request's body has come: nobody reads the body of a request
//! that is rejected. hyper closes such a connection without a word in the head, and a client whose
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
use tower::BoxError;

use crate::min_rate::MinRateTimeout;

/// Maximum number of bytes that are read of a body that nobody wants. Coding assistants begin at 40
/// to 80 KB.
const MAX_UNREAD: u64 = 256 * 1024;
/// How long the head of a response waits for the rest of the request's body.
const UNREAD_TIMEOUT: Duration = Duration::from_secs(1);

/// A body that fails when its sender does not go on. Time runs only while somebody wants more of it.
///
/// Without a body there is nothing to share.
pub(crate) struct ClientBody {
    shared: Option<Arc<Mutex<Shared>>>,
    min_rate: MinRateTimeout,
}

/// The server's hold on a request's body, until the head of the response goes out.
pub(crate) struct UnreadBody {
    shared: Arc<Mutex<Shared>>,
    /// Whether the client sends no body before it is asked to.
    expects_continue: bool,
}

struct Shared {
    body: Incoming,
    is_http2: bool,
    /// Whether hyper has been asked for the body, and so has asked the client.
    is_polled: bool,
    /// Whether it has ended, well or not.
    end: Option<BodyEnd>,
    /// Whether its reader has let go of it.
    is_dropped: bool,
    server: Option<Waker>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum BodyEnd {
    Complete,
    Failed,
}

/// Why a body is over before its end.
#[derive(Debug)]
enum Broken {
    Stalled,
    Reset,
}

impl From<Broken> for io::Error {
    fn from(broken: Broken) -> Self {
        let kind = match broken {
            Broken::Stalled => io::ErrorKind::TimedOut,
            Broken::Reset => io::ErrorKind::ConnectionReset,
        };
        Self::new(kind, broken)
    }
}

/// Makes the body of a request one that the layers may leave unread.
pub(crate) fn share_body(
    request: Request<Incoming>,
    client_timeout: Duration,
) -> (Request<ClientBody>, Option<UnreadBody>) {
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
    let body = ClientBody {
        shared: unread.as_ref().map(|unread| unread.shared.clone()),
        min_rate: MinRateTimeout::new(client_timeout),
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
            // hyper takes a reset with NO_ERROR for the end, wherever it comes.
            None if self.is_http2 && !self.body.is_end_stream() => {
                Some(Err(io::Error::from(Broken::Reset).into()))
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

impl Body for ClientBody {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let Self { shared: Some(shared), min_rate } = &mut *self else {
            return Poll::Ready(None);
        };
        let shared = &mut *lock(shared);
        let Poll::Ready(frame) = shared.poll_frame(cx) else {
            ready!(min_rate.poll_expired(cx));
            shared.end(BodyEnd::Failed);
            return Poll::Ready(Some(Err(io::Error::from(Broken::Stalled).into())));
        };
        if let Some(Ok(frame)) = &frame {
            min_rate.record(frame.data_ref().map_or(0, Buf::remaining));
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

impl Drop for ClientBody {
    fn drop(&mut self) {
        if let Some(shared) = &self.shared {
            let shared = &mut *lock(shared);
            shared.is_dropped = true;
            shared.wake_server();
        }
    }
}

impl UnreadBody {
    /// Waits until nothing of the body is left to come: whoever reads it goes on, and a rest that
    /// nobody reads is read here. `false` if the client would have to be waited for too long.
    pub(crate) async fn finish(self) -> bool {
        let mut left = MAX_UNREAD;
        let finished = std::future::poll_fn(|cx| self.poll_finish(&mut left, cx));
        timeout(UNREAD_TIMEOUT, finished).await.unwrap_or(false)
    }

    fn poll_finish(&self, left: &mut u64, cx: &mut Context<'_>) -> Poll<bool> {
        let shared = &mut *lock(&self.shared);
        loop {
            if let Some(end) = shared.end {
                return Poll::Ready(end == BodyEnd::Complete);
            }
            let never_asked_for = self.expects_continue && !shared.is_polled;
            if never_asked_for || shared.body.size_hint().lower() > *left {
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

    /// Whether a layer or the upstream may still read it.
    pub(crate) fn has_reader(&self) -> bool {
        !lock(&self.shared).is_dropped
    }
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Stalled => "the request body did not go on",
            Self::Reset => "the request body was reset before its end",
        })
    }
}

impl Error for Broken {}
