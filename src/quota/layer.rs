use std::{fmt, num::NonZeroU32, sync::Arc};

use bytes::Bytes;
use http::{Method, Response};
use http_body::Body;
use tower_layer::Layer;

use super::{
    ChargePolicy, ChargeUnlessUndone, CommitPoint, DailyQuota, KeySubject, QuotaRejection,
    ResponseBody,
};
use crate::{
    clock::{Clock, SystemClock},
    error::{ProblemJson, Reject, Rejection},
    limit::InFlight,
};

/// Layer that applies [`DailyQuota`]: each subject has a number of requests a day.
///
/// See the [module](super) for its rules.
#[derive(Clone)]
pub struct DailyQuotaLayer<Q, P = ChargeUnlessUndone, F = KeySubject, R = ProblemJson> {
    pub(super) store: Q,
    pub(super) policy: P,
    pub(super) subject: F,
    reject: R,
    pub(super) commit: CommitPoint,
    pub(super) in_flight: Option<Arc<InFlight>>,
    pub(super) clock: Arc<dyn Clock>,
}

impl<Q> DailyQuotaLayer<Q> {
    /// Creates a layer that counts in `store`.
    pub fn new(store: Q) -> Self {
        Self {
            store,
            policy: ChargeUnlessUndone,
            subject: KeySubject,
            reject: ProblemJson,
            commit: CommitPoint::BeforeResponse,
            in_flight: None,
            clock: Arc::new(SystemClock),
        }
    }
}

impl<Q, P, F, R> DailyQuotaLayer<Q, P, F, R> {
    /// Sets the policy that decides which requests are refunded. [`ChargeUnlessUndone`] by default.
    #[must_use]
    pub fn policy<P2>(self, policy: P2) -> DailyQuotaLayer<Q, P2, F, R> {
        let Self { store, policy: _, subject, reject, commit, in_flight, clock } = self;
        DailyQuotaLayer { store, policy, subject, reject, commit, in_flight, clock }
    }

    /// Sets what a request's subject is. [`KeySubject`] by default.
    #[must_use]
    pub fn subject<F2>(self, subject: F2) -> DailyQuotaLayer<Q, P, F2, R> {
        let Self { store, policy, subject: _, reject, commit, in_flight, clock } = self;
        DailyQuotaLayer { store, policy, subject, reject, commit, in_flight, clock }
    }

    /// Renders rejections with `reject`, which is [`ProblemJson`] by default.
    #[must_use]
    pub fn reject<R2>(self, reject: R2) -> DailyQuotaLayer<Q, P, F, R2> {
        let Self { store, policy, subject, reject: _, commit, in_flight, clock } = self;
        DailyQuotaLayer { store, policy, subject, reject, commit, in_flight, clock }
    }

    /// Sets the maximum number of requests of one subject in flight. `None`, the default, means no
    /// maximum.
    #[must_use]
    pub fn max_in_flight(self, max: impl Into<Option<NonZeroU32>>) -> Self {
        Self { in_flight: max.into().map(|max| Arc::new(InFlight::new(max))), ..self }
    }

    /// Sets when a reservation must be durable. [`CommitPoint::BeforeResponse`] by default.
    #[must_use]
    pub fn commit(self, commit: CommitPoint) -> Self {
        Self { commit, ..self }
    }

    /// Takes the day from `clock`, which is [`SystemClock`] by default.
    #[must_use]
    pub fn clock(self, clock: impl Clock) -> Self {
        Self { clock: Arc::new(clock), ..self }
    }
}

impl<Q, P, F, R> DailyQuotaLayer<Q, P, F, R>
where
    P: ChargePolicy,
    R: Reject,
{
    /// Renders a rejection of a request with this method.
    pub(super) fn respond<B>(
        &self,
        method: &Method,
        rejection: &QuotaRejection,
    ) -> Response<ResponseBody<B, P>>
    where
        B: Body,
        B::Data: From<Bytes>,
    {
        match rejection {
            QuotaRejection::Store(error) => {
                tracing::warn!(source = ?error, "quota reservation failed: rejecting the request");
            }
            QuotaRejection::NoSubject => {
                tracing::error!("request has no quota subject: rejecting it");
            }
            QuotaRejection::Exhausted { .. } | QuotaRejection::TooManyInFlight => {}
        }
        ResponseBody::respond(method, Rejection::from(rejection).render(&self.reject))
    }
}

impl<S, Q, P, F, R> Layer<S> for DailyQuotaLayer<Q, P, F, R>
where
    Self: Clone,
{
    type Service = DailyQuota<S, Q, P, F, R>;

    fn layer(&self, inner: S) -> Self::Service {
        DailyQuota { inner, layer: Arc::new(self.clone()) }
    }
}

impl<Q, P, F, R> fmt::Debug for DailyQuotaLayer<Q, P, F, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DailyQuotaLayer").field("commit", &self.commit).finish_non_exhaustive()
    }
}
