use std::{
    fmt, mem,
    sync::Arc,
    task::{Context, Poll},
};

use bytes::Bytes;
use http::{Request, Response};
use http_body::Body;
use tower_service::Service;

use super::{CommitPoint, DailyQuotaLayer, ResponseBody, ResponseFuture, layer::SubjectSource};
use crate::{request::RequestContext, store::QuotaStore};

/// Middleware that passes each subject's requests to its inner service until the subject's quota of
/// the day is used up.
///
/// See the [module](super) for its rules.
#[derive(Clone)]
pub struct DailyQuota<S> {
    pub(super) inner: S,
    pub(super) layer: Arc<DailyQuotaLayer>,
}

impl<S> DailyQuota<S> {
    /// Creates the middleware around `inner`, which counts in `store`.
    pub fn new(inner: S, store: impl QuotaStore) -> Self {
        Self { inner, layer: Arc::new(DailyQuotaLayer::new(store)) }
    }

    inner_accessors!(S);

    /// Takes the readied inner service, and leaves a clone that is not ready.
    fn take_inner(&mut self) -> S
    where
        S: Clone,
    {
        let clone = self.inner.clone();
        mem::replace(&mut self.inner, clone)
    }
}

impl<S, ReqBody, ResBody> Service<Request<ReqBody>> for DailyQuota<S>
where
    S: Service<Request<ReqBody>, Response = Response<ResBody>> + Clone,
    S::Error: 'static,
    ResBody: Body,
    ResBody::Data: From<Bytes>,
{
    type Response = Response<ResponseBody<ResBody>>;
    type Error = S::Error;
    type Future = ResponseFuture<S, ReqBody, ResBody>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<ReqBody>) -> Self::Future {
        let layer = self.layer.clone();
        let context = RequestContext::of(request.extensions_mut());
        let method = request.method().clone();
        let (head, body) = request.into_parts();
        let need = layer.need(&head, context);
        let subject = match &layer.subject {
            SubjectSource::Request(subject) => subject(&head),
            SubjectSource::Lookup(subject) => {
                let subject = subject(&head);
                let inner = self.take_inner();
                let request = Request::from_parts(head, body);
                return ResponseFuture::identifying(layer, subject, need, inner, request);
            }
        };
        let request = Request::from_parts(head, body);
        let mut pending = match layer.reserve(subject, need) {
            Ok(Some(pending)) => pending,
            Ok(None) => {
                return ResponseFuture::forwarding(layer, method, None, self.inner.call(request));
            }
            Err(rejection) => return ResponseFuture::rejected(layer, &request, &rejection),
        };
        match pending.take_ready(&layer) {
            Some(Ok(Some(reservation))) if layer.commit_point() == CommitPoint::BeforeForward => {
                let inner = self.take_inner();
                ResponseFuture::committing(layer, reservation, inner, request)
            }
            Some(Ok(reservation)) => {
                let future = self.inner.call(request);
                ResponseFuture::forwarding(layer, method, reservation, future)
            }
            Some(Err(rejection)) => ResponseFuture::rejected(layer, &request, &rejection),
            None => {
                let inner = self.take_inner();
                ResponseFuture::reserving(layer, pending, inner, request)
            }
        }
    }
}

impl<S: fmt::Debug> fmt::Debug for DailyQuota<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DailyQuota").field("inner", &self.inner).finish_non_exhaustive()
    }
}
