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
    ChargePolicy, ChargeUnlessUndone, CommitPoint, DailyQuotaLayer, KeySubject, ResponseBody,
    ResponseFuture, SubjectSource, reservation::PendingReservation,
};
use crate::{
    error::{ProblemJson, Reject},
    request::RequestContext,
    store::QuotaStore,
};

/// Middleware that passes each subject's requests to its inner service until the subject's quota of
/// the day is used up.
///
/// See the [module](super) for its rules.
pub struct DailyQuota<S, Q, P = ChargeUnlessUndone, F = KeySubject, R = ProblemJson> {
    pub(super) inner: S,
    pub(super) layer: Arc<DailyQuotaLayer<Q, P, F, R>>,
}

impl<S, Q> DailyQuota<S, Q> {
    /// Creates the middleware around `inner`, which counts in `store`.
    pub fn new(inner: S, store: Q) -> Self {
        Self { inner, layer: Arc::new(DailyQuotaLayer::new(store)) }
    }
}

impl<S, Q, P, F, R> DailyQuota<S, Q, P, F, R> {
    /// Returns a reference to the inner service.
    pub fn get_ref(&self) -> &S {
        &self.inner
    }

    /// Returns a mutable reference to the inner service.
    pub fn get_mut(&mut self) -> &mut S {
        &mut self.inner
    }

    /// Returns the inner service.
    pub fn into_inner(self) -> S {
        self.inner
    }
}

impl<S, Q, P, F, R, ReqBody, ResBody> Service<Request<ReqBody>> for DailyQuota<S, Q, P, F, R>
where
    S: Service<Request<ReqBody>, Response = Response<ResBody>> + Clone,
    Q: QuotaStore,
    P: ChargePolicy + Clone,
    F: SubjectSource,
    R: Reject,
    ResBody: Body,
    ResBody::Data: From<Bytes>,
{
    type Response = Response<ResponseBody<ResBody, P>>;
    type Error = S::Error;
    type Future = ResponseFuture<S, Q, P, F, R, ReqBody, ResBody>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<ReqBody>) -> Self::Future {
        let layer = self.layer.clone();
        let context = RequestContext::of(request.extensions_mut());
        let method = request.method().clone();
        let (head, body) = request.into_parts();
        let outcome = layer.reserve(&head, context).map(PendingReservation::now_or_never);
        let request = Request::from_parts(head, body);
        let reservation = match outcome {
            Err(rejection) | Ok(Ok(Err(rejection))) => {
                return ResponseFuture::rejected(layer, method, rejection);
            }
            Ok(Ok(Ok(reservation))) if layer.commit == CommitPoint::BeforeResponse => {
                let future = self.inner.call(request);
                return ResponseFuture::forwarding(layer, method, reservation, future);
            }
            Ok(Ok(Ok(reservation))) => Ok(reservation),
            Ok(Err(pending)) => Err(pending),
        };
        let clone = self.inner.clone();
        let inner = mem::replace(&mut self.inner, clone);
        match reservation {
            Ok(reservation) => ResponseFuture::committing(layer, reservation, inner, request),
            Err(pending) => ResponseFuture::reserving(layer, pending, inner, request),
        }
    }
}

impl<S: Clone, Q, P, F, R> Clone for DailyQuota<S, Q, P, F, R> {
    fn clone(&self) -> Self {
        Self { inner: self.inner.clone(), layer: self.layer.clone() }
    }
}

impl<S: fmt::Debug, Q, P, F, R> fmt::Debug for DailyQuota<S, Q, P, F, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DailyQuota").field("inner", &self.inner).finish_non_exhaustive()
    }
}
