use std::{
    fmt, mem,
    sync::Arc,
    task::{Context, Poll},
};

use bytes::Bytes;
use http::{Request, Response};
use http_body::Body;
use tower_service::Service;

use super::{
    CommitPoint, DailyQuotaLayer, ResponseBody, ResponseFuture,
    layer::{Identity, RequestNeeds},
    reservation::{Need, Reserving},
};
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
        let (at, admission) = context.start_reservation(&*layer.clock);
        // To take the head out and put it back moves the request twice.
        let needs = match layer.without_head(&context) {
            Some(without_head) => without_head,
            None => {
                let (head, body) = request.into_parts();
                let of_head = layer.of_head(&context, &head);
                request = Request::from_parts(head, body);
                of_head
            }
        };
        let RequestNeeds { subject, amount, further } = needs;
        let need = Need { context, amount, further, at, admission };
        let subject = match subject {
            Identity::Known(subject) => subject,
            Identity::Pending(subject) => {
                let inner = self.take_inner();
                return ResponseFuture::identifying(layer, subject, need, inner, request);
            }
        };
        match layer.reserve(subject, need) {
            Ok(Reserving::Decided(Some(reservation)))
                if layer.commit_point() == CommitPoint::BeforeForward =>
            {
                let inner = self.take_inner();
                ResponseFuture::committing(layer, reservation, inner, request)
            }
            Ok(Reserving::Decided(reservation)) => {
                let future = self.inner.call(request);
                ResponseFuture::forwarding(layer, method, reservation, future)
            }
            Ok(Reserving::Pending(pending)) => {
                let inner = self.take_inner();
                ResponseFuture::reserving(layer, pending, inner, request)
            }
            Err(rejection) => ResponseFuture::rejected(layer, &request, &rejection),
        }
    }
}

impl<S: fmt::Debug> fmt::Debug for DailyQuota<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DailyQuota").field("inner", &self.inner).finish_non_exhaustive()
    }
}
