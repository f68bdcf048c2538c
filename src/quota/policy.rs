use http::{request, response};

use crate::{
    body::BodyEnd,
    error::{Rejected, UpstreamFault},
    request::RequestContext,
    store::{QuotaSubject, Refund},
};

/// The point at which a reservation must be durable.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum CommitPoint {
    /// Before the response head is returned. The inner service is called at once, so its latency
    /// hides the commit.
    #[default]
    BeforeResponse,
    /// Before the inner service is called.
    BeforeForward,
}

/// Whose quota a request counts on.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Subject {
    /// The request counts on this subject.
    Counted(QuotaSubject),
    /// The request passes uncounted.
    Exempt,
    /// The request should have a subject and has none: it is rejected with 500.
    Unknown,
}

impl Subject {
    /// Returns the key in the request's [`RequestContext`], the default subject of a quota.
    pub fn of_key(request: &request::Parts) -> Self {
        let context = request.extensions.get::<RequestContext>();
        context.and_then(RequestContext::key).map(|key| QuotaSubject::from(&*key)).into()
    }
}

impl From<QuotaSubject> for Subject {
    fn from(subject: QuotaSubject) -> Self {
        Self::Counted(subject)
    }
}

/// `None` is [`Subject::Unknown`].
impl From<Option<QuotaSubject>> for Subject {
    fn from(subject: Option<QuotaSubject>) -> Self {
        subject.map_or(Self::Unknown, Self::Counted)
    }
}

/// Decides whether a request's reservation is kept or refunded.
///
/// A reservation is kept where the policy is not called: if the request is dropped before its
/// response head, or the inner service returns an error.
pub trait ChargePolicy: Send + Sync + 'static {
    /// Called with the head of the inner service's response.
    fn at_head(&self, head: &response::Parts) -> ChargeDecision;

    /// Called at the end of the response body, if the reservation was kept at the head.
    fn at_end(&self, end: BodyEnd) -> ChargeDecision {
        let _ = end;
        ChargeDecision::Keep
    }
}

/// What happens to a reservation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ChargeDecision {
    /// The reservation is kept.
    Keep,
    /// The reservation is refunded.
    Refund(Refund),
}

/// The default [`ChargePolicy`]: refunds requests for which certainly no work was done.
///
/// | response | reservation |
/// |---|---|
/// | the upstream was never reached, or the request was rejected before it was sent | refunded |
/// | the upstream rejected the sponsor's credential or balance (401, 402), which no key holder can provoke | refunded |
/// | the upstream forbade or rate-limited the sponsor (403, 429), redirected, or failed (5xx); a 5xx of the handler's own; a request body that is malformed or grows too large on its way to the upstream | refunded, at most as many times a day as the limit |
/// | anything else: 2xx–4xx, a timeout, a broken connection, a client that disconnects, also during its request body | kept |
#[derive(Clone, Copy, Debug, Default)]
pub struct ChargeUnlessUndone;

impl ChargePolicy for ChargeUnlessUndone {
    fn at_head(&self, head: &response::Parts) -> ChargeDecision {
        match head.extensions.get::<UpstreamFault>() {
            Some(UpstreamFault::Unreached | UpstreamFault::Credentials) => {
                ChargeDecision::Refund(Refund::Always)
            }
            Some(
                UpstreamFault::Failed
                | UpstreamFault::Forbidden
                | UpstreamFault::RateLimited
                | UpstreamFault::Redirect
                | UpstreamFault::RequestTooLarge
                | UpstreamFault::RequestBroken,
            ) => ChargeDecision::Refund(Refund::UpToLimit),
            Some(
                UpstreamFault::Protocol
                | UpstreamFault::Timeout
                | UpstreamFault::Unreadable
                | UpstreamFault::RequestAbandoned,
            ) => ChargeDecision::Keep,
            None if head.extensions.get::<Rejected>().is_some() => {
                ChargeDecision::Refund(Refund::Always)
            }
            None if head.status.is_server_error() => ChargeDecision::Refund(Refund::UpToLimit),
            None => ChargeDecision::Keep,
        }
    }
}
