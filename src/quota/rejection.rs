use std::{error::Error, fmt, time::SystemTime};

use crate::{
    error::{Rejection, StoreError, catalog},
    store::{Quota, QuotaStatus},
};

/// Why a request was rejected.
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
    /// The maximum number of requests of this subject is in flight.
    TooManyInFlight,
    /// The store could not count the request.
    Store(StoreError),
    /// The request has no subject: the layer that would identify it is missing outside this one.
    NoSubject,
}

impl fmt::Display for QuotaRejection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Exhausted { .. } => "quota exhausted",
            Self::Elsewhere { .. } => "other nodes hold what is left of the quota",
            Self::TooManyInFlight => "too many requests in flight",
            Self::Store(_) => "quota store failed",
            Self::NoSubject => "no quota subject",
        })
    }
}

impl Error for QuotaRejection {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Store(error) => Some(error),
            Self::Exhausted { .. }
            | Self::Elsewhere { .. }
            | Self::TooManyInFlight
            | Self::NoSubject => None,
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
                catalog::RATE_LIMIT_EXCEEDED.rejection().policy(status.quota.name())
            }
            QuotaRejection::TooManyInFlight => {
                catalog::RATE_LIMIT_EXCEEDED.rejection().policy("in_flight")
            }
            QuotaRejection::Store(error) => Rejection::from(error),
            QuotaRejection::NoSubject => catalog::QUOTA_SUBJECT_MISSING.rejection(),
        };
        rejection.with_reason(reason.clone())
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
