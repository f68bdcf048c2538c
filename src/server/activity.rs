//! What a connection is doing: whether requests are in flight, and whether clients read its bodies.
//!
//! A stalled HTTP/2 stream is not polled, so its body cannot time out by itself. Each body records when
//! it last produced a frame, and the connection checks that.

use std::{
    collections::HashMap,
    pin::Pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, Waker},
    time::Duration,
};

use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;
use tokio::time::Instant;

use super::connection_limit::{ConnectionPermit, Inactivity};

/// The requests of one connection, its permit, and those of its bodies that have produced a frame and
/// were not polled for another. Clones share it.
#[derive(Clone)]
pub(super) struct Activity(Arc<Shared>);

struct Shared {
    permit: ConnectionPermit,
    is_http2: AtomicBool,
    requests: Mutex<Requests>,
    unpolled: Mutex<UnpolledBodies>,
}

struct Requests {
    /// Number of requests whose response has not ended.
    in_flight: usize,
    /// What the connection waits for and since when. `None` while a request is in flight or its response
    /// is not flushed.
    inactive: Option<(Inactivity, Instant)>,
}

#[derive(Default)]
struct UnpolledBodies {
    /// Number of bodies so far.
    count: u64,
    since: HashMap<u64, Instant>,
}

/// Reason for closing a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum CloseReason {
    /// The client did not read a response body.
    Stalled,
    /// No request came.
    Idle,
}

/// Counts a request as in flight until its response has ended.
pub(super) struct InFlightGuard(Activity);

impl Drop for InFlightGuard {
    fn drop(&mut self) {
        self.0.requests().in_flight -= 1;
        // Over HTTP/2 no flush may follow: how long h2 buffers what is left is up to the client.
        if self.0.is_http2() {
            self.0.flushed();
        }
    }
}

impl Activity {
    /// Creates the activity of a new connection, which waits for its first request.
    pub(super) fn new(permit: ConnectionPermit) -> Self {
        let inactive = Some((Inactivity::Head, Instant::now()));
        Self(Arc::new(Shared {
            permit,
            is_http2: AtomicBool::new(false),
            requests: Mutex::new(Requests { in_flight: 0, inactive }),
            unpolled: Mutex::default(),
        }))
    }

    fn requests(&self) -> MutexGuard<'_, Requests> {
        self.0.requests.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn unpolled(&self) -> MutexGuard<'_, UnpolledBodies> {
        self.0.unpolled.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn is_http2(&self) -> bool {
        self.0.is_http2.load(Ordering::Relaxed)
    }

    /// Records that the client has sent the HTTP/2 preface.
    pub(super) fn set_http2(&self) {
        self.0.is_http2.store(true, Ordering::Relaxed);
    }

    /// Records the start of a request.
    pub(super) fn begin_request(&self) -> InFlightGuard {
        let mut requests = self.requests();
        requests.in_flight += 1;
        if requests.inactive.take().is_some() {
            self.0.permit.set_active();
        }
        drop(requests);
        InFlightGuard(self.clone())
    }

    /// Records that everything is flushed, and returns whether the connection becomes idle by that.
    pub(super) fn flushed(&self) -> bool {
        let requests = &mut *self.requests();
        let becomes_idle = requests.in_flight == 0 && requests.inactive.is_none();
        if becomes_idle {
            requests.inactive = Some((Inactivity::Idle, Instant::now()));
            self.0.permit.set_inactive(Inactivity::Idle);
        }
        becomes_idle
    }

    /// Records that part of a head has come, or that the connection waits for the client to close it.
    pub(super) fn begin_head(&self) {
        if let Some((inactivity @ Inactivity::Idle, since)) = &mut self.requests().inactive {
            (*inactivity, *since) = (Inactivity::Head, Instant::now());
            self.0.permit.set_inactive(Inactivity::Head);
        }
    }

    /// Returns what the connection waits for and since when, unless a request is in flight.
    pub(super) fn inactive(&self) -> Option<(Inactivity, Instant)> {
        self.requests().inactive
    }

    /// Returns whether the first request or the rest of a head is awaited.
    pub(super) fn is_head_pending(&self) -> bool {
        let inactive = self.inactive();
        !self.is_http2() && inactive.is_some_and(|(what, _)| what == Inactivity::Head)
    }

    /// Returns whether the connection must close in favor of a pending one.
    pub(super) fn is_evicted(&self) -> bool {
        self.0.permit.is_evicted() && self.requests().inactive.is_some()
    }

    /// Sets what is woken when [`is_evicted`](Self::is_evicted) may have become true.
    pub(super) fn set_waker(&self, waker: &Waker) {
        self.0.permit.set_waker(waker);
    }

    /// Returns why the connection has timed out: a body was not polled for `client_timeout`, or no request came within
    /// `idle_timeout` of the last one, or of `start`.
    pub(super) fn timed_out(
        &self,
        client_timeout: Duration,
        idle_timeout: Duration,
        start: Instant,
    ) -> Option<CloseReason> {
        if self.unpolled().since.values().any(|since| since.elapsed() >= client_timeout) {
            return Some(CloseReason::Stalled);
        }
        let idle_since = self.inactive().map(|(_, since)| since.max(start));
        idle_since.is_some_and(|since| since.elapsed() >= idle_timeout).then_some(CloseReason::Idle)
    }

    /// Wraps a response body, whose end is that of the request. HTTP/1 responses go out in order, so an
    /// unread one stalls the socket, and only HTTP/2 bodies need to be tracked.
    pub(super) fn body<B>(&self, inner: Option<B>, in_flight: InFlightGuard) -> ServedBody<B> {
        let tracked = self.is_http2().then(|| {
            let mut unpolled = self.unpolled();
            unpolled.count += 1;
            TrackedBody { id: unpolled.count, activity: self.clone() }
        });
        ServedBody { inner, tracked, _in_flight: in_flight }
    }
}

pin_project! {
    /// A response body, or none, on its way to the client.
    pub(super) struct ServedBody<B> {
        #[pin]
        inner: Option<B>,
        tracked: Option<TrackedBody>,
        _in_flight: InFlightGuard,
    }
}

/// Registers a body with its connection until it is dropped.
struct TrackedBody {
    id: u64,
    activity: Activity,
}

impl Drop for TrackedBody {
    fn drop(&mut self) {
        self.activity.unpolled().since.remove(&self.id);
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
        if let Some(TrackedBody { id, activity }) = this.tracked {
            let since = &mut activity.unpolled().since;
            match &polled {
                Poll::Ready(Some(Ok(_))) => since.insert(*id, Instant::now()),
                _ => since.remove(id),
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
