use std::{
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::SystemTime,
};

use http::{Method, Response, request::Parts};

use super::{
    ChargePolicy, QuotaRejection, SubjectSource, UnitObserver,
    in_flight::{InFlight, Slot},
    unit::Unit,
};
use crate::{
    body::{ObservedBody, ResponseBody},
    clock::Clock,
    error::{Reject, Rejection, StoreError},
    store::{QuotaStore, ReserveOutcome, StoreFuture, Units},
};

/// When a unit must be durable.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum CommitPoint {
    /// Before the response head is handed on. The inner service is called at once, so the commit
    /// hides behind its latency.
    #[default]
    BeforeResponse,
    /// Before the inner service is called.
    BeforeForward,
}

/// What all clones of the service share.
pub(super) struct Shared<Q, P, F, R> {
    pub(super) store: Q,
    pub(super) policy: P,
    pub(super) subject: F,
    pub(super) reject: R,
    pub(super) options: Options,
}

/// What is set beside the parts that have types of their own.
#[derive(Clone)]
pub(super) struct Options {
    pub(super) commit: CommitPoint,
    pub(super) in_flight: Option<Arc<InFlight>>,
    pub(super) clock: Arc<dyn Clock>,
}

impl<Q: Clone, P: Clone, F: Clone, R: Clone> Clone for Shared<Q, P, F, R> {
    fn clone(&self) -> Self {
        Self {
            store: self.store.clone(),
            policy: self.policy.clone(),
            subject: self.subject.clone(),
            reject: self.reject.clone(),
            options: self.options.clone(),
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
    pub(super) fn refuse<B>(
        &self,
        method: &Method,
        rejection: &QuotaRejection,
    ) -> Response<QuotaBody<B, P>>
    where
        B: http_body::Body,
        B::Data: From<bytes::Bytes>,
    {
        match rejection {
            QuotaRejection::Store(error) => {
                tracing::warn!(source = ?error, "no unit could be counted");
            }
            QuotaRejection::NoSubject => tracing::error!("a request without a quota subject"),
            QuotaRejection::Exhausted { .. } | QuotaRejection::TooManyInFlight => {}
        }
        let response = Rejection::from(rejection).render(&self.reject);
        ResponseBody::answer(method, response).map(ObservedBody::unobserved)
    }
}

impl<Q, P, F, R> Shared<Q, P, F, R>
where
    Q: QuotaStore,
    F: SubjectSource,
{
    /// Asks the store for a unit of this request's subject.
    pub(super) fn reserve(
        &self,
        head: &Parts,
        units: Units,
        at: SystemTime,
    ) -> Result<PendingReservation, QuotaRejection> {
        let subject = self.subject.subject(head).ok_or(QuotaRejection::NoSubject)?;
        let slot = match &self.options.in_flight {
            Some(in_flight) => {
                Some(in_flight.enter(&subject.id).ok_or(QuotaRejection::TooManyInFlight)?)
            }
            None => None,
        };
        let request = Reserved { units, at, slot };
        Ok(PendingReservation { verdict: self.store.reserve(&subject, at), request })
    }
}

/// A unit that the store is asked for.
pub(super) struct PendingReservation {
    verdict: StoreFuture<ReserveOutcome>,
    request: Reserved,
}

/// For what request.
struct Reserved {
    units: Units,
    at: SystemTime,
    slot: Option<Slot>,
}

impl PendingReservation {
    /// The unit to go on with or why there is none, if that is known already.
    pub(super) fn now_or_never(mut self) -> Result<Result<Unit, QuotaRejection>, Self> {
        match self.verdict.now_or_never() {
            Ok(verdict) => Ok(self.request.unit(verdict)),
            Err(verdict) => Err(Self { verdict, ..self }),
        }
    }

    /// The unit to go on with, or why there is none.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<Unit, QuotaRejection>> {
        let verdict = ready!(Pin::new(&mut self.verdict).poll(cx));
        Poll::Ready(self.request.unit(verdict))
    }
}

impl Reserved {
    fn unit(
        &mut self,
        verdict: Result<ReserveOutcome, StoreError>,
    ) -> Result<Unit, QuotaRejection> {
        let at = self.at;
        match verdict {
            Ok(ReserveOutcome::Admitted { reservation, status }) => {
                Ok(Unit::new(reservation, status, self.units.clone(), at, self.slot.take()))
            }
            Ok(ReserveOutcome::Exhausted(status)) => Err(QuotaRejection::Exhausted { status, at }),
            Err(error) => Err(QuotaRejection::Store(error)),
        }
    }
}
