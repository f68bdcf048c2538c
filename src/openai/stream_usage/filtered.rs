use std::{
    collections::VecDeque,
    fmt,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::{Buf, Bytes};
use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;

use super::filter::EventFilter;

pin_project! {
    /// Response body of [`HideUsage`](super::HideUsage): the inner service's, without usage events if these
    /// are hidden.
    pub struct FilteredBody<B>
    where
        B: Body,
    {
        #[pin]
        inner: B,
        // Boxed, as few responses need it and bodies are moved often.
        filtering: Option<Box<Filtering<B::Data, B::Error>>>,
    }
}

struct Filtering<D, E> {
    filter: EventFilter,
    /// What passes next.
    out: VecDeque<Bytes>,
    /// Trailers or an error, which pass after that.
    last: Option<Result<Frame<D>, E>>,
    is_over: bool,
}

impl<B: Body> FilteredBody<B> {
    pub(super) fn unfiltered(inner: B) -> Self {
        Self { inner, filtering: None }
    }

    pub(super) fn filtered(inner: B) -> Self {
        let filtering = Filtering {
            filter: EventFilter::default(),
            out: VecDeque::new(),
            last: None,
            is_over: false,
        };
        Self { inner, filtering: Some(Box::new(filtering)) }
    }
}

impl<B: Body + Default> Default for FilteredBody<B> {
    fn default() -> Self {
        Self::unfiltered(B::default())
    }
}

impl<D, E> Filtering<D, E>
where
    D: Buf + From<Bytes>,
{
    /// Filters a frame of the inner body.
    fn push(&mut self, frame: Option<Result<Frame<D>, E>>) {
        match frame.map(|frame| frame.map(Frame::into_data)) {
            Some(Ok(Ok(mut data))) => {
                let chunk = data.copy_to_bytes(data.remaining());
                return self.filter.push(chunk, &mut self.out);
            }
            Some(Ok(Err(trailers))) => self.last = Some(Ok(trailers)),
            Some(Err(error)) => self.last = Some(Err(error)),
            None => self.is_over = true,
        }
        self.filter.finish(&mut self.out);
    }

    /// Returns the next frame that passes, if there is one yet.
    fn next(&mut self) -> Option<Result<Frame<D>, E>> {
        match self.out.pop_front() {
            Some(chunk) => Some(Ok(Frame::data(chunk.into()))),
            None => self.last.take(),
        }
    }
}

impl<B> Body for FilteredBody<B>
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
        let Some(filtering) = this.filtering else { return this.inner.poll_frame(cx) };
        loop {
            if let Some(frame) = filtering.next() {
                return Poll::Ready(Some(frame));
            }
            if filtering.is_over {
                return Poll::Ready(None);
            }
            filtering.push(ready!(this.inner.as_mut().poll_frame(cx)));
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.filtering {
            None => self.inner.is_end_stream(),
            Some(filtering) => {
                filtering.out.is_empty()
                    && filtering.last.is_none()
                    && filtering.filter.held() == 0
                    && (filtering.is_over || self.inner.is_end_stream())
            }
        }
    }

    fn size_hint(&self) -> SizeHint {
        let inner = self.inner.size_hint();
        let Some(filtering) = &self.filtering else { return inner };
        // All may be removed, so only the upper bound is known.
        let mut hint = SizeHint::new();
        if let Some(upper) = inner.upper() {
            let ready: usize = filtering.out.iter().map(Bytes::len).sum();
            hint.set_upper(upper.saturating_add((ready + filtering.filter.held()) as u64));
        }
        hint
    }
}

impl<B: Body + fmt::Debug> fmt::Debug for FilteredBody<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FilteredBody").field("inner", &self.inner).finish_non_exhaustive()
    }
}
