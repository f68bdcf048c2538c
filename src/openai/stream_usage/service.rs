use std::{
    fmt, mem,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
};

use bytes::Bytes;
use http::{Request, Response};
use http_body::Body;
use tower_service::Service;

use super::{
    BufferedBody, FilteredBody, HideUsageFuture, IncludeUsageFuture, IncludeUsageLayer,
    buffered::ReadBody, head::may_be_changed,
};

/// Middleware that makes requests for streamed chats request usage.
///
/// See the [module](super) for its rules.
#[derive(Clone)]
pub struct IncludeUsage<S> {
    pub(super) inner: S,
    pub(super) layer: Arc<IncludeUsageLayer>,
}

/// Middleware that hides usage events which only [`IncludeUsage`] has requested.
///
/// See the [module](super) for its rules.
#[derive(Clone)]
pub struct HideUsage<S> {
    pub(super) inner: S,
}

/// Whether the upstream supports the option that requests usage.
#[derive(Clone, Default)]
pub(super) struct OptionSupport {
    is_rejected: Arc<AtomicBool>,
}

impl OptionSupport {
    /// Returns whether the upstream has rejected the option.
    pub(super) fn is_rejected(&self) -> bool {
        self.is_rejected.load(Ordering::Relaxed)
    }

    /// Notes that the upstream has rejected the option.
    pub(super) fn set_rejected(&self) {
        if !self.is_rejected.swap(true, Ordering::Relaxed) {
            tracing::warn!(
                "upstream rejected stream_options: streams do not request usage until the next start"
            );
        }
    }
}

impl<S> IncludeUsage<S> {
    /// Creates the middleware around `inner`, with the defaults of
    /// [`StreamUsageLayer`](super::StreamUsageLayer).
    pub fn new(inner: S) -> Self {
        Self { inner, layer: Arc::new(IncludeUsageLayer::new()) }
    }

    inner_accessors!(S);
}

impl<S> HideUsage<S> {
    /// Creates the middleware around `inner`.
    pub fn new(inner: S) -> Self {
        Self { inner }
    }

    inner_accessors!(S);
}

impl<S, ReqBody, ResBody> Service<Request<ReqBody>> for IncludeUsage<S>
where
    S: Service<Request<BufferedBody<ReqBody>>, Response = Response<ResBody>> + Clone,
    ReqBody: Body,
    ReqBody::Data: From<Bytes>,
    ResBody: Body,
    ResBody::Data: From<Bytes>,
{
    type Response = Response<BufferedBody<ResBody>>;
    type Error = S::Error;
    type Future = IncludeUsageFuture<S, S::Future, ReqBody, ResBody>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<ReqBody>) -> Self::Future {
        let (head, body) = request.into_parts();
        let IncludeUsageLayer { applies_to, max_body, budget, support } = &*self.layer;
        let is_read = !support.is_rejected()
            && applies_to(&head)
            && may_be_changed(&head)
            && body.size_hint().lower() <= *max_body as u64;
        if !is_read {
            let request = Request::from_parts(head, BufferedBody::unread(body));
            return IncludeUsageFuture::calling(self.inner.call(request));
        }
        let clone = self.inner.clone();
        let inner = mem::replace(&mut self.inner, clone);
        let body = ReadBody::with_share(body, Some(budget.share()));
        IncludeUsageFuture::reading(inner, head, body, *max_body, support.clone())
    }
}

impl<S, ReqBody, ResBody> Service<Request<ReqBody>> for HideUsage<S>
where
    S: Service<Request<ReqBody>, Response = Response<ResBody>>,
    ResBody: Body,
    ResBody::Data: From<Bytes>,
{
    type Response = Response<FilteredBody<ResBody>>;
    type Error = S::Error;
    type Future = HideUsageFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<ReqBody>) -> Self::Future {
        HideUsageFuture::new(self.inner.call(request))
    }
}

impl<S: fmt::Debug> fmt::Debug for IncludeUsage<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("IncludeUsage").field("inner", &self.inner).finish_non_exhaustive()
    }
}

impl<S: fmt::Debug> fmt::Debug for HideUsage<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HideUsage").field("inner", &self.inner).finish()
    }
}
