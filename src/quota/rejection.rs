use std::{
    borrow::Cow,
    error::Error,
    fmt,
    time::{Duration, SystemTime},
};

use http::{HeaderValue, header};

use crate::{
    error::{Rejection, StoreError, catalog},
    store::{Quota, QuotaStatus},
};

/// Why a [`DailyQuota`](super::DailyQuota) has rejected a request.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum QuotaRejection {
    /// The subject has fewer units left in the current period than the request needs. The response has no
    /// `Retry-After`; a renderer may set one: the time from `at` to the status's `resets_at`.
    Exhausted {
        /// The subject's status.
        status: QuotaStatus,
        /// The time at which the request was received.
        at: SystemTime,
    },
    /// Other nodes hold the units that are left, and another attempt may succeed after a second.
    Elsewhere {
        /// The subject's status.
        status: QuotaStatus,
        /// The time at which the request was received.
        at: SystemTime,
    },
    /// The store could not count the request.
    Store(StoreError),
    /// The request has no subject: the layer that would identify it is missing outside this one.
    NoSubject,
}

impl QuotaRejection {
    /// Returns the quota of whose units too few are left.
    pub(super) fn quota(&self) -> Option<Quota> {
        match self {
            Self::Exhausted { status, .. } | Self::Elsewhere { status, .. } => Some(status.quota),
            Self::Store(_) | Self::NoSubject => None,
        }
    }
}

impl fmt::Display for QuotaRejection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Exhausted { .. } => "quota exhausted",
            Self::Elsewhere { .. } => "other nodes hold what is left of the quota",
            Self::Store(_) => "quota store failed",
            Self::NoSubject => "no quota subject",
        })
    }
}

impl Error for QuotaRejection {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Store(error) => Some(error),
            Self::Exhausted { .. } | Self::Elsewhere { .. } | Self::NoSubject => None,
        }
    }
}

impl From<&QuotaRejection> for Rejection {
    fn from(reason: &QuotaRejection) -> Self {
        let rejection = match reason {
            QuotaRejection::Exhausted { status, .. } => {
                exhausted(status).policy(status.quota.name())
            }
            QuotaRejection::Elsewhere { status, .. } => {
                let rejection = catalog::RATE_LIMIT_EXCEEDED.rejection();
                let retry_after = HeaderValue::from_static("1");
                rejection.header(header::RETRY_AFTER, retry_after).policy(status.quota.name())
            }
            QuotaRejection::Store(error) => Rejection::from(error),
            QuotaRejection::NoSubject => catalog::QUOTA_SUBJECT_MISSING.rejection(),
        };
        rejection.with_reason(reason.clone())
    }
}

/// Why an [`InFlightLimit`](super::InFlightLimit) or a [`RateLimit`](super::RateLimit) has rejected a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum LimitRejection {
    /// The maximum number of requests of the subject is in flight.
    TooManyInFlight {
        /// The maximum.
        max: u64,
    },
    /// The requests of the subject come too fast.
    TooFast {
        /// Maximum number of requests per period.
        limit: u64,
        /// The period.
        period: Duration,
        /// Time after which a request is admitted, if no other one comes before.
        retry_after: Duration,
    },
    /// The request has no subject: the layer that would identify it is missing outside this one.
    NoSubject,
}

impl fmt::Display for LimitRejection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::TooManyInFlight { .. } => "too many requests in flight",
            Self::TooFast { .. } => "requests come too fast",
            Self::NoSubject => "no subject of the limit",
        })
    }
}

impl Error for LimitRejection {}

impl LimitRejection {
    /// Returns the rejection by the limit with this name.
    pub(super) fn by(self, name: Cow<'static, str>) -> Rejection {
        let (message, retry_after) = match self {
            Self::TooManyInFlight { max } => {
                (format!("At most {max} requests may be in flight; wait for one to end."), 1)
            }
            Self::TooFast { limit, period, retry_after } => {
                let seconds = retry_after.as_nanos().div_ceil(1_000_000_000).max(1) as u64;
                let period = period.as_secs_f64();
                let message = format!(
                    "Too many requests, at most {limit} in {period} seconds; try again in {seconds} s."
                );
                (message, seconds)
            }
            Self::NoSubject => {
                return catalog::QUOTA_SUBJECT_MISSING.rejection().with_reason(self);
            }
        };
        catalog::RATE_LIMIT_EXCEEDED
            .with_message(message)
            .header(header::RETRY_AFTER, retry_after.into())
            .policy(name)
            .with_reason(self)
    }
}

fn exhausted(status: &QuotaStatus) -> Rejection {
    // No `Retry-After`: clients would sleep until the reset, which may be hours away.
    let code = catalog::INSUFFICIENT_QUOTA;
    let limit = status.limit.units().unwrap_or_default();
    let resets_at = crate::clock::rfc3339(status.resets_at);
    if status.quota == Quota::DAILY {
        return code.with(&[("limit", &limit), ("resets_at", &resets_at)]);
    }
    let (name, left) = (status.quota.name(), status.remaining().unwrap_or_default());
    code.with_message(format!(
        "The quota `{name}` has {left} of {limit} units left, fewer than this request needs. It resets at {resets_at}."
    ))
}
