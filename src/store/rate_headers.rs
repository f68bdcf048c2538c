//! Rate limit headers of a response.

use std::{ops::Range, time::SystemTime};

use bytes::{BufMut, BytesMut};
use http::{HeaderMap, HeaderName, HeaderValue};

use super::{QuotaStatus, most_constrained};

const POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");
const RATE_LIMIT: HeaderName = HeaderName::from_static("ratelimit");
const LIMIT: HeaderName = HeaderName::from_static("x-ratelimit-limit-requests");
const REMAINING: HeaderName = HeaderName::from_static("x-ratelimit-remaining-requests");
const RESET: HeaderName = HeaderName::from_static("x-ratelimit-reset-requests");

/// Returns the seconds until the quota resets, rounded up and at least 1.
pub(crate) fn seconds_to_reset(status: &QuotaStatus, at: SystemTime) -> u64 {
    let duration = status.resets_at.duration_since(at).unwrap_or_default();
    (duration.as_secs() + u64::from(duration.subsec_nanos() > 0)).max(1)
}

/// Inserts the rate limit headers of a request's quotas: the lists have an item for each of them, the single
/// values are those of the most constrained. Unlimited quotas have none.
pub(crate) fn insert(headers: &mut HeaderMap, statuses: &[QuotaStatus], at: SystemTime) {
    let Some(status) = most_constrained(statuses) else { return };
    let (Some(limit), Some(remaining)) = (status.daily_limit.limited(), status.remaining()) else {
        return;
    };
    let seconds = seconds_to_reset(status, at);
    let mut texts = Texts::new();
    let policy = texts.write_items(statuses, |text, status, limit| {
        text.put(";q=");
        text.put_number(limit);
        text.put(";w=");
        text.put_number(status.quota.period().seconds());
    });
    let rate_limit = texts.write_items(statuses, |text, status, limit| {
        text.put(";r=");
        text.put_number(limit.saturating_sub(status.used));
        text.put(";t=");
        text.put_number(seconds_to_reset(status, at));
    });
    let limit = texts.write(|text| text.put_number(limit));
    let remaining = texts.write(|text| text.put_number(remaining));
    let reset = texts.write(|text| put_duration(text, seconds));
    let texts = texts.bytes.freeze();
    headers.reserve(5);
    for (name, range) in [
        (POLICY, policy),
        (RATE_LIMIT, rate_limit),
        (LIMIT, limit),
        (REMAINING, remaining),
        (RESET, reset),
    ] {
        if let Ok(value) = HeaderValue::from_maybe_shared(texts.slice(range)) {
            headers.insert(name, value);
        }
    }
}

/// Texts of several header values in one allocation.
struct Texts {
    bytes: BytesMut,
}

impl Texts {
    fn new() -> Self {
        Self { bytes: BytesMut::with_capacity(160) }
    }

    /// Writes a value and returns its range.
    fn write(&mut self, write: impl FnOnce(&mut Self)) -> Range<usize> {
        let start = self.bytes.len();
        write(self);
        start..self.bytes.len()
    }

    /// Writes a list with an item for each limited quota, which begins with the quota's name.
    fn write_items(
        &mut self,
        statuses: &[QuotaStatus],
        parameters: impl Fn(&mut Self, &QuotaStatus, u64),
    ) -> Range<usize> {
        self.write(|text| {
            let start = text.bytes.len();
            for status in statuses {
                let Some(limit) = status.daily_limit.limited() else { continue };
                text.put(if text.bytes.len() > start { ", \"" } else { "\"" });
                text.put(status.quota.name());
                text.put("\"");
                parameters(text, status, limit);
            }
        })
    }

    fn put(&mut self, text: &str) {
        self.bytes.put_slice(text.as_bytes());
    }

    fn put_number(&mut self, number: u64) {
        self.put(itoa::Buffer::new().format(number));
    }
}

/// Writes a duration in OpenAI's format: `8h40m50s`, `40m50s`, `50s`.
fn put_duration(text: &mut Texts, seconds: u64) {
    let (hours, minutes) = (seconds / 3600, seconds / 60 % 60);
    for (number, unit) in [(hours, "h"), (minutes, "m")] {
        if number > 0 || (unit == "m" && hours > 0) {
            text.put_number(number);
            text.put(unit);
        }
    }
    text.put_number(seconds % 60);
    text.put("s");
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use super::*;
    use crate::{clock::Period, key::DailyLimit, store::Quota};

    #[test]
    fn the_headers_have_the_documented_format() {
        let at = UNIX_EPOCH + Duration::from_secs(100);
        let resets_at = at + Duration::from_millis(31_249_500);
        let limit = DailyLimit::new(200).unwrap();
        let status = QuotaStatus::new("1970-01-01".parse().unwrap(), limit, 143, resets_at);
        let mut headers = HeaderMap::new();
        insert(&mut headers, &[status], at);
        assert_eq!(headers["ratelimit-policy"], "\"daily\";q=200;w=86400");
        assert_eq!(headers["ratelimit"], "\"daily\";r=57;t=31250");
        assert_eq!(headers["x-ratelimit-limit-requests"], "200");
        assert_eq!(headers["x-ratelimit-remaining-requests"], "57");
        assert_eq!(headers["x-ratelimit-reset-requests"], "8h40m50s");
    }

    #[test]
    fn the_most_constrained_of_several_quotas_speaks() {
        let day = "1970-01-01".parse().unwrap();
        let status = |name, limit, used| {
            let limit = DailyLimit::new(limit).unwrap();
            let status = QuotaStatus::new(day, limit, used, UNIX_EPOCH);
            status.quota(Quota::new(name, Period::Day).unwrap())
        };
        let statuses = [status("daily", 100, 2), status("free", 0, 5), status("images", 10, 9)];
        let mut headers = HeaderMap::new();
        insert(&mut headers, &statuses, UNIX_EPOCH);
        assert_eq!(headers["ratelimit-policy"], r#""daily";q=100;w=86400, "images";q=10;w=86400"#);
        assert_eq!(headers["ratelimit"], r#""daily";r=98;t=1, "images";r=1;t=1"#);
        assert_eq!(headers["x-ratelimit-limit-requests"], "10");
        assert_eq!(headers["x-ratelimit-remaining-requests"], "1");
    }

    #[test]
    fn an_unlimited_subject_has_no_rate_headers() {
        let day = "1970-01-01".parse().unwrap();
        let status = QuotaStatus::new(day, DailyLimit::UNLIMITED, 143, UNIX_EPOCH);
        let mut headers = HeaderMap::new();
        insert(&mut headers, &[status], UNIX_EPOCH);
        assert!(headers.is_empty());
    }
}
