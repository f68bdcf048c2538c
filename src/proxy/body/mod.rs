//! Bodies on their way through the proxy.

mod coalesced;
mod masked;
mod request;

use std::{
    error::Error,
    fmt,
    future::Future,
    mem,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::{Buf, Bytes};
use http::{HeaderMap, Method, Response};
use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;
use tokio::time::{Sleep, sleep};

use super::{
    credential::Secret,
    error::BoxError,
    headers::{HeaderRules, remove_where},
    timeout::TimeoutBody,
};
use crate::body;
use coalesced::CoalescedBody;
use masked::MaskedBody;

pub(super) use coalesced::ReadsConnection;
pub(super) use masked::{Mask, remove_content_fields};
pub use request::RequestBody;
pub(super) use request::RequestProgress;

pin_project! {
    /// The response body of an [`UpstreamProxyService`](super::UpstreamProxyService).
    ///
    /// The upstream's bytes are forwarded as they are, and frames that are ready together are merged.
    /// The body fails when the upstream sends nothing for too long. Trailers follow the rules for
    /// headers. In a 4xx response the upstream's credential is masked with asterisks.
    pub struct ResponseBody<B> {
        #[pin]
        // Boxed, as each layer moves it, and it is larger than what all of them add.
        inner: body::ResponseBody<Pin<Box<ForwardedBody<B>>>>,
    }
}

impl<B> ResponseBody<B> {
    pub(super) fn forwarded(body: ForwardedBody<B>) -> Self {
        Self { inner: body::ResponseBody::inner(Box::pin(body)) }
    }

    pub(super) fn full(body: Bytes) -> Self {
        Self { inner: body::ResponseBody::full(body) }
    }

    /// Wraps the proxy's own response to a request with this method.
    pub(super) fn respond(method: &Method, response: Response<Bytes>) -> Response<Self> {
        body::ResponseBody::respond(method, response).map(|inner| Self { inner })
    }
}

/// Returns an empty body.
impl<B> Default for ResponseBody<B> {
    fn default() -> Self {
        Self::full(Bytes::new())
    }
}

impl<B> Body for ResponseBody<B>
where
    B: Body,
    B::Data: From<Bytes>,
    B::Error: Into<Box<dyn Error + Send + Sync>>,
{
    type Data = B::Data;
    type Error = BoxError;

    delegate_body!();
}

impl<B> fmt::Debug for ResponseBody<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResponseBody").finish_non_exhaustive()
    }
}

pin_project! {
    /// The upstream's body on its way to the client.
    pub(super) struct ForwardedBody<B> {
        #[pin]
        inner: CoalescedBody<MaskedBody<TimeoutBody<B>>>,
        trailers: TrailerRules,
    }
}

/// The rules for a response's trailers.
pub(super) struct TrailerRules {
    pub(super) headers: Arc<HeaderRules>,
    /// Trailers that contain it are removed.
    pub(super) secret: Option<Secret>,
}

impl TrailerRules {
    fn apply(&self, trailers: &mut HeaderMap) {
        self.headers.apply_to_trailers(trailers);
        if let Some(secret) = &self.secret {
            remove_where(trailers, |_, value| secret.occurs_in(value.as_bytes()));
        }
    }
}

impl<B> ForwardedBody<B> {
    pub(super) fn new(
        inner: TimeoutBody<B>,
        reads: Option<ReadsConnection>,
        mask: Option<Mask>,
        trailers: TrailerRules,
    ) -> Self {
        Self { inner: CoalescedBody::new(MaskedBody::new(inner, mask), reads), trailers }
    }
}

impl<B> Body for ForwardedBody<B>
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

/// Maximum length of an excerpt, in bytes.
const MAX_EXCERPT: usize = 1024;
const EXCERPT_TIMEOUT: Duration = Duration::from_secs(1);

pin_project! {
    /// Reads the beginning of a body for the log. A short body is read to its end, so that its
    /// connection can be reused.
    #[derive(Debug)]
    pub(super) struct Excerpt<B> {
        #[pin]
        body: B,
        #[pin]
        timeout: Sleep,
        text: Vec<u8>,
    }
}

impl<B> Excerpt<B> {
    pub(super) fn new(body: B) -> Self {
        Self { body, timeout: sleep(EXCERPT_TIMEOUT), text: Vec::new() }
    }
}

impl<B: Body> Future for Excerpt<B> {
    type Output = Vec<u8>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Vec<u8>> {
        let mut this = self.project();
        while this.text.len() < MAX_EXCERPT {
            match this.body.as_mut().poll_frame(cx) {
                Poll::Ready(Some(Ok(frame))) => {
                    let Ok(mut data) = frame.into_data() else {
                        break;
                    };
                    while data.has_remaining() && this.text.len() < MAX_EXCERPT {
                        let chunk = data.chunk();
                        let length = chunk.len().min(MAX_EXCERPT - this.text.len());
                        this.text.extend_from_slice(&chunk[..length]);
                        data.advance(length);
                    }
                }
                Poll::Ready(_) => break,
                Poll::Pending if this.timeout.as_mut().poll(cx).is_ready() => break,
                Poll::Pending => return Poll::Pending,
            }
        }
        Poll::Ready(mem::take(this.text))
    }
}
