use std::{
    fmt,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::{Buf, Bytes};
use http::{Method, Response};
use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;

use super::reservation::SettleAtEnd;
use crate::body;

pin_project! {
    /// Response body of [`DailyQuota`](super::DailyQuota): the inner service's, at whose end the
    /// reservation is settled, or a rejection's.
    ///
    /// The last frame is held back until the store has refunded what the policy has decided to refund.
    pub struct ResponseBody<B>
    where
        B: Body,
    {
        #[pin]
        inner: body::ResponseBody<B>,
        // `None` once it is settled.
        reservation: Option<SettleAtEnd>,
        // Boxed, as most stores refund at once.
        held: Option<Box<Option<Result<Frame<B::Data>, B::Error>>>>,
    }
}

impl<B: Body> ResponseBody<B> {
    /// Wraps a body at whose end the reservation is settled.
    pub(super) fn counted(body: B, reservation: SettleAtEnd) -> Self {
        let inner = body::ResponseBody::inner(body);
        Self { inner, reservation: Some(reservation), held: None }
    }

    /// Wraps a body of a request without a reservation, or whose reservation is settled.
    pub(super) fn uncounted(body: B) -> Self {
        Self::plain(body::ResponseBody::inner(body))
    }

    pub(super) fn respond(method: &Method, response: Response<Bytes>) -> Response<Self> {
        body::ResponseBody::respond(method, response).map(Self::plain)
    }

    fn plain(inner: body::ResponseBody<B>) -> Self {
        Self { inner, reservation: None, held: None }
    }
}

/// Returns an empty body.
impl<B: Body> Default for ResponseBody<B> {
    fn default() -> Self {
        Self::plain(body::ResponseBody::default())
    }
}

impl<B> Body for ResponseBody<B>
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
        if this.held.is_none() {
            let frame = ready!(this.inner.as_mut().poll_frame(cx));
            let Some(reservation) = this.reservation else { return Poll::Ready(frame) };
            if !reservation.read(&frame, &*this.inner) {
                return Poll::Ready(frame);
            }
            if reservation.poll_settled(cx).is_ready() {
                *this.reservation = None;
                return Poll::Ready(frame);
            }
            *this.held = Some(Box::new(frame));
            return Poll::Pending;
        }
        if let Some(reservation) = this.reservation {
            ready!(reservation.poll_settled(cx));
            *this.reservation = None;
        }
        Poll::Ready(this.held.take().and_then(|frame| *frame))
    }

    fn is_end_stream(&self) -> bool {
        self.held.is_none() && self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let rest = self.inner.size_hint();
        match self.held.as_deref() {
            Some(Some(Ok(frame))) => {
                body::with_read(&rest, frame.data_ref().map_or(0, Buf::remaining))
            }
            _ => rest,
        }
    }
}

impl<B: Body> fmt::Debug for ResponseBody<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResponseBody").finish_non_exhaustive()
    }
}
