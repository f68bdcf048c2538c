//! HTTP/2 streams whose reader does not go on, and connections on which nothing happens.
//!
//! A stalled stream's body is not asked for more, so nothing within it can tell. Each body writes down
//! when it was asked last, and the connection looks.

use std::{
    collections::HashMap,
    pin::Pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;
use tokio::time::{Instant, sleep};

/// The requests of one connection, and those of its bodies that have handed on a frame and were not
/// asked for another.
#[derive(Clone, Default)]
pub(crate) struct Stalls(Arc<Shared>);

#[derive(Default)]
struct Shared {
    /// Requests that are not over, and all that there were.
    running: AtomicUsize,
    begun: AtomicU64,
    stalled: Mutex<Stalled>,
}

#[derive(Default)]
struct Stalled {
    bodies: u64,
    since: HashMap<u64, Instant>,
}

/// What a connection has done for too long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tired {
    /// A body was not asked for more.
    Stalled,
    /// There was no request.
    Idle,
}

/// A request of a connection, until its answer is over.
pub(crate) struct Running(Stalls);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.0.running.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Stalls {
    fn lock(&self) -> MutexGuard<'_, Stalled> {
        self.0.stalled.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Another request has come.
    pub(crate) fn begin(&self) -> Running {
        self.0.running.fetch_add(1, Ordering::Relaxed);
        self.0.begun.fetch_add(1, Ordering::Relaxed);
        Running(self.clone())
    }

    /// Watches a body of this connection.
    pub(crate) fn watch<B>(&self, body: Option<B>, running: Running) -> Watched<B> {
        let mut state = self.lock();
        state.bodies += 1;
        let entry = Entry { number: state.bodies, stalls: self.clone() };
        Watched { inner: body, entry: Some(entry), _running: running }
    }

    /// Ready once a body was not asked for more for `limit`, or no request has come for `idle`.
    pub(crate) async fn wait(&self, limit: Duration, idle_limit: Duration) -> Tired {
        let (mut idle, mut begun) = (0, 0);
        loop {
            sleep(idle_limit.min(limit) / 4).await;
            if self.lock().since.values().any(|since| since.elapsed() >= limit) {
                return Tired::Stalled;
            }
            let (running, before) = (self.0.running.load(Ordering::Relaxed), begun);
            begun = self.0.begun.load(Ordering::Relaxed);
            idle = if running == 0 && begun == before { idle + 1 } else { 0 };
            if idle == 4 {
                return Tired::Idle;
            }
        }
    }
}

pin_project! {
    /// A body, if there is one, of which its connection knows whether it is read.
    pub(crate) struct Watched<B> {
        #[pin]
        inner: Option<B>,
        entry: Option<Entry>,
        _running: Running,
    }
}

/// A body's place among those of its connection.
struct Entry {
    number: u64,
    stalls: Stalls,
}

impl<B> Watched<B> {
    /// A body of which the connection need not know whether it is read.
    pub(crate) fn unwatched(body: Option<B>, running: Running) -> Self {
        Self { inner: body, entry: None, _running: running }
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        self.stalls.lock().since.remove(&self.number);
    }
}

impl<B: Body> Body for Watched<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        let this = self.project();
        let Some(inner) = this.inner.as_pin_mut() else { return Poll::Ready(None) };
        let polled = inner.poll_frame(cx);
        if let Some(Entry { number, stalls }) = this.entry {
            let since = &mut stalls.lock().since;
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
