use std::{
    error::Error,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;

use super::{
    HeaderRules,
    error::BoxError,
    headers::remove_where,
    joined::Joined,
    mask::{Mask, Masked},
    secret::Secret,
    timeout::IdleTimeout,
};

pin_project! {
    /// The upstream's body on its way to the client.
    ///
    /// Bytes pass as they are, and those that are there together go on together. It fails when the
    /// upstream keeps silent for too long. Trailers follow the rules for headers. In a 4xx answer
    /// the upstream's credential reads as asterisks.
    #[derive(Debug)]
    pub struct PassedBody<B, D> {
        #[pin]
        inner: Joined<Masked<IdleTimeout<B>>, D>,
        trailers: TrailerRules,
    }
}

/// What of an answer's trailers reaches the client.
#[derive(Debug)]
pub(super) struct TrailerRules {
    pub(super) headers: Arc<HeaderRules>,
    /// No line with this in it does.
    pub(super) secret: Option<Secret>,
}

impl TrailerRules {
    fn apply(&self, trailers: &mut HeaderMap) {
        self.headers.apply_to_trailers(trailers);
        if let Some(secret) = &self.secret {
            remove_where(trailers, |_, value| secret.is_in(value.as_bytes()));
        }
    }
}

impl<B, D> PassedBody<B, D> {
    pub(super) fn new(inner: IdleTimeout<B>, mask: Option<Mask>, trailers: TrailerRules) -> Self {
        Self { inner: Joined::new(Masked::new(inner, mask)), trailers }
    }
}

impl<B> Body for PassedBody<B, B::Data>
where
    B: Body,
    B::Data: From<Bytes>,
    B::Error: Into<Box<dyn Error + Send + Sync>>,
{
    type Data = B::Data;
    type Error = BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, BoxError>>> {
        let this = self.project();
        let mut frame = ready!(this.inner.poll_frame(cx));
        if let Some(Ok(frame)) = &mut frame
            && let Some(trailers) = frame.trailers_mut()
        {
            this.trailers.apply(trailers);
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
