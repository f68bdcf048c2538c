use std::{
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::Buf;
use http::{HeaderMap, Method, header, response::Parts};
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

    /// Called with the trailers, the last frame of a body that has some, before [`end`](Self::end).
    fn trailers(&mut self, trailers: &HeaderMap) {
        let _ = trailers;
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
    ///
    /// If the body is dropped before its end, the inner body is dropped first: what its observers do is done
    /// when this one's is called.
    // The bound is that of the drop.
    #[derive(Debug)]
    pub struct ObservedBody<B, O>
    where
        O: BodyObserver,
    {
        #[pin]
        inner: B,
        // Dropped after the inner body, which may have an observer of its own.
        observer: Observer<O>,
        detector: EndDetector,
    }
}

/// The observer of a body that has not ended yet.
#[derive(Debug)]
struct Observer<O: BodyObserver>(Option<O>);

impl<O: BodyObserver> Observer<O> {
    fn end(&mut self, end: BodyEnd) {
        if let Some(observer) = self.0.take() {
            observer.end(end);
        }
    }
}

impl<O: BodyObserver> Drop for Observer<O> {
    fn drop(&mut self) {
        self.end(BodyEnd::Abandoned);
    }
}

/// Detects the end of a body by its frames.
#[derive(Debug)]
pub(crate) struct EndDetector {
    expected: Option<u64>,
    read: u64,
}

impl EndDetector {
    /// Returns the number of bytes that were read.
    #[cfg(feature = "quota")]
    pub(crate) fn bytes(&self) -> u64 {
        self.read
    }

    /// Creates a detector for a body that is complete after `expected` bytes, if its length is known.
    pub(crate) fn new(expected: Option<u64>) -> Self {
        Self { expected, read: 0 }
    }

    /// Returns whether nothing more is expected of `body`.
    pub(crate) fn is_complete(&self, body: &impl Body) -> bool {
        body.is_end_stream() || self.expected.is_some_and(|expected| self.read >= expected)
    }

    /// Returns how `body` has ended, if this is its last frame.
    pub(crate) fn end<B: Body>(
        &mut self,
        frame: &Option<Result<Frame<B::Data>, B::Error>>,
        body: &B,
    ) -> Option<BodyEnd> {
        match frame {
            None => Some(BodyEnd::Complete),
            Some(Err(_)) => Some(BodyEnd::Failed),
            Some(Ok(frame)) => {
                self.read += frame.data_ref().map_or(0, |data| data.remaining() as u64);
                let is_complete = frame.is_trailers() || self.is_complete(body);
                is_complete.then_some(BodyEnd::Complete)
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
        let detector = EndDetector::new(expected);
        let is_complete = detector.is_complete(&inner);
        let mut body = Self { inner, observer: Observer(Some(observer)), detector };
        if is_complete {
            body.observer.end(BodyEnd::Complete);
        }
        body
    }

    /// Wraps `inner` without an observer.
    pub fn unobserved(inner: B) -> Self {
        Self { inner, observer: Observer(None), detector: EndDetector::new(None) }
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
    // Few headers are compared faster than the name is hashed.
    let (_, length) = head.headers.iter().find(|(name, _)| *name == header::CONTENT_LENGTH)?;
    length.to_str().ok()?.parse().ok()
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
        if let (Some(Ok(frame)), Some(observer)) = (&frame, &mut this.observer.0) {
            if let Some(data) = frame.data_ref() {
                observer.data(data);
            } else if let Some(trailers) = frame.trailers_ref() {
                observer.trailers(trailers);
            }
        }
        if let Some(end) = this.detector.end(&frame, &*this.inner) {
            this.observer.end(end);
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
