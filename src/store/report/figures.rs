//! Sums over requests.

use std::ops::AddAssign;

#[cfg(feature = "serde")]
use serde::Serialize;

use crate::store::{RequestOutcome, Tokens, UsageEvent};

/// Serialises the sum of several responses' [`Tokens`], without what none of them reports.
#[cfg(feature = "serde")]
#[derive(Serialize)]
#[serde(remote = "Tokens")]
pub(crate) struct TokenSums {
    prompt: u64,
    completion: u64,
    total: u64,
    /// Prompt tokens that were read from the upstream's cache.
    #[serde(skip_serializing_if = "Option::is_none")]
    cached: Option<u64>,
    /// Completion tokens spent on reasoning.
    #[serde(skip_serializing_if = "Option::is_none")]
    reasoning: Option<u64>,
}

/// Maximum number of models with figures of their own for a key and day. An upstream may echo any name
/// that a request gives.
pub(crate) const MAX_MODELS_PER_DAY: usize = 64;
/// The model under which all others of a key and day are summed up.
pub(crate) const OTHER_MODELS: &str = "other";

/// Sums over requests, by key, day or model.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(Serialize))]
#[non_exhaustive]
pub struct UsageFigures {
    /// Requests that were admitted.
    pub requests: u64,
    /// Admitted requests that succeeded.
    pub succeeded: u64,
    /// Admitted requests that failed or whose client left.
    pub failed: u64,
    /// Admitted requests whose unit was refunded.
    pub refunded: u64,
    /// Requests that were rejected; not included in `requests`.
    pub rejected: u64,
    /// Requests that succeeded and whose response reported no tokens.
    pub tokens_unknown: u64,
    /// Tokens that the responses reported.
    #[cfg_attr(feature = "serde", serde(with = "TokenSums"))]
    pub tokens: Tokens,
}

impl AddAssign for UsageFigures {
    fn add_assign(&mut self, other: Self) {
        self.requests = self.requests.saturating_add(other.requests);
        self.succeeded = self.succeeded.saturating_add(other.succeeded);
        self.failed = self.failed.saturating_add(other.failed);
        self.refunded = self.refunded.saturating_add(other.refunded);
        self.rejected = self.rejected.saturating_add(other.rejected);
        self.tokens_unknown = self.tokens_unknown.saturating_add(other.tokens_unknown);
        self.tokens += other.tokens;
    }
}

impl From<&UsageEvent> for UsageFigures {
    fn from(event: &UsageEvent) -> Self {
        let (admitted, succeeded, failed) = match event.outcome {
            RequestOutcome::Succeeded => (true, true, false),
            RequestOutcome::Failed | RequestOutcome::ClientGone => (true, false, true),
            RequestOutcome::Rejected => (false, false, false),
        };
        Self {
            requests: admitted.into(),
            succeeded: succeeded.into(),
            failed: failed.into(),
            refunded: (admitted && event.refunded).into(),
            rejected: (!admitted).into(),
            tokens_unknown: (succeeded && event.tokens.is_none()).into(),
            tokens: event.tokens.unwrap_or_default(),
        }
    }
}
