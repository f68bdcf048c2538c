use std::{
    fmt, mem,
    sync::Arc,
    task::{Context, Poll},
    time::SystemTime,
};

use http::{Request, Response};
use tower_service::Service;

use super::{
    ChargePolicy, QuotaRejection, ResponseFuture, SubjectSource, UnitObserver, unit::Unit,
};
use crate::{
    body::{ObservedBody, ResponseBody},
    clock::{Clock, ReceivedAt},
    error::{Reject, StoreError},
    store::{QuotaStore, Units, Verdict},
};

/// When a unit must be durable.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum CommitPoint {
    /// Before the response head is handed on. The inner service is called at once, so the commit
    /// hides behind its latency.
    #[default]
    BeforeAnswer,
    /// Before the inner service is called.
    BeforeForward,
}

/// The service of [`DailyQuotaLayer`](super::DailyQuotaLayer).
pub struct DailyQuota<S, Q, P, F, R> {
    pub(super) inner: S,
    pub(super) shared: Arc<Shared<Q, P, F, R>>,
}

pub(super) struct Shared<Q, P, F, R> {
    pub(super) store: Q,
    pub(super) policy: Arc<P>,
    pub(super) subject: F,
    pub(super) reject: R,
    pub(super) commit: CommitPoint,
    pub(super) clock: Arc<dyn Clock>,
}

impl<Q: Clone, P, F: Clone, R: Clone> Clone for Shared<Q, P, F, R> {
    fn clone(&self) -> Self {
        Self {
            store: self.store.clone(),
            policy: self.policy.clone(),
            subject: self.subject.clone(),
            reject: self.reject.clone(),
            commit: self.commit,
            clock: self.clock.clone(),
        }
    }
}

/// The body of an answer that went through the quota.
pub(super) type QuotaBody<B, P> = ObservedBody<ResponseBody<B>, UnitObserver<P>>;

impl<Q, P, F, R> Shared<Q, P, F, R>
where
    P: ChargePolicy,
    R: Reject,
{
    /// Turns the store's verdict into the unit to go on with, or into the refusal.
    pub(super) fn admit(
        &self,
        verdict: Result<Verdict, StoreError>,
        units: Units,
        at: SystemTime,
    ) -> Result<Unit, QuotaRejection> {
        match verdict {
            Ok(Verdict::Admitted { charge, standing }) => {
                Ok(Unit::new(charge, standing, units, at))
            }
            Ok(Verdict::Exhausted(standing)) => Err(QuotaRejection::Exhausted { standing, at }),
            Err(error) => Err(QuotaRejection::Store(error)),
        }
    }

    pub(super) fn refuse<B>(&self, rejection: &QuotaRejection) -> Response<QuotaBody<B, P>>
    where
        B: http_body::Body,
        B::Data: From<bytes::Bytes>,
    {
        match rejection {
            QuotaRejection::Store(error) => {
                tracing::warn!(source = ?error, "no unit could be counted");
            }
            QuotaRejection::NoSubject => tracing::error!("a request without a quota subject"),
            QuotaRejection::Exhausted { .. } => {}
        }
        let response = self.reject.reject(rejection.into());
        ResponseBody::answer(response).map(ObservedBody::unobserved)
    }
}

impl<S, Q, P, F, R, ReqBody, ResBody> Service<Request<ReqBody>> for DailyQuota<S, Q, P, F, R>
where
    S: Service<Request<ReqBody>, Response = Response<ResBody>> + Clone,
    Q: QuotaStore,
    P: ChargePolicy,
    F: SubjectSource,
    R: Reject,
    ResBody: http_body::Body,
    ResBody::Data: From<bytes::Bytes>,
{
    type Response = Response<ObservedBody<ResponseBody<ResBody>, UnitObserver<P>>>;
    type Error = S::Error;
    type Future = ResponseFuture<S, Q, P, F, R, ReqBody>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<ReqBody>) -> Self::Future {
        let at = ReceivedAt::of(request.extensions_mut(), &*self.shared.clock);
        let units = Units::of(request.extensions_mut());
        let (head, body) = request.into_parts();
        let subject = self.shared.subject.subject(&head);
        let request = Request::from_parts(head, body);
        let clone = self.inner.clone();
        let inner = mem::replace(&mut self.inner, clone);
        let reserve = subject.map(|subject| self.shared.store.reserve(&subject, at));
        ResponseFuture::new(self.shared.clone(), reserve, units, at, inner, request)
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
