//! The rate headers of one answer.

use std::time::SystemTime;

use http::{HeaderMap, HeaderName, HeaderValue};

use super::Standing;

const POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");
const RATE_LIMIT: HeaderName = HeaderName::from_static("ratelimit");
const LIMIT: HeaderName = HeaderName::from_static("x-ratelimit-limit-requests");
const REMAINING: HeaderName = HeaderName::from_static("x-ratelimit-remaining-requests");
const RESET: HeaderName = HeaderName::from_static("x-ratelimit-reset-requests");

/// Seconds until the quota resets, at least 1, so that a wait of this length is enough.
pub(crate) fn seconds_to_reset(standing: &Standing, at: SystemTime) -> u64 {
    let left = standing.resets_at.duration_since(at).unwrap_or_default();
    (left.as_secs() + u64::from(left.subsec_nanos() > 0)).max(1)
}

/// Adds the rate headers for a standing; an unlimited subject gets none.
pub(crate) fn insert(headers: &mut HeaderMap, standing: &Standing, at: SystemTime) {
    let (Some(limit), Some(remaining)) = (standing.daily_limit.limited(), standing.remaining())
    else {
        return;
    };
    let seconds = seconds_to_reset(standing, at);
    for (name, text) in [
        (POLICY, format!("\"daily\";q={limit};w=86400")),
        (RATE_LIMIT, format!("\"daily\";r={remaining};t={seconds}")),
        (LIMIT, limit.to_string()),
        (REMAINING, remaining.to_string()),
        (RESET, duration(seconds)),
    ] {
        if let Ok(value) = HeaderValue::try_from(text) {
            headers.insert(name, value);
        }
    }
}

/// A duration as OpenAI writes it: `8h40m50s`, `40m50s`, `50s`.
fn duration(seconds: u64) -> String {
    let (hours, minutes, seconds) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    match (hours, minutes) {
        (0, 0) => format!("{seconds}s"),
        (0, _) => format!("{minutes}m{seconds}s"),
        _ => format!("{hours}h{minutes}m{seconds}s"),
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use super::*;
    use crate::key::DailyLimit;

    #[test]
    fn the_headers_are_those_of_the_contract() {
        let at = UNIX_EPOCH + Duration::from_secs(100);
        let resets_at = at + Duration::from_millis(31_249_500);
        let limit = DailyLimit::new(200).unwrap();
        let standing = Standing::new("1970-01-01".parse().unwrap(), limit, 143, resets_at);
        let mut headers = HeaderMap::new();
        insert(&mut headers, &standing, at);
        assert_eq!(headers["ratelimit-policy"], "\"daily\";q=200;w=86400");
        assert_eq!(headers["ratelimit"], "\"daily\";r=57;t=31250");
        assert_eq!(headers["x-ratelimit-limit-requests"], "200");
        assert_eq!(headers["x-ratelimit-remaining-requests"], "57");
        assert_eq!(headers["x-ratelimit-reset-requests"], "8h40m50s");
    }

    #[test]
    fn an_unlimited_subject_gets_none() {
        let day = "1970-01-01".parse().unwrap();
        let standing = Standing::new(day, DailyLimit::UNLIMITED, 143, UNIX_EPOCH);
        let mut headers = HeaderMap::new();
        insert(&mut headers, &standing, UNIX_EPOCH);
        assert!(headers.is_empty());
    }
}
