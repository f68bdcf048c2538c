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

use super::layer::Drains;
use crate::request::RequestContext;

pin_project! {
    /// An answer's body, passed on untouched. Dropped before its end, it is read on for a while.
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
        rest: Option<Rest>,
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
            if let (Some(body), Some(rest)) = (this.drained.take(), this.rest.take())
                && !body.is_end_stream()
            {
                rest.context.set_abandoned();
                let most = rest.drains.limits.bytes;
                rest.drains.go_on(read_on(body, most));
            }
        }
    }
}

/// What is to be known when nobody reads a body on.
pub(super) struct Rest {
    pub(super) context: RequestContext,
    pub(super) drains: Arc<Drains>,
    /// How long the body is, if that is known.
    pub(super) expected: Option<u64>,
}

/// Reads a body, and so many bytes of it at most.
pub(super) async fn read_on<B: Body>(mut body: Pin<Box<B>>, most: u64) {
    let mut read = 0;
    while let Some(Ok(frame)) = poll_fn(|cx| body.as_mut().poll_frame(cx)).await {
        read += frame.data_ref().map_or(0, |data| data.remaining() as u64);
        if read > most {
            return;
        }
    }
}

impl<B> DrainBody<B>
where
    B: Body<Data: Send, Error: Send> + Send + 'static,
{
    pub(super) fn plain(body: B) -> Self {
        Self { plain: Some(body), drained: None, rest: None, seen: 0 }
    }

    pub(super) fn drained(body: B, rest: Rest) -> Self {
        let is_over = body.is_end_stream() || rest.expected == Some(0);
        let rest = (!is_over).then_some(rest);
        Self { plain: None, drained: Some(Box::pin(body)), rest, seen: 0 }
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
                let expected = this.rest.as_ref().and_then(|rest| rest.expected);
                frame.is_trailers() || expected.is_some_and(|expected| *this.seen >= expected)
            }
            _ => true,
        };
        if is_over {
            *this.rest = None;
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
