//! What a connection does: whether a request is under way, and whether its bodies are read.
//!
//! A stalled HTTP/2 stream's body is not asked for more, so nothing within it can tell. Each body notes
//! when it was asked last, and the connection looks.

use std::{
    collections::HashMap,
    future::poll_fn,
    pin::Pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;
use tokio::time::{Instant, sleep};

use crate::connection_limit::{ConnectionPermit, Inactivity};

/// One connection's requests, its place, and those of its bodies that have handed on a frame and were not
/// asked for another. Clones share it.
#[derive(Clone)]
pub(crate) struct Activity(Arc<Shared>);

struct Shared {
    place: ConnectionPermit,
    is_http2: AtomicBool,
    requests: Mutex<Requests>,
    stalled: Mutex<StalledBodies>,
}

struct Requests {
    /// Those that are not over.
    running: usize,
    /// What the connection does, and since when, unless a request is under way or its response not sent.
    inactive: Option<(Inactivity, Instant)>,
}

#[derive(Default)]
struct StalledBodies {
    bodies: u64,
    since: HashMap<u64, Instant>,
}

/// Why a connection is closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CloseReason {
    /// A body was not asked for more.
    Stalled,
    /// There was no request.
    Idle,
}

/// A request of a connection, until its response is over.
pub(crate) struct RunningRequest(Activity);

impl Drop for RunningRequest {
    fn drop(&mut self) {
        self.0.requests().running -= 1;
        // Over HTTP/2 nobody may be about to flush. What h2 still has to send is up to the client.
        if self.0.is_http2() {
            self.0.flushed();
        }
    }
}

impl Activity {
    /// That of a connection that has just come.
    pub(crate) fn new(place: ConnectionPermit) -> Self {
        let inactive = Some((Inactivity::Head, Instant::now()));
        Self(Arc::new(Shared {
            place,
            is_http2: AtomicBool::new(false),
            requests: Mutex::new(Requests { running: 0, inactive }),
            stalled: Mutex::default(),
        }))
    }

    fn requests(&self) -> MutexGuard<'_, Requests> {
        self.0.requests.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn stalled(&self) -> MutexGuard<'_, StalledBodies> {
        self.0.stalled.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn is_http2(&self) -> bool {
        self.0.is_http2.load(Ordering::Relaxed)
    }

    /// The connection has turned out to speak HTTP/2.
    pub(crate) fn set_http2(&self) {
        self.0.is_http2.store(true, Ordering::Relaxed);
    }

    /// Another request has come.
    pub(crate) fn begin(&self) -> RunningRequest {
        let mut requests = self.requests();
        requests.running += 1;
        if requests.inactive.take().is_some() {
            self.0.place.end();
        }
        drop(requests);
        RunningRequest(self.clone())
    }

    /// All that there was to send is sent; whether the connection is idle from now on.
    pub(crate) fn flushed(&self) -> bool {
        let requests = &mut *self.requests();
        let becomes_idle = requests.running == 0 && requests.inactive.is_none();
        if becomes_idle {
            requests.inactive = Some((Inactivity::Idle, Instant::now()));
            self.0.place.begin(Inactivity::Idle);
        }
        becomes_idle
    }

    /// Some of a head has come, or the connection closes and waits for its client to do so, too.
    pub(crate) fn begin_head(&self) {
        if let Some((inactivity @ Inactivity::Idle, since)) = &mut self.requests().inactive {
            (*inactivity, *since) = (Inactivity::Head, Instant::now());
            self.0.place.begin(Inactivity::Head);
        }
    }

    /// What the connection does, and since when, if no request is under way.
    pub(crate) fn inactive(&self) -> Option<(Inactivity, Instant)> {
        self.requests().inactive
    }

    /// Returns when neither the first request nor the rest of a head is waited for. What ends that wakes
    /// the connection's task, in which this is to be polled after it.
    pub(crate) async fn awaits_no_head(&self) {
        let awaits_head = || {
            let inactive = self.inactive();
            !self.is_http2() && inactive.is_some_and(|(what, _)| what == Inactivity::Head)
        };
        poll_fn(|_| if awaits_head() { Poll::Pending } else { Poll::Ready(()) }).await;
    }

    /// Whether the connection is to be closed in favour of another one.
    pub(crate) fn is_evicted(&self) -> bool {
        self.0.place.is_leaving() && self.requests().inactive.is_some()
    }

    /// Returns when that may be so.
    pub(crate) async fn evicted(&self) {
        self.0.place.leaves().await;
    }

    /// Returns once a body was not asked for more for `client_timeout`, or there was no request for
    /// `idle_timeout` while it waited.
    pub(crate) async fn closes(
        &self,
        client_timeout: Duration,
        idle_timeout: Duration,
    ) -> CloseReason {
        let begun = Instant::now();
        loop {
            sleep(client_timeout.min(idle_timeout) / 4).await;
            if self.stalled().since.values().any(|since| since.elapsed() >= client_timeout) {
                return CloseReason::Stalled;
            }
            let idle_since = self.inactive().map(|(_, since)| since.max(begun));
            if idle_since.is_some_and(|since| since.elapsed() >= idle_timeout) {
                return CloseReason::Idle;
            }
        }
    }

    /// The body of a response, which is over when that is. Over HTTP/1 requests are read in order, so a
    /// reader that does not go on stalls the socket, and the body need not be watched.
    pub(crate) fn body<B>(&self, inner: Option<B>, request: RunningRequest) -> ServedBody<B> {
        let watched = self.is_http2().then(|| {
            let mut stalled = self.stalled();
            stalled.bodies += 1;
            WatchedBody { number: stalled.bodies, activity: self.clone() }
        });
        ServedBody { inner, watched, _request: request }
    }
}

pin_project! {
    /// The body of a response, if there is one, on its way to the client.
    pub(crate) struct ServedBody<B> {
        #[pin]
        inner: Option<B>,
        watched: Option<WatchedBody>,
        _request: RunningRequest,
    }
}

/// A body of which its connection knows whether it is read.
struct WatchedBody {
    number: u64,
    activity: Activity,
}

impl Drop for WatchedBody {
    fn drop(&mut self) {
        self.activity.stalled().since.remove(&self.number);
    }
}

impl<B: Body> Body for ServedBody<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        let this = self.project();
        let Some(inner) = this.inner.as_pin_mut() else { return Poll::Ready(None) };
        let polled = inner.poll_frame(cx);
        if let Some(WatchedBody { number, activity }) = this.watched {
            let since = &mut activity.stalled().since;
            match &polled {
                Poll::Ready(Some(Ok(_))) => since.insert(*number, Instant::now()),
                _ => since.remove(number),
            };
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.inner.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.as_ref().map_or_else(|| SizeHint::with_exact(0), Body::size_hint)
    }
}
