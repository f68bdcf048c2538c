//! HTTP/2 streams whose reader does not go on.
//!
//! Such a stream's body is not asked for more, so nothing within it can tell. Each body writes down
//! when it was asked last, and the connection looks.

use std::{
    collections::HashMap,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll},
    time::Duration,
};

use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;
use tokio::time::{Instant, sleep};

/// The bodies of one connection that have handed on a frame and were not asked for another.
#[derive(Clone, Default)]
pub(crate) struct Stalls(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    bodies: u64,
    since: HashMap<u64, Instant>,
}

impl Stalls {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Watches a body of this connection.
    pub(crate) fn watch<B>(&self, body: B) -> Watched<B> {
        let mut state = self.lock();
        state.bodies += 1;
        Watched { inner: body, entry: Some(Entry { number: state.bodies, stalls: self.clone() }) }
    }

    /// Ready once a body was not asked for more for so long.
    pub(crate) async fn wait(&self, limit: Duration) {
        while self.lock().since.values().all(|since| since.elapsed() < limit) {
            sleep(limit / 4).await;
        }
    }
}

pin_project! {
    /// A body of which its connection knows whether it is read.
    pub(crate) struct Watched<B> {
        #[pin]
        inner: B,
        entry: Option<Entry>,
    }
}

/// A body's place among those of its connection.
struct Entry {
    number: u64,
    stalls: Stalls,
}

impl<B> Watched<B> {
    /// A body of which the connection need not know.
    pub(crate) fn unwatched(body: B) -> Self {
        Self { inner: body, entry: None }
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
        let polled = this.inner.poll_frame(cx);
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
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}
