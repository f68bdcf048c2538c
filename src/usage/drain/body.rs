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
    /// Response body of [`Drain`](super::Drain): the inner service's. If it is dropped before its end, a task
    /// reads it on.
    pub struct DrainBody<B>
    where
        B: Body,
        B: Send,
        B: 'static,
        B::Data: Send,
        B::Error: Send,
    {
        #[pin]
        plain: Option<B>,
        drained: Option<Pin<Box<B>>>,
        unread: Option<Unread>,
        seen: u64,
    }

    impl<B> PinnedDrop for DrainBody<B>
    where
        B: Body,
        B: Send,
        B: 'static,
        B::Data: Send,
        B::Error: Send,
    {
        fn drop(this: Pin<&mut Self>) {
            let this = this.project();
            if let (Some(body), Some(unread)) = (this.drained.take(), this.unread.take())
                && !body.is_end_stream()
            {
                unread.context.set_abandoned();
                let max_bytes = unread.tasks.limits.max_bytes;
                unread.tasks.spawn(drain(body, max_bytes));
            }
        }
    }
}

/// What it takes to drain a body that was not read to its end.
pub(super) struct Unread {
    pub(super) context: RequestContext,
    pub(super) tasks: Arc<DrainTasks>,
    /// Length of the body, if it is known.
    pub(super) expected: Option<u64>,
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

impl<B> DrainBody<B>
where
    B: Body<Data: Send, Error: Send> + Send + 'static,
{
    pub(super) fn plain(body: B) -> Self {
        Self { plain: Some(body), drained: None, unread: None, seen: 0 }
    }

    pub(super) fn drained(body: B, unread: Unread) -> Self {
        let is_over = body.is_end_stream() || unread.expected == Some(0);
        let unread = (!is_over).then_some(unread);
        Self { plain: None, drained: Some(Box::pin(body)), unread, seen: 0 }
    }

    fn inner(&self) -> Option<&B> {
        self.drained.as_deref().or(self.plain.as_ref())
    }
}

impl<B> Default for DrainBody<B>
where
    B: Body<Data: Send, Error: Send> + Default + Send + 'static,
{
    fn default() -> Self {
        Self::plain(B::default())
    }
}

impl<B> Body for DrainBody<B>
where
    B: Body<Data: Send, Error: Send> + Send + 'static,
{
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
        let Some(body) = this.drained else { return Poll::Ready(None) };
        let frame = ready!(body.as_mut().poll_frame(cx));
        let is_over = match &frame {
            Some(Ok(frame)) => {
                *this.seen += frame.data_ref().map_or(0, |data| data.remaining() as u64);
                let expected = this.unread.as_ref().and_then(|unread| unread.expected);
                frame.is_trailers() || expected.is_some_and(|expected| *this.seen >= expected)
            }
            _ => true,
        };
        if is_over {
            *this.unread = None;
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

impl<B> fmt::Debug for DrainBody<B>
where
    B: Body<Data: Send, Error: Send> + Send + 'static,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("DrainBody")
    }
}
