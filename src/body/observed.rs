use std::{
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::Buf;
use http::{Method, header, response::Parts};
use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;

/// How a response body ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum BodyEnd {
    /// All of it was handed on.
    Complete,
    /// The inner body ended with an error.
    Failed,
    /// It was dropped before its end: the client left.
    Abandoned,
}

/// Watches a body go by and learns, exactly once, how it ended.
pub trait BodyObserver<D> {
    /// A data frame is about to be handed on.
    fn data(&mut self, data: &D) {
        let _ = data;
    }

    /// The body ended. Called once, on the last frame or on drop; must not block.
    fn end(self, end: BodyEnd);
}

pin_project! {
    /// A body whose end is reported to an observer; frames, trailers, errors and hints pass
    /// through untouched.
    ///
    /// hyper's HTTP/1 server drops a body as soon as the declared `Content-Length` is written, and
    /// never polls one for `HEAD`, 204 or 304. So a drop is no proof of an abandoned answer: one
    /// that has handed on at least the [`expected_length`] is complete.
    #[derive(Debug)]
    pub struct ObservedBody<B, O>
    where
        B: Body,
        O: BodyObserver<B::Data>,
    {
        #[pin]
        inner: B,
        observer: Option<O>,
        expected: Option<u64>,
        seen: u64,
    }

    impl<B, O> PinnedDrop for ObservedBody<B, O>
    where
        B: Body,
        O: BodyObserver<B::Data>,
    {
        fn drop(this: Pin<&mut Self>) {
            let this = this.project();
            if let Some(observer) = this.observer.take() {
                observer.end(BodyEnd::Abandoned);
            }
        }
    }
}

impl<B, O> ObservedBody<B, O>
where
    B: Body,
    O: BodyObserver<B::Data>,
{
    /// Observes `inner`, of which `expected` bytes are to be handed on if that is known.
    pub fn new(inner: B, observer: O, expected: Option<u64>) -> Self {
        let over = inner.is_end_stream() || expected == Some(0);
        let mut body = Self { inner, observer: Some(observer), expected, seen: 0 };
        if over && let Some(observer) = body.observer.take() {
            observer.end(BodyEnd::Complete);
        }
        body
    }

    /// A body without an observer.
    pub fn unobserved(inner: B) -> Self {
        Self { inner, observer: None, expected: None, seen: 0 }
    }
}

impl<B, O> Default for ObservedBody<B, O>
where
    B: Body + Default,
    O: BodyObserver<B::Data>,
{
    fn default() -> Self {
        Self::unobserved(B::default())
    }
}

/// How many body bytes an answer to `method` with this head puts on the wire, if the head tells
/// (RFC 9112, section 6.3).
pub fn expected_length(method: &Method, head: &Parts) -> Option<u64> {
    let status = head.status;
    if method == Method::HEAD || status.is_informational() || matches!(status.as_u16(), 204 | 304) {
        return Some(0);
    }
    head.headers.get(header::CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

impl<B, O> Body for ObservedBody<B, O>
where
    B: Body,
    O: BodyObserver<B::Data>,
{
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        let mut this = self.project();
        let frame = ready!(this.inner.as_mut().poll_frame(cx));
        let end = match &frame {
            None => Some(BodyEnd::Complete),
            Some(Err(_)) => Some(BodyEnd::Failed),
            Some(Ok(frame)) => {
                if let (Some(data), Some(observer)) = (frame.data_ref(), this.observer.as_mut()) {
                    *this.seen += data.remaining() as u64;
                    observer.data(data);
                }
                let over = frame.is_trailers()
                    || this.inner.is_end_stream()
                    || this.expected.is_some_and(|expected| *this.seen >= expected);
                over.then_some(BodyEnd::Complete)
            }
        };
        if let Some(end) = end
            && let Some(observer) = this.observer.take()
        {
            observer.end(end);
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}
