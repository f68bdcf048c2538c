use std::{sync::Arc, time::SystemTime};

use http::Response;

use super::{ChargePolicy, QuotaRejection, UnitObserver, unit::Unit};
use crate::{
    body::{ObservedBody, ResponseBody},
    clock::Clock,
    error::{Reject, StoreError},
    store::{Units, Verdict},
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

/// What all clones of the service share.
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
