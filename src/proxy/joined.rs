use std::{
    fmt,
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

use super::error::BoxError;
use crate::body::with_read;

/// The most that is held to be handed on together.
const MOST: usize = 16 * 1024;
/// How often the task of an upstream connection gets its turn before what is held is handed on. It
/// needs two: one to learn that there is room for a frame, one to fill it.
const TURNS: u8 = 2;
/// How long a server gets to send what it has, the head included, before the body fails: what it has
/// not sent by then, it drops.
const GRACE: Duration = Duration::from_millis(10);

pin_project! {
    /// A body that hands on together what is there together, so that the server writes it at once.
    ///
    /// It never waits for a frame: when the body's task has got its turn again and nothing more has
    /// come, what is there goes on. A frame that comes alone passes untouched.
    pub(super) struct Joined<B, D> {
        #[pin]
        inner: B,
        held: Held<D>,
        turns: u8,
        next: Next<D>,
        grace: Option<Pin<Box<Sleep>>>,
    }
}

/// Data that waits to be handed on.
enum Held<D> {
    Nothing,
    One(D),
    Several(BytesMut),
}

/// What comes after the held data.
enum Next<D> {
    Unknown,
    Known(Option<Result<Frame<D>, BoxError>>),
}

impl<B, D> Joined<B, D> {
    pub(super) fn new(inner: B) -> Self {
        Self { inner, held: Held::Nothing, turns: 0, next: Next::Unknown, grace: None }
    }
}

impl<D: Buf> Held<D> {
    fn len(&self) -> usize {
        match self {
            Self::Nothing => 0,
            Self::One(data) => data.remaining(),
            Self::Several(data) => data.len(),
        }
    }

    fn has_room_for(&self, data: &D) -> bool {
        matches!(self, Self::Nothing) || self.len() + data.remaining() <= MOST
    }

    fn push(&mut self, data: D) {
        *self = match mem::replace(self, Self::Nothing) {
            Self::Nothing => Self::One(data),
            Self::One(first) => {
                let mut both = BytesMut::with_capacity(first.remaining() + data.remaining());
                both.put(first);
                both.put(data);
                Self::Several(both)
            }
            Self::Several(mut all) => {
                all.put(data);
                Self::Several(all)
            }
        };
    }
}

impl<D: Buf + From<Bytes>> Held<D> {
    fn take(&mut self) -> Option<D> {
        match mem::replace(self, Self::Nothing) {
            Self::Nothing => None,
            Self::One(data) => Some(data),
            Self::Several(data) => Some(data.freeze().into()),
        }
    }
}

impl<B, D> Body for Joined<B, D>
where
    B: Body<Data = D, Error = BoxError>,
    D: Buf + From<Bytes>,
{
    type Data = D;
    type Error = BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<D>, BoxError>>> {
        let mut this = self.project();
        while let Next::Unknown = this.next {
            match this.inner.as_mut().poll_frame(cx) {
                Poll::Ready(Some(Ok(frame))) => match frame.into_data() {
                    Ok(data) if this.held.has_room_for(&data) => {
                        this.held.push(data);
                        *this.turns = TURNS;
                        if this.inner.is_end_stream() {
                            return Poll::Ready(this.held.take().map(|data| Ok(Frame::data(data))));
                        }
                    }
                    Ok(data) => *this.next = Next::Known(Some(Ok(Frame::data(data)))),
                    Err(trailers) => *this.next = Next::Known(Some(Ok(trailers))),
                },
                Poll::Ready(Some(Err(error))) => {
                    *this.next = Next::Known(Some(Err(error)));
                    *this.grace = Some(Box::pin(sleep(GRACE)));
                }
                Poll::Ready(None) => *this.next = Next::Known(None),
                Poll::Pending if matches!(this.held, Held::Nothing) => return Poll::Pending,
                Poll::Pending if take_turn(this.turns, cx) => return Poll::Pending,
                Poll::Pending => break,
            }
        }
        if let Some(data) = this.held.take() {
            return Poll::Ready(Some(Ok(Frame::data(data))));
        }
        if let Some(grace) = this.grace {
            ready!(grace.as_mut().poll(cx));
            *this.grace = None;
        }
        match mem::replace(this.next, Next::Unknown) {
            Next::Known(next) => Poll::Ready(next),
            Next::Unknown => Poll::Pending,
        }
    }

    fn is_end_stream(&self) -> bool {
        match (&self.held, &self.next) {
            (Held::Nothing, Next::Unknown) => self.inner.is_end_stream(),
            (Held::Nothing, Next::Known(next)) => next.is_none(),
            _ => false,
        }
    }

    fn size_hint(&self) -> SizeHint {
        let waiting = match &self.next {
            Next::Known(Some(Ok(frame))) => frame.data_ref().map_or(0, Buf::remaining),
            _ => 0,
        };
        with_read(&self.inner.size_hint(), self.held.len() + waiting)
    }
}

/// Has the task polled again once others had their turn, if one is left.
fn take_turn(turns: &mut u8, cx: &Context<'_>) -> bool {
    let left = *turns > 0;
    if left {
        *turns -= 1;
        cx.waker().wake_by_ref();
    }
    left
}

impl<B: fmt::Debug, D> fmt::Debug for Joined<B, D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Joined").field("inner", &self.inner).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use http::HeaderMap;
    use http_body_util::BodyExt;

    use super::*;

    /// Says these things one after another; `None` is a turn in which there is nothing.
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

    /// The pieces in which a script's data comes out, and how it ends.
    async fn pieces(script: Vec<Option<Result<Frame<Bytes>, BoxError>>>) -> Vec<String> {
        let mut body = Joined::new(Script(script.into()));
        let mut pieces = Vec::new();
        while let Some(frame) = body.frame().await {
            pieces.push(match frame.map(Frame::into_data) {
                Ok(Ok(data)) => String::from_utf8(data.to_vec()).unwrap(),
                Ok(Err(_)) => "trailers".to_owned(),
                Err(error) => error.to_string(),
            });
        }
        pieces
    }

    #[tokio::test]
    async fn frames_that_are_there_together_leave_together() {
        let script = vec![data("a"), data("b"), None, None, data("c"), None, None, None, data("d")];
        assert_eq!(pieces(script).await, ["abc", "d"]);
    }

    #[tokio::test]
    async fn a_lone_frame_is_not_copied() {
        let frame = Bytes::from_static(b"alone");
        let script = vec![Some(Ok(Frame::data(frame.clone()))), None, None, None];
        let mut body = Joined::new(Script(script.into()));
        let data = body.frame().await.unwrap().unwrap().into_data().unwrap();
        assert_eq!(data.as_ptr(), frame.as_ptr());
    }

    #[tokio::test]
    async fn what_comes_after_the_data_stays_after_it() {
        let trailers = Some(Ok(Frame::trailers(HeaderMap::new())));
        assert_eq!(pieces(vec![data("a"), data("b"), trailers]).await, ["ab", "trailers"]);
        let error = Some(Err("broken".into()));
        assert_eq!(pieces(vec![data("a"), data("b"), error]).await, ["ab", "broken"]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_failure_comes_when_what_was_before_it_is_sent() {
        let start = tokio::time::Instant::now();
        let mut body = Joined::new(Script(vec![data("a"), Some(Err("broken".into()))].into()));
        assert!(body.frame().await.unwrap().is_ok());
        assert!(start.elapsed() < GRACE);
        assert!(body.frame().await.unwrap().is_err());
        assert!(start.elapsed() >= GRACE);
    }

    #[tokio::test]
    async fn a_frame_that_waits_is_in_the_hint() {
        let large: &'static str = "x".repeat(MOST).leak();
        let mut body = Joined::new(Script(vec![data(large), data("waits")].into()));
        body.frame().await.unwrap().unwrap();
        assert_eq!(body.size_hint().lower(), 5);
    }

    #[tokio::test]
    async fn no_more_is_held_than_fits() {
        let large: &'static str = "x".repeat(MOST - 1).leak();
        let lengths = pieces(vec![data(large), data("a"), data("b"), data("c")]).await;
        assert_eq!(lengths.iter().map(String::len).collect::<Vec<_>>(), [MOST, 1, 1]);
    }
}
