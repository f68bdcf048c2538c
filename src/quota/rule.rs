use std::{fmt, sync::Arc};

use http::request;

use super::{Subject, layer::FromRequest};
use crate::{
    key::{KeyLimit, KeyRecord, Limit},
    request::RequestContext,
    store::{Quota, QuotaSubject},
};

/// A further quota of a request, which [`DailyQuotaLayer::and`](super::DailyQuotaLayer::and) counts together with the
/// first one.
#[derive(Clone)]
pub struct QuotaRule {
    quota: Quota,
    subject: RuleSubject,
    /// `None` is one unit.
    cost: Option<FromRequest<u64>>,
}

/// A function of a key's record.
type FromKey<T> = Arc<dyn Fn(&KeyRecord) -> T + Send + Sync>;

/// Where the subject of a request comes from.
#[derive(Clone)]
enum RuleSubject {
    /// It is the key of the request's context, with this limit.
    Key(FromKey<Option<Limit>>),
    /// The request says it.
    Request(FromRequest<Subject>),
}

/// What a request needs of a quota.
pub(super) struct QuotaNeed {
    pub(super) quota: Quota,
    pub(super) subject: Subject,
    pub(super) amount: u64,
}

impl QuotaRule {
    /// Creates a rule whose subject the request says, as that of
    /// [`DailyQuotaLayer::subject`](super::DailyQuotaLayer::subject). A request of which it says [`Subject::Exempt`] does
    /// not count on this quota.
    pub fn new<F, T>(quota: Quota, subject: F) -> Self
    where
        F: Fn(&request::Parts) -> T + Send + Sync + 'static,
        T: Into<Subject>,
    {
        let subject = move |request: &request::Parts| subject(request).into();
        Self { quota, subject: RuleSubject::Request(Arc::new(subject)), cost: None }
    }

    /// Creates a rule whose subject is the key that the request was admitted with. `limit` returns the key's limit, or
    /// `None` if its requests do not count on this quota.
    pub fn of_key(
        quota: Quota,
        limit: impl Fn(&KeyRecord) -> Option<Limit> + Send + Sync + 'static,
    ) -> Self {
        Self { quota, subject: RuleSubject::Key(Arc::new(limit)), cost: None }
    }

    /// Creates the rule of a key's requests per calendar month, [`KeyLimit::Monthly`]. The requests of a key without that
    /// limit are not counted.
    pub fn monthly() -> Self {
        Self::of_key(Quota::MONTHLY, |key| limited(key.limits.get(KeyLimit::Monthly)))
    }

    /// Sets how many units a request costs. 1 by default.
    #[must_use]
    pub fn cost<F>(self, cost: F) -> Self
    where
        F: Fn(&request::Parts) -> u64 + Send + Sync + 'static,
    {
        Self { cost: Some(Arc::new(cost)), ..self }
    }

    pub(super) fn quota(&self) -> Quota {
        self.quota
    }

    /// Returns what a request needs of the quota, or `None` if that depends on its head.
    pub(super) fn without_head(&self, context: &RequestContext) -> Option<QuotaNeed> {
        match (&self.subject, &self.cost) {
            (RuleSubject::Key(limit), None) => {
                let (quota, subject) = (self.quota, of_key(context, &**limit));
                Some(QuotaNeed { quota, subject, amount: 1 })
            }
            _ => None,
        }
    }

    /// Returns what the request with this head needs of the quota.
    pub(super) fn of_head(&self, context: &RequestContext, head: &request::Parts) -> QuotaNeed {
        let subject = match &self.subject {
            RuleSubject::Key(limit) => of_key(context, &**limit),
            RuleSubject::Request(subject) => subject(head),
        };
        let amount = self.cost.as_ref().map_or(1, |cost| cost(head));
        QuotaNeed { quota: self.quota, subject, amount }
    }
}

fn of_key(context: &RequestContext, limit: &dyn Fn(&KeyRecord) -> Option<Limit>) -> Subject {
    match context.key() {
        Some(key) => limit(&key).map_or(Subject::Exempt, |limit| {
            Subject::Counted(QuotaSubject::new(key.id.clone(), limit))
        }),
        None => Subject::Unknown,
    }
}

fn limited(limit: Limit) -> Option<Limit> {
    limit.units().map(Limit::Units)
}

impl fmt::Debug for QuotaRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("QuotaRule").field("quota", &self.quota).finish_non_exhaustive()
    }
}
