use http::response::Parts;

use crate::{
    body::BodyEnd,
    error::{Rejected, UpstreamFault},
    store::Refund,
};

/// Decides what becomes of a unit that was taken.
///
/// Whatever is not decided keeps the charge: a request that is dropped before its head, an error of
/// the inner service.
pub trait ChargePolicy {
    /// The inner service has answered with this head.
    fn at_head(&self, head: &Parts) -> ChargeDecision;

    /// The body of an answer whose unit was kept has ended.
    fn at_end(&self, end: BodyEnd) -> ChargeDecision {
        let _ = end;
        ChargeDecision::Keep
    }
}

/// What becomes of a unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ChargeDecision {
    /// It stays charged.
    Keep,
    /// It is given back.
    Refund(Refund),
}

/// The default: a unit is given back when it is known that no work was done for it.
///
/// | answer | unit |
/// |---|---|
/// | the upstream was never reached, or the request was refused before it was sent | given back |
/// | the upstream refused the sponsor's credential or balance (401, 402), which no holder can provoke | given back |
/// | the upstream forbade or limited the sponsor (403, 429), redirected, or failed (5xx); a 5xx of the handler's own; a body that is malformed or grows too large on its way to the upstream | given back, at most as often a day as the limit |
/// | anything else: 2xx–4xx, a timeout, a broken connection, a client that left, be it amid its upload | kept |
#[derive(Clone, Copy, Debug, Default)]
pub struct ChargeUnlessUndone;

impl ChargePolicy for ChargeUnlessUndone {
    fn at_head(&self, head: &Parts) -> ChargeDecision {
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
