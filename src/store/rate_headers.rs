//! Rate limit headers: which of them responses have, and their texts.

use std::{ops::Range, time::SystemTime};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue};

use super::QuotaStatus;

/// Writes the rate limit headers of responses.
///
/// [`IetfRateHeaders`] is the default; `openai::OpenAiRateHeaders` adds those that OpenAI's clients read.
/// Others take a few lines:
///
/// ```
/// use std::time::SystemTime;
/// use http::HeaderMap;
/// use tower_quota::store::{QuotaStatus, rate_headers::RateHeaders};
///
/// /// `X-RateLimit-Remaining`, as GitHub has it.
/// struct Remaining;
///
/// impl RateHeaders for Remaining {
///     fn insert(&self, statuses: &[QuotaStatus], _: SystemTime, headers: &mut HeaderMap) {
///         let status = QuotaStatus::most_constrained(statuses);
///         if let Some(remaining) = status.and_then(QuotaStatus::remaining) {
///             headers.insert("x-ratelimit-remaining", remaining.into());
///         }
///     }
/// }
/// ```
pub trait RateHeaders: Send + Sync + 'static {
    /// Inserts the headers of the response to a request that was received at `at`. `statuses` are those of the
    /// request's quotas, the outermost first; of a rejected request, that of the exhausted quota. Unlimited ones
    /// are among them.
    fn insert(&self, statuses: &[QuotaStatus], at: SystemTime, headers: &mut HeaderMap);
}

/// `RateLimit-Policy` and `RateLimit` (draft-ietf-httpapi-ratelimit-headers), lists with an item for each limited
/// quota. Without a limited quota there are none.
#[derive(Clone, Copy, Debug, Default)]
pub struct IetfRateHeaders;

impl RateHeaders for IetfRateHeaders {
    fn insert(&self, statuses: &[QuotaStatus], at: SystemTime, headers: &mut HeaderMap) {
        let mut texts = HeaderTexts::new();
        let Some(lists) = texts.write_ietf(statuses, at) else { return };
        headers.reserve(2);
        texts.insert(lists, headers);
    }
}

const POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");
const RATE_LIMIT: HeaderName = HeaderName::from_static("ratelimit");

/// Returns the seconds until the quota resets, rounded up and at least 1.
pub(crate) fn seconds_to_reset(status: &QuotaStatus, at: SystemTime) -> u64 {
    let duration = status.resets_at.duration_since(at).unwrap_or_default();
    (duration.as_secs() + u64::from(duration.subsec_nanos() > 0)).max(1)
}

/// Texts of several header values in one allocation.
pub(crate) struct HeaderTexts {
    bytes: Vec<u8>,
}

impl HeaderTexts {
    pub(crate) fn new() -> Self {
        Self { bytes: Vec::with_capacity(160) }
    }

    /// Writes a value and returns its range.
    pub(crate) fn write(&mut self, write: impl FnOnce(&mut Self)) -> Range<usize> {
        let start = self.bytes.len();
        write(self);
        start..self.bytes.len()
    }

    /// Writes the lists of [`IetfRateHeaders`], if a quota is limited.
    pub(crate) fn write_ietf(
        &mut self,
        statuses: &[QuotaStatus],
        at: SystemTime,
    ) -> Option<[(HeaderName, Range<usize>); 2]> {
        let policy = self.write_items(statuses, |text, status, limit| {
            text.put(";q=");
            text.put_number(limit);
            text.put(";w=");
            text.put_number(status.quota.period().seconds(status.day));
        });
        let rate_limit = self.write_items(statuses, |text, status, limit| {
            text.put(";r=");
            text.put_number(limit.saturating_sub(status.used));
            text.put(";t=");
            text.put_number(seconds_to_reset(status, at));
        });
        (!policy.is_empty()).then_some([(POLICY, policy), (RATE_LIMIT, rate_limit)])
    }

    /// Inserts headers whose values are these ranges of the written texts.
    pub(crate) fn insert(
        self,
        values: impl IntoIterator<Item = (HeaderName, Range<usize>)>,
        headers: &mut HeaderMap,
    ) {
        let texts = Bytes::from(self.bytes);
        for (name, range) in values {
            if let Ok(value) = HeaderValue::from_maybe_shared(texts.slice(range)) {
                headers.insert(name, value);
            }
        }
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
                let Some(limit) = status.limit.units() else { continue };
                text.put(if text.bytes.len() > start { ", \"" } else { "\"" });
                text.put(status.quota.name());
                text.put("\"");
                parameters(text, status, limit);
            }
        })
    }

    pub(crate) fn put(&mut self, text: &str) {
        self.bytes.extend_from_slice(text.as_bytes());
    }

    pub(crate) fn put_number(&mut self, number: u64) {
        self.put(itoa::Buffer::new().format(number));
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use super::*;
    use crate::{clock::Period, key::Limit, store::Quota};

    fn headers(statuses: &[QuotaStatus], at: SystemTime) -> HeaderMap {
        let mut headers = HeaderMap::new();
        IetfRateHeaders.insert(statuses, at, &mut headers);
        headers
    }

    #[test]
    fn the_headers_have_the_documented_format() {
        let at = UNIX_EPOCH + Duration::from_secs(100);
        let resets_at = at + Duration::from_millis(31_249_500);
        let limit = Limit::Units(200);
        let status = QuotaStatus::new("1970-01-01".parse().unwrap(), limit, 143, resets_at);
        let headers = headers(&[status], at);
        assert_eq!(headers["ratelimit-policy"], "\"daily\";q=200;w=86400");
        assert_eq!(headers["ratelimit"], "\"daily\";r=57;t=31250");
        assert_eq!(headers.len(), 2);
    }

    #[test]
    fn each_limited_quota_has_an_item() {
        let day = "1970-01-01".parse().unwrap();
        let status = |name, limit, used| {
            let status = QuotaStatus::new(day, limit, used, UNIX_EPOCH);
            status.quota(Quota::new(name, Period::Day).unwrap())
        };
        let statuses = [
            status("daily", Limit::Units(100), 2),
            status("free", Limit::Unlimited, 5),
            status("images", Limit::Units(10), 9),
        ];
        let headers = headers(&statuses, UNIX_EPOCH);
        assert_eq!(headers["ratelimit-policy"], r#""daily";q=100;w=86400, "images";q=10;w=86400"#);
        assert_eq!(headers["ratelimit"], r#""daily";r=98;t=1, "images";r=1;t=1"#);
    }

    #[test]
    fn the_window_of_a_month_is_that_of_the_current_one() {
        let quota = Quota::new("exports", Period::Month).unwrap();
        for (first, seconds) in [("2026-02-01", 2_419_200), ("2026-03-01", 2_678_400)] {
            let status = QuotaStatus::new(first.parse().unwrap(), Limit::Units(5), 0, UNIX_EPOCH);
            let headers = headers(&[status.quota(quota)], UNIX_EPOCH);
            assert_eq!(headers["ratelimit-policy"], *format!("\"exports\";q=5;w={seconds}"));
        }
    }

    #[test]
    fn an_unlimited_subject_has_no_rate_headers() {
        let day = "1970-01-01".parse().unwrap();
        let status = QuotaStatus::new(day, Limit::Unlimited, 143, UNIX_EPOCH);
        assert!(headers(&[status], UNIX_EPOCH).is_empty());
    }
}
