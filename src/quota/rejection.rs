use std::time::SystemTime;

use http::{HeaderValue, StatusCode, header::RETRY_AFTER};

use crate::{
    error::{Rejection, StoreError},
    store::{QuotaStatus, rate_headers},
};

/// Why a request was rejected.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum QuotaRejection {
    /// The subject has used its quota of the day.
    Exhausted {
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

impl From<&QuotaRejection> for Rejection {
    fn from(rejection: &QuotaRejection) -> Self {
        match rejection {
            QuotaRejection::Exhausted { status, at } => exhausted(status, *at),
            QuotaRejection::TooManyInFlight => Rejection::transient(
                StatusCode::TOO_MANY_REQUESTS,
                "rate_limit_error",
                "rate_limit_exceeded",
                "Too many requests of this key are under way; wait for one to end.",
            )
            .header(RETRY_AFTER, HeaderValue::from_static("1")),
            QuotaRejection::Store(error) => Rejection::from(error),
            QuotaRejection::NoSubject => Rejection::permanent(
                StatusCode::INTERNAL_SERVER_ERROR,
                "server_error",
                "quota_subject_missing",
                "The server does not know whose quota this request counts on.",
            ),
        }
    }
}

fn exhausted(status: &QuotaStatus, at: SystemTime) -> Rejection {
    let limit = status.daily_limit.get();
    let resets_at = crate::clock::rfc3339(status.resets_at);
    // No `Retry-After`: clients would sleep until the reset, which may be hours away.
    let mut rejection = Rejection::permanent(
        StatusCode::TOO_MANY_REQUESTS,
        "insufficient_quota",
        "insufficient_quota",
        format!("Today's quota of {limit} requests is used up. It resets at {resets_at}."),
    );
    rate_headers::insert(&mut rejection.headers, status, at);
    rejection
}
