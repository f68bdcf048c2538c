use std::{
    collections::VecDeque,
    fmt,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::{Buf, Bytes};
use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;

use super::events::EventFilter;

pin_project! {
    /// A response's body: as it came, or without the usage events.
    pub struct HiddenBody<B>
    where
        B: Body,
    {
        #[pin]
        inner: B,
        // Boxed, as few answers need it and bodies are moved about a good deal.
        hiding: Option<Box<Hiding<B::Data, B::Error>>>,
    }
}

struct Hiding<D, E> {
    filter: EventFilter,
    /// What goes on next.
    out: VecDeque<Bytes>,
    /// What comes after that.
    last: Option<Result<Frame<D>, E>>,
    is_over: bool,
}

impl<B: Body> HiddenBody<B> {
    pub(super) fn passed(inner: B) -> Self {
        Self { inner, hiding: None }
    }

    pub(super) fn hiding(inner: B) -> Self {
        let hiding = Hiding {
            filter: EventFilter::default(),
            out: VecDeque::new(),
            last: None,
            is_over: false,
        };
        Self { inner, hiding: Some(Box::new(hiding)) }
    }
}

impl<B: Body + Default> Default for HiddenBody<B> {
    fn default() -> Self {
        Self::passed(B::default())
    }
}

impl<D, E> Hiding<D, E>
where
    D: Buf + From<Bytes>,
{
    /// Takes what the inner body said.
    fn take(&mut self, frame: Option<Result<Frame<D>, E>>) {
        match frame.map(|frame| frame.map(Frame::into_data)) {
            Some(Ok(Ok(mut data))) => {
                let piece = data.copy_to_bytes(data.remaining());
                return self.filter.push(piece, &mut self.out);
            }
            Some(Ok(Err(trailers))) => self.last = Some(Ok(trailers)),
            Some(Err(error)) => self.last = Some(Err(error)),
            None => self.is_over = true,
        }
        self.filter.finish(&mut self.out);
    }

    /// What is there to go on.
    fn next(&mut self) -> Option<Result<Frame<D>, E>> {
        match self.out.pop_front() {
            Some(piece) => Some(Ok(Frame::data(piece.into()))),
            None => self.last.take(),
        }
    }
}

impl<B> Body for HiddenBody<B>
where
    B: Body,
    B::Data: From<Bytes>,
{
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        let mut this = self.project();
        let Some(hiding) = this.hiding else { return this.inner.poll_frame(cx) };
        loop {
            if let Some(frame) = hiding.next() {
                return Poll::Ready(Some(frame));
            }
            if hiding.is_over {
                return Poll::Ready(None);
            }
            hiding.take(ready!(this.inner.as_mut().poll_frame(cx)));
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.hiding {
            None => self.inner.is_end_stream(),
            Some(hiding) => {
                hiding.out.is_empty()
                    && hiding.last.is_none()
                    && hiding.filter.held() == 0
                    && (hiding.is_over || self.inner.is_end_stream())
            }
        }
    }

    fn size_hint(&self) -> SizeHint {
        let inner = self.inner.size_hint();
        let Some(hiding) = &self.hiding else { return inner };
        // All may be taken out, so the length is never known before it is 0.
        let mut hint = SizeHint::new();
        if let Some(upper) = inner.upper() {
            let ready: usize = hiding.out.iter().map(Bytes::len).sum();
            hint.set_upper(upper.saturating_add((ready + hiding.filter.held()) as u64));
        }
        hint
    }
}

impl<B: Body + fmt::Debug> fmt::Debug for HiddenBody<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HiddenBody").field("inner", &self.inner).finish_non_exhaustive()
    }
}
