use std::{fmt, num::NonZeroU32, sync::Arc};

use http::{Method, Response, request};
use tower_layer::Layer;

use super::{
    ChargePolicy, ChargeUnlessUndone, CommitPoint, DailyQuota, QuotaRejection, ResponseBody,
    Subject,
};
use crate::{
    clock::{Clock, SystemClock},
    error::{ProblemJson, Reject, Rejection},
    limit::InFlight,
    store::{Quota, QuotaStore},
};

/// Layer that applies [`DailyQuota`]: each subject has a number of units per period.
///
/// See the [module](super) for its rules.
#[derive(Clone)]
pub struct DailyQuotaLayer {
    pub(super) store: Arc<dyn QuotaStore>,
    pub(super) quota: Quota,
    pub(super) policy: Arc<dyn ChargePolicy>,
    pub(super) subject: FromRequest<Subject>,
    pub(super) cost: FromRequest<u64>,
    reject: Arc<dyn Reject>,
    pub(super) commit: CommitPoint,
    pub(super) in_flight: Option<Arc<InFlight>>,
    pub(super) clock: Arc<dyn Clock>,
}

/// A function of a request's head.
type FromRequest<T> = Arc<dyn Fn(&request::Parts) -> T + Send + Sync>;

impl DailyQuotaLayer {
    /// Creates a layer that counts in `store`.
    pub fn new(store: impl QuotaStore) -> Self {
        Self {
            store: Arc::new(store),
            quota: Quota::DAILY,
            policy: Arc::new(ChargeUnlessUndone),
            subject: Arc::new(Subject::of_key),
            cost: Arc::new(|_| 1),
            reject: Arc::new(ProblemJson),
            commit: CommitPoint::BeforeResponse,
            in_flight: None,
            clock: Arc::new(SystemClock),
        }
    }

    /// Sets the policy that decides which requests are refunded. [`ChargeUnlessUndone`] by default.
    #[must_use]
    pub fn policy(self, policy: impl ChargePolicy) -> Self {
        Self { policy: Arc::new(policy), ..self }
    }

    /// Sets under which quota units are counted. [`Quota::DAILY`] by default. Several layers of one store
    /// need different quotas; reports show the units of the default one.
    #[must_use]
    pub fn quota(self, quota: Quota) -> Self {
        Self { quota, ..self }
    }

    /// Sets whose quota a request counts on. The key that the request was admitted with
    /// ([`Subject::of_key`]) by default.
    #[must_use]
    pub fn subject<F, T>(self, subject: F) -> Self
    where
        F: Fn(&request::Parts) -> T + Send + Sync + 'static,
        T: Into<Subject>,
    {
        Self { subject: Arc::new(move |request| subject(request).into()), ..self }
    }

    /// Sets how many units a request costs. 1 by default; a request of 0 is not counted, and its response
    /// shows the subject's status.
    #[must_use]
    pub fn cost<F>(self, cost: F) -> Self
    where
        F: Fn(&request::Parts) -> u64 + Send + Sync + 'static,
    {
        Self { cost: Arc::new(cost), ..self }
    }

    /// Renders rejections with `reject`, which is [`ProblemJson`] by default.
    #[must_use]
    pub fn reject(self, reject: impl Reject) -> Self {
        Self { reject: Arc::new(reject), ..self }
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

    /// Takes the time from `clock`, which is [`SystemClock`] by default.
    #[must_use]
    pub fn clock(self, clock: impl Clock) -> Self {
        Self { clock: Arc::new(clock), ..self }
    }

    /// Renders a rejection of a request with this method.
    pub(super) fn respond<B>(
        &self,
        method: &Method,
        rejection: &QuotaRejection,
    ) -> Response<ResponseBody<B>> {
        match rejection {
            QuotaRejection::Store(error) => {
                tracing::warn!(source = ?error, "quota reservation failed: rejecting the request");
            }
            QuotaRejection::NoSubject => {
                tracing::error!("request has no quota subject: rejecting it");
            }
            QuotaRejection::Exhausted { .. } | QuotaRejection::TooManyInFlight => {}
        }
        ResponseBody::respond(method, Rejection::from(rejection).render(&*self.reject))
    }
}

impl<S> Layer<S> for DailyQuotaLayer {
    type Service = DailyQuota<S>;

    fn layer(&self, inner: S) -> Self::Service {
        DailyQuota { inner, layer: Arc::new(self.clone()) }
    }
}

impl fmt::Debug for DailyQuotaLayer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DailyQuotaLayer").field("commit", &self.commit).finish_non_exhaustive()
    }
}
