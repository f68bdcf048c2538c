use std::{
    fmt, mem,
    sync::Arc,
    task::{Context, Poll},
};

use http::{Request, Response};
use tower_service::Service;

use super::{
    ChargePolicy, CommitPoint, ResponseFuture, SubjectSource, UnitObserver,
    shared::{PendingReservation, Shared},
};
use crate::{
    body::{ObservedBody, ResponseBody},
    clock::ReceivedAt,
    error::Reject,
    store::{QuotaStore, Units},
};

/// The service of [`DailyQuotaLayer`](super::DailyQuotaLayer).
pub struct DailyQuota<S, Q, P, F, R> {
    pub(super) inner: S,
    pub(super) shared: Arc<Shared<Q, P, F, R>>,
}

impl<S, Q, P, F, R, ReqBody, ResBody> Service<Request<ReqBody>> for DailyQuota<S, Q, P, F, R>
where
    S: Service<Request<ReqBody>, Response = Response<ResBody>> + Clone,
    Q: QuotaStore,
    P: ChargePolicy + Clone,
    F: SubjectSource,
    R: Reject,
    ResBody: http_body::Body,
    ResBody::Data: From<bytes::Bytes>,
{
    type Response = Response<ObservedBody<ResponseBody<ResBody>, UnitObserver<P>>>;
    type Error = S::Error;
    type Future = ResponseFuture<S, Q, P, F, R, ReqBody, ResBody>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<ReqBody>) -> Self::Future {
        let at = ReceivedAt::of(request.extensions_mut(), &*self.shared.options.clock);
        let units = Units::of(request.extensions_mut());
        let method = request.method().clone();
        let (head, body) = request.into_parts();
        let reserving = self.shared.reserve(&head, units, at);
        let request = Request::from_parts(head, body);
        let shared = self.shared.clone();
        let reserved = match reserving.map(PendingReservation::now_or_never) {
            Err(rejection) | Ok(Ok(Err(rejection))) => {
                return ResponseFuture::refused(shared, method, rejection);
            }
            Ok(Ok(Ok(unit))) if shared.options.commit == CommitPoint::BeforeResponse => {
                let future = self.inner.call(request);
                return ResponseFuture::forwarding(shared, method, unit, future);
            }
            Ok(Ok(Ok(unit))) => Ok(unit),
            Ok(Err(reservation)) => Err(reservation),
        };
        let clone = self.inner.clone();
        let inner = mem::replace(&mut self.inner, clone);
        match reserved {
            Ok(unit) => ResponseFuture::committing(shared, unit, inner, request),
            Err(reservation) => ResponseFuture::reserving(shared, reservation, inner, request),
        }
    }
}

impl<S: Clone, Q, P, F, R> Clone for DailyQuota<S, Q, P, F, R> {
    fn clone(&self) -> Self {
        Self { inner: self.inner.clone(), shared: self.shared.clone() }
    }
}

impl<S: fmt::Debug, Q, P, F, R> fmt::Debug for DailyQuota<S, Q, P, F, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DailyQuota").field("inner", &self.inner).finish_non_exhaustive()
    }
}
