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
    AppliesTo, HiddenBody, HideUsageFuture, IncludeUsageFuture, IncludedBody, head::may_be_changed,
    included::ReadBody, room::Room,
};

/// The service of [`IncludeUsageLayer`](super::IncludeUsageLayer).
pub struct IncludeUsage<S, A> {
    pub(super) inner: S,
    pub(super) shared: Arc<Shared<A>>,
}

/// The service of [`HideUsageLayer`](super::HideUsageLayer).
#[derive(Clone)]
pub struct HideUsage<S> {
    pub(super) inner: S,
}

/// What all clones of the service share.
#[derive(Clone)]
pub(super) struct Shared<A> {
    pub(super) applies: A,
    pub(super) max_body: usize,
    pub(super) refused: Refused,
    pub(super) room: Room,
}

/// Whether the upstream has refused to be asked for usage.
#[derive(Clone, Default)]
pub(super) struct Refused(Arc<AtomicBool>);

impl Refused {
    pub(super) fn get(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    pub(super) fn set(&self) {
        if !self.0.swap(true, Ordering::Relaxed) {
            tracing::warn!(
                "upstream refused stream_options: streams are not asked for usage until the next start"
            );
        }
    }
}

impl<S, A, ReqBody, ResBody> Service<Request<ReqBody>> for IncludeUsage<S, A>
where
    S: Service<Request<IncludedBody<ReqBody>>, Response = Response<ResBody>> + Clone,
    A: AppliesTo,
    ReqBody: Body,
    ReqBody::Data: From<Bytes>,
    ResBody: Body,
    ResBody::Data: From<Bytes>,
{
    type Response = Response<IncludedBody<ResBody>>;
    type Error = S::Error;
    type Future = IncludeUsageFuture<S, ReqBody, ResBody>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<ReqBody>) -> Self::Future {
        let (head, body) = request.into_parts();
        let Shared { applies, max_body, refused, room } = &*self.shared;
        let is_read = !refused.get()
            && applies.applies_to(&head)
            && may_be_changed(&head)
            && body.size_hint().lower() <= *max_body as u64;
        if !is_read {
            let request = Request::from_parts(head, IncludedBody::passed(body));
            return IncludeUsageFuture::calling(self.inner.call(request));
        }
        let clone = self.inner.clone();
        let inner = mem::replace(&mut self.inner, clone);
        let body = ReadBody::within(body, Some(room.enter()));
        IncludeUsageFuture::reading(inner, head, body, *max_body, refused.clone())
    }
}

impl<S, ReqBody, ResBody> Service<Request<ReqBody>> for HideUsage<S>
where
    S: Service<Request<ReqBody>, Response = Response<ResBody>>,
    ResBody: Body,
    ResBody::Data: From<Bytes>,
{
    type Response = Response<HiddenBody<ResBody>>;
    type Error = S::Error;
    type Future = HideUsageFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<ReqBody>) -> Self::Future {
        HideUsageFuture::new(self.inner.call(request))
    }
}

impl<S: Clone, A> Clone for IncludeUsage<S, A> {
    fn clone(&self) -> Self {
        Self { inner: self.inner.clone(), shared: self.shared.clone() }
    }
}

impl<S: fmt::Debug, A> fmt::Debug for IncludeUsage<S, A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("IncludeUsage").field("inner", &self.inner).finish_non_exhaustive()
    }
}

impl<S: fmt::Debug> fmt::Debug for HideUsage<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HideUsage").field("inner", &self.inner).finish()
    }
}
