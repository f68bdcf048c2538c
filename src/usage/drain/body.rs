use std::{
    fmt,
    future::poll_fn,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use bytes::Buf;
use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;

use super::layer::DrainTasks;
use crate::request::RequestContext;

pin_project! {
    /// Response body of [`Drain`](super::Drain): the inner service's. If it is dropped before its end, a
    /// task reads the rest.
    pub struct DrainBody<B> {
        #[pin]
        plain: Option<B>,
        drained: Option<Drained<B>>,
        seen: u64,
    }
}

/// A body whose rest a task reads when it is dropped.
struct Drained<B> {
    body: Option<Pin<Box<B>>>,
    unread: Option<Unread>,
    /// Captured where the bounds of a task are known, so that the struct needs none.
    drain: fn(Pin<Box<B>>, Unread),
}

/// What it takes to drain a body that was not read to its end.
pub(super) struct Unread {
    pub(super) context: RequestContext,
    pub(super) tasks: Arc<DrainTasks>,
    /// Length of the body, if it is known.
    pub(super) expected: Option<u64>,
}

impl<B> Drop for Drained<B> {
    fn drop(&mut self) {
        if let (Some(body), Some(unread)) = (self.body.take(), self.unread.take()) {
            (self.drain)(body, unread);
        }
    }
}

fn spawn_drain<B>(body: Pin<Box<B>>, unread: Unread)
where
    B: Body<Data: Send, Error: Send> + Send + 'static,
{
    if !body.is_end_stream() {
        unread.context.set_abandoned();
        let max_bytes = unread.tasks.limits.max_bytes;
        unread.tasks.spawn(drain(body, max_bytes));
    }
}

/// Reads a body to its end, or until it exceeds `max_bytes`.
pub(super) async fn drain<B: Body>(mut body: Pin<Box<B>>, max_bytes: u64) {
    let mut read = 0;
    while let Some(Ok(frame)) = poll_fn(|cx| body.as_mut().poll_frame(cx)).await {
        read += frame.data_ref().map_or(0, |data| data.remaining() as u64);
        if read > max_bytes {
            return;
        }
    }
}

impl<B> DrainBody<B> {
    pub(super) fn plain(body: B) -> Self {
        Self { plain: Some(body), drained: None, seen: 0 }
    }

    pub(super) fn drained(body: B, unread: Unread) -> Self
    where
        B: Body<Data: Send, Error: Send> + Send + 'static,
    {
        let is_over = body.is_end_stream() || unread.expected == Some(0);
        let unread = (!is_over).then_some(unread);
        let drained = Drained { body: Some(Box::pin(body)), unread, drain: spawn_drain };
        Self { plain: None, drained: Some(drained), seen: 0 }
    }

    fn inner(&self) -> Option<&B> {
        let drained = self.drained.as_ref().and_then(|drained| drained.body.as_deref());
        drained.or(self.plain.as_ref())
    }
}

impl<B: Default> Default for DrainBody<B> {
    fn default() -> Self {
        Self::plain(B::default())
    }
}

impl<B: Body> Body for DrainBody<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        let this = self.project();
        if let Some(plain) = this.plain.as_pin_mut() {
            return plain.poll_frame(cx);
        }
        let Some(Drained { body: Some(body), unread, .. }) = this.drained else {
            return Poll::Ready(None);
        };
        let frame = ready!(body.as_mut().poll_frame(cx));
        let is_over = match &frame {
            Some(Ok(frame)) => {
                *this.seen += frame.data_ref().map_or(0, |data| data.remaining() as u64);
                let expected = unread.as_ref().and_then(|unread| unread.expected);
                frame.is_trailers() || expected.is_some_and(|expected| *this.seen >= expected)
            }
            _ => true,
        };
        if is_over {
            *unread = None;
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.inner().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.inner().map_or_else(SizeHint::default, Body::size_hint)
    }
}

impl<B> fmt::Debug for DrainBody<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("DrainBody")
    }
}
