use std::{
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::Buf;
use http::{Method, header, response::Parts};
use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;

/// How a body ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum BodyEnd {
    /// The whole body was read.
    Complete,
    /// The inner body ended with an error.
    Failed,
    /// The body was dropped before its end: the client disconnected.
    Abandoned,
}

/// Observes the frames of a body and, exactly once, how the body ended.
pub trait BodyObserver {
    /// Called with the data of each frame before the frame is returned to the reader.
    fn data(&mut self, data: &impl Buf) {
        let _ = data;
    }

    /// Called once, on the last frame or on drop. Must not block.
    fn end(self, end: BodyEnd);
}

pin_project! {
    /// A body whose end is reported to an observer. Frames, trailers, errors and size hints are
    /// those of the inner body.
    ///
    /// hyper's HTTP/1 server drops a body as soon as the declared `Content-Length` is written, and
    /// never polls one for `HEAD`, 204 or 304. A drop alone does not prove that the client
    /// disconnected: a body that has returned at least the [`expected_length`] is complete.
    // The bound is that of the drop.
    #[derive(Debug)]
    pub struct ObservedBody<B, O>
    where
        O: BodyObserver,
    {
        #[pin]
        inner: B,
        observer: Option<O>,
        expected: Option<u64>,
        read: u64,
    }

    impl<B, O> PinnedDrop for ObservedBody<B, O>
    where
        O: BodyObserver,
    {
        fn drop(this: Pin<&mut Self>) {
            let this = this.project();
            if let Some(observer) = this.observer.take() {
                observer.end(BodyEnd::Abandoned);
            }
        }
    }
}

impl<B, O: BodyObserver> ObservedBody<B, O> {
    /// Observes `inner`, which is complete after `expected` bytes if its length is known.
    pub fn new(inner: B, observer: O, expected: Option<u64>) -> Self
    where
        B: Body,
    {
        let is_complete = inner.is_end_stream() || expected == Some(0);
        let mut body = Self { inner, observer: Some(observer), expected, read: 0 };
        if is_complete && let Some(observer) = body.observer.take() {
            observer.end(BodyEnd::Complete);
        }
        body
    }

    /// Wraps `inner` without an observer.
    pub fn unobserved(inner: B) -> Self {
        Self { inner, observer: None, expected: None, read: 0 }
    }
}

impl<B: Default, O: BodyObserver> Default for ObservedBody<B, O> {
    fn default() -> Self {
        Self::unobserved(B::default())
    }
}

/// Returns the number of body bytes that a response to `method` with this head has on the wire, if
/// the head declares it (RFC 9112, section 6.3).
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
    O: BodyObserver,
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
                    *this.read += data.remaining() as u64;
                    observer.data(data);
                }
                let is_complete = frame.is_trailers()
                    || this.inner.is_end_stream()
                    || this.expected.is_some_and(|expected| *this.read >= expected);
                is_complete.then_some(BodyEnd::Complete)
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
