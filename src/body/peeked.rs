use std::{
    fmt,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::Buf;
use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;

use super::with_read;

pin_project! {
    /// A body whose first frame may have been looked at before it is handed on.
    pub struct PeekedBody<B>
    where
        B: Body,
    {
        #[pin]
        inner: Inner<B>,
    }
}

pin_project! {
    #[project = InnerProj]
    enum Inner<B>
    where
        B: Body,
    {
        Unpolled { #[pin] body: B },
        // A body that was polled stays where it is.
        Polled { first: Option<Result<Frame<B::Data>, B::Error>>, rest: Pin<Box<B>> },
    }
}

impl<B: Body> PeekedBody<B> {
    /// A body that is only handed on.
    pub(crate) fn unpolled(body: B) -> Self {
        Self { inner: Inner::Unpolled { body } }
    }

    /// A body that can be looked at.
    pub(crate) fn peekable(body: B) -> Self {
        Self { inner: Inner::Polled { first: None, rest: Box::pin(body) } }
    }

    /// Ready once the first frame can be looked at; it is still handed on later.
    pub(crate) fn poll_first(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if let Inner::Polled { first: first @ None, rest } = &mut self.inner
            && !rest.is_end_stream()
        {
            *first = ready!(rest.as_mut().poll_frame(cx));
        }
        Poll::Ready(())
    }

    /// All data of a body of this length, if that was polled; it is still handed on later.
    pub(crate) fn whole(&self, length: u64) -> Option<Option<&B::Data>> {
        let Inner::Polled { first, rest } = &self.inner else { return None };
        match first {
            None => (length == 0 || rest.is_end_stream()).then_some(None),
            Some(Err(_)) => None,
            Some(Ok(frame)) => {
                let data = frame.data_ref()?;
                let over = rest.is_end_stream() || data.remaining() as u64 >= length;
                over.then_some(Some(data))
            }
        }
    }
}

impl<B: Body> Body for PeekedBody<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        match self.project().inner.project() {
            InnerProj::Unpolled { body } => body.poll_frame(cx),
            InnerProj::Polled { first, rest } => match first.take() {
                Some(first) => Poll::Ready(Some(first)),
                None => rest.as_mut().poll_frame(cx),
            },
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.inner {
            Inner::Unpolled { body } => body.is_end_stream(),
            Inner::Polled { first, rest } => first.is_none() && rest.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        let (first, rest) = match &self.inner {
            Inner::Unpolled { body } => return body.size_hint(),
            Inner::Polled { first, rest } => (first, rest.size_hint()),
        };
        let data = first.as_ref().and_then(|first| first.as_ref().ok()?.data_ref());
        with_read(&rest, data.map_or(0, Buf::remaining))
    }
}

impl<B: Body> fmt::Debug for PeekedBody<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PeekedBody")
    }
}
