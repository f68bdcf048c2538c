use std::{
    future::Future,
    mem,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::{Buf, BufMut, Bytes, BytesMut};
use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;
use tokio::time::{Sleep, sleep};

use crate::{body::with_read, proxy::error::BoxError};

/// Maximum number of bytes that are merged into one frame.
const MAX_MERGED: usize = 16 * 1024;
/// Number of times that the task yields to the upstream connection's task before buffered data is
/// returned. That task needs two polls: one to notice the free capacity, one to send a frame.
const YIELDS: u8 = 2;

/// Delay before an error is returned, in which the server sends what it has buffered, the head
/// included. It drops the rest when the body fails.
const ERROR_DELAY: Duration = Duration::from_millis(10);

/// In the extensions of a response whose connection has no task: its body reads the connection when it is polled, so
/// that to yield would bring nothing.
#[derive(Clone, Copy)]
pub(in crate::proxy) struct ReadsConnection;

pin_project! {
    /// A body that merges frames that are ready together, so that the server writes them at once.
    ///
    /// It never waits for a frame: once it has yielded and no further frame is ready, it returns what
    /// is buffered. A single frame is returned as it is.
    pub(super) struct CoalescedBody<B> {
        #[pin]
        inner: B,
        buffer: Buffer,
        yields: u8,
        yields_left: u8,
        next: Next,
        error_delay: Option<Pin<Box<Sleep>>>,
    }
}

/// Data that has not been returned yet.
enum Buffer {
    Empty,
    Single(Bytes),
    Merged(BytesMut),
}

/// The result that follows the buffered data.
enum Next {
    Unknown,
    Known(Option<Result<Frame<Bytes>, BoxError>>),
}

impl<B> CoalescedBody<B> {
    /// Merges the frames of `inner`, which may have [`ReadsConnection`].
    pub(super) fn new(inner: B, reads: Option<ReadsConnection>) -> Self {
        Self {
            inner,
            buffer: Buffer::Empty,
            yields: if reads.is_some() { 0 } else { YIELDS },
            yields_left: 0,
            next: Next::Unknown,
            error_delay: None,
        }
    }
}

impl Buffer {
    fn len(&self) -> usize {
        match self {
            Self::Empty => 0,
            Self::Single(data) => data.len(),
            Self::Merged(data) => data.len(),
        }
    }

    fn can_merge(&self, data: &Bytes) -> bool {
        matches!(self, Self::Empty) || self.len() + data.len() <= MAX_MERGED
    }

    fn push(&mut self, data: Bytes) {
        *self = match mem::replace(self, Self::Empty) {
            Self::Empty => Self::Single(data),
            Self::Single(first) => {
                let mut merged = BytesMut::with_capacity(first.len() + data.len());
                merged.put(first);
                merged.put(data);
                Self::Merged(merged)
            }
            Self::Merged(mut merged) => {
                merged.put(data);
                Self::Merged(merged)
            }
        };
    }

    fn take(&mut self) -> Option<Bytes> {
        match mem::replace(self, Self::Empty) {
            Self::Empty => None,
            Self::Single(data) => Some(data),
            Self::Merged(data) => Some(data.freeze()),
        }
    }
}

impl<B: Body<Error = BoxError>> CoalescedBody<B> {
    fn poll_merged(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let mut this = self.project();
        while let Next::Unknown = this.next {
            match this.inner.as_mut().poll_frame(cx) {
                Poll::Ready(Some(Ok(frame))) => match frame.map_data(into_bytes).into_data() {
                    Ok(data) if this.buffer.can_merge(&data) => {
                        this.buffer.push(data);
                        *this.yields_left = *this.yields;
                        if this.inner.is_end_stream() {
                            return Poll::Ready(
                                this.buffer.take().map(|data| Ok(Frame::data(data))),
                            );
                        }
                    }
                    Ok(data) => *this.next = Next::Known(Some(Ok(Frame::data(data)))),
                    Err(trailers) => *this.next = Next::Known(Some(Ok(trailers))),
                },
                Poll::Ready(Some(Err(error))) => {
                    *this.next = Next::Known(Some(Err(error)));
                    *this.error_delay = Some(Box::pin(sleep(ERROR_DELAY)));
                }
                Poll::Ready(None) => *this.next = Next::Known(None),
                Poll::Pending if matches!(this.buffer, Buffer::Empty) => return Poll::Pending,
                Poll::Pending if yield_now(this.yields_left, cx) => return Poll::Pending,
                Poll::Pending => break,
            }
        }
        if let Some(data) = this.buffer.take() {
            return Poll::Ready(Some(Ok(Frame::data(data))));
        }
        if let Some(delay) = this.error_delay {
            ready!(delay.as_mut().poll(cx));
            *this.error_delay = None;
        }
        match mem::replace(this.next, Next::Unknown) {
            Next::Known(next) => Poll::Ready(next),
            Next::Unknown => Poll::Pending,
        }
    }
}

/// Copies nothing if the data is [`Bytes`].
fn into_bytes(mut data: impl Buf) -> Bytes {
    data.copy_to_bytes(data.remaining())
}

impl<B> Body for CoalescedBody<B>
where
    B: Body<Error = BoxError>,
    B::Data: From<Bytes>,
{
    type Data = B::Data;
    type Error = BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, BoxError>>> {
        self.poll_merged(cx).map_ok(|frame| frame.map_data(Into::into))
    }

    fn is_end_stream(&self) -> bool {
        match (&self.buffer, &self.next) {
            (Buffer::Empty, Next::Unknown) => self.inner.is_end_stream(),
            (Buffer::Empty, Next::Known(next)) => next.is_none(),
            _ => false,
        }
    }

    fn size_hint(&self) -> SizeHint {
        let next_length = match &self.next {
            Next::Known(Some(Ok(frame))) => frame.data_ref().map_or(0, Buf::remaining),
            _ => 0,
        };
        with_read(&self.inner.size_hint(), self.buffer.len() + next_length)
    }
}

/// Has the task polled again after others, unless no yield is left.
fn yield_now(yields_left: &mut u8, cx: &Context<'_>) -> bool {
    let yields = *yields_left > 0;
    if yields {
        *yields_left -= 1;
        cx.waker().wake_by_ref();
    }
    yields
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use http::HeaderMap;
    use http_body_util::BodyExt;

    use super::*;

    /// A body of these frames; `None` is a poll in which none is ready.
    struct Script(VecDeque<Option<Result<Frame<Bytes>, BoxError>>>);

    impl Body for Script {
        type Data = Bytes;
        type Error = BoxError;

        fn poll_frame(
            mut self: Pin<&mut Self>,
            cx: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
            match self.0.pop_front() {
                Some(None) => {
                    cx.waker().wake_by_ref();
                    Poll::Pending
                }
                Some(frame) => Poll::Ready(frame),
                None => Poll::Ready(None),
            }
        }
    }

    fn data(text: &'static str) -> Option<Result<Frame<Bytes>, BoxError>> {
        Some(Ok(Frame::data(Bytes::from_static(text.as_bytes()))))
    }

    /// Returns the text of each frame of the coalesced body.
    async fn frames(script: Vec<Option<Result<Frame<Bytes>, BoxError>>>) -> Vec<String> {
        let mut body = CoalescedBody::new(Script(script.into()), None);
        let mut frames = Vec::new();
        while let Some(frame) = body.frame().await {
            frames.push(match frame.map(Frame::into_data) {
                Ok(Ok(data)) => String::from_utf8(data.to_vec()).unwrap(),
                Ok(Err(_)) => "trailers".to_owned(),
                Err(error) => error.to_string(),
            });
        }
        frames
    }

    #[tokio::test]
    async fn frames_that_are_ready_together_are_merged() {
        let script = vec![data("a"), data("b"), None, None, data("c"), None, None, None, data("d")];
        assert_eq!(frames(script).await, ["abc", "d"]);
    }

    #[tokio::test]
    async fn a_body_that_reads_its_connection_passes_what_is_ready_at_once() {
        let script = vec![
            data("a"),
            data("b"),
            None,
            data("c"),
            Some(Ok(Frame::trailers(HeaderMap::new()))),
        ];
        let mut body = CoalescedBody::new(Script(script.into()), Some(ReadsConnection));
        for expected in ["ab", "c"] {
            assert_eq!(body.frame().await.unwrap().unwrap().into_data().unwrap(), expected);
        }
        assert!(body.frame().await.unwrap().unwrap().is_trailers());
        assert!(body.frame().await.is_none());
    }

    #[tokio::test]
    async fn a_single_frame_is_not_copied() {
        let frame = Bytes::from_static(b"single");
        let script = vec![Some(Ok(Frame::data(frame.clone()))), None, None, None];
        let mut body = CoalescedBody::new(Script(script.into()), None);
        let data = body.frame().await.unwrap().unwrap().into_data().unwrap();
        assert_eq!(data.as_ptr(), frame.as_ptr());
    }

    #[tokio::test]
    async fn trailers_and_errors_follow_the_data() {
        let trailers = Some(Ok(Frame::trailers(HeaderMap::new())));
        assert_eq!(frames(vec![data("a"), data("b"), trailers]).await, ["ab", "trailers"]);
        let error = Some(Err("broken".into()));
        assert_eq!(frames(vec![data("a"), data("b"), error]).await, ["ab", "broken"]);
    }

    #[tokio::test(start_paused = true)]
    async fn an_error_is_delayed_until_the_data_is_sent() {
        let start = tokio::time::Instant::now();
        let mut body =
            CoalescedBody::new(Script(vec![data("a"), Some(Err("broken".into()))].into()), None);
        assert!(body.frame().await.unwrap().is_ok());
        assert!(start.elapsed() < ERROR_DELAY);
        assert!(body.frame().await.unwrap().is_err());
        assert!(start.elapsed() >= ERROR_DELAY);
    }

    #[tokio::test]
    async fn the_size_hint_includes_the_next_frame() {
        let large: &'static str = "x".repeat(MAX_MERGED).leak();
        let mut body = CoalescedBody::new(Script(vec![data(large), data("next!")].into()), None);
        body.frame().await.unwrap().unwrap();
        assert_eq!(body.size_hint().lower(), 5);
    }

    #[tokio::test]
    async fn no_more_than_the_maximum_is_merged() {
        let large: &'static str = "x".repeat(MAX_MERGED - 1).leak();
        let lengths = frames(vec![data(large), data("a"), data("b"), data("c")]).await;
        assert_eq!(lengths.iter().map(String::len).collect::<Vec<_>>(), [MAX_MERGED, 1, 1]);
    }
}
