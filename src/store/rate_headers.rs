//! Rate limit headers: which of them responses have, and their texts.

use std::{cell::RefCell, time::SystemTime};

use http::{HeaderMap, HeaderName, HeaderValue};

use super::{Quota, QuotaStatus};
use crate::clock::Day;

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
        let (Some(policy), Some(rate_limit)) = (policy(statuses), rate_limit(statuses, at)) else {
            return;
        };
        headers.insert(POLICY, policy);
        headers.insert(RATE_LIMIT, rate_limit);
    }
}

const POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");
const RATE_LIMIT: HeaderName = HeaderName::from_static("ratelimit");

/// Maximum number of policies that a thread keeps. An application has few of them.
const MAX_POLICIES: usize = 8;

/// The policy of one limited quota, with all that it depends on.
type KeptPolicy = ((Quota, Day, u64), HeaderValue);

thread_local! {
    /// Policies that this thread has written, the oldest first.
    static POLICIES: RefCell<Vec<KeptPolicy>> = const { RefCell::new(Vec::new()) };

    /// Where this thread writes the texts of values, so that they are allocated once, with their exact length.
    static TEXT: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// Returns the value of `RateLimit-Policy`, if a quota is limited.
fn policy(statuses: &[QuotaStatus]) -> Option<HeaderValue> {
    let [status] = statuses else { return written_policy(statuses) };
    let key = (status.quota, status.day, status.limit.units()?);
    POLICIES.with_borrow_mut(|policies| {
        if let Some((_, policy)) = policies.iter().find(|(known, _)| *known == key) {
            return Some(policy.clone());
        }
        if policies.len() == MAX_POLICIES {
            policies.remove(0);
        }
        let policy = written_policy(statuses)?;
        policies.push((key, policy.clone()));
        Some(policy)
    })
}

fn written_policy(statuses: &[QuotaStatus]) -> Option<HeaderValue> {
    list(statuses, |text, status, limit| {
        put(text, ";q=");
        put_number(text, limit);
        put(text, ";w=");
        put_number(text, status.quota.period().seconds(status.day));
    })
}

/// Returns the value of `RateLimit`, if a quota is limited.
fn rate_limit(statuses: &[QuotaStatus], at: SystemTime) -> Option<HeaderValue> {
    list(statuses, |text, status, limit| {
        put(text, ";r=");
        put_number(text, limit.saturating_sub(status.used));
        put(text, ";t=");
        put_number(text, seconds_to_reset(status, at));
    })
}

/// Returns a list with an item for each limited quota, which begins with the quota's name, if there is one.
fn list(
    statuses: &[QuotaStatus],
    put_parameters: impl Fn(&mut Vec<u8>, &QuotaStatus, u64),
) -> Option<HeaderValue> {
    let list = value(|text| {
        for status in statuses {
            let Some(limit) = status.limit.units() else { continue };
            if !text.is_empty() {
                put(text, ", ");
            }
            put(text, "\"");
            put(text, status.quota.name());
            put(text, "\"");
            put_parameters(text, status, limit);
        }
    });
    list.filter(|list| !list.is_empty())
}

/// Returns the seconds until the quota resets, rounded up and at least 1.
pub(crate) fn seconds_to_reset(status: &QuotaStatus, at: SystemTime) -> u64 {
    let duration = status.resets_at.duration_since(at).unwrap_or_default();
    (duration.as_secs() + u64::from(duration.subsec_nanos() > 0)).max(1)
}

/// Returns the value with the text that `write` writes.
fn value(write: impl FnOnce(&mut Vec<u8>)) -> Option<HeaderValue> {
    TEXT.with_borrow_mut(|text| {
        text.clear();
        write(text);
        HeaderValue::from_bytes(text).ok()
    })
}

/// A header, and the function that writes the text of its value.
#[cfg(feature = "openai")]
pub(crate) type HeaderText<'a> = (HeaderName, &'a dyn Fn(&mut Vec<u8>));

/// Inserts headers whose values are in one allocation.
#[cfg(feature = "openai")]
pub(crate) fn insert_texts<const N: usize>(texts: [HeaderText<'_>; N], headers: &mut HeaderMap) {
    TEXT.with_borrow_mut(|text| {
        text.clear();
        let lengths = texts.each_ref().map(|(_, write)| {
            let start = text.len();
            write(text);
            text.len() - start
        });
        let mut values = bytes::Bytes::copy_from_slice(text);
        for ((name, _), length) in texts.into_iter().zip(lengths) {
            if let Ok(value) = HeaderValue::from_maybe_shared(values.split_to(length)) {
                headers.insert(name, value);
            }
        }
    });
}

pub(crate) fn put(text: &mut Vec<u8>, part: &str) {
    text.extend_from_slice(part.as_bytes());
}

pub(crate) fn put_number(text: &mut Vec<u8>, number: u64) {
    put(text, itoa::Buffer::new().format(number));
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
    fn a_policy_is_that_of_its_quota_and_limit_whatever_was_written_before() {
        let day = "1970-01-01".parse().unwrap();
        for limit in (1..=20).chain(1..=20) {
            for name in ["images", "rows"] {
                let status = QuotaStatus::new(day, Limit::Units(limit), 0, UNIX_EPOCH);
                let status = status.quota(Quota::new(name, Period::Day).unwrap());
                let headers = headers(&[status], UNIX_EPOCH);
                assert_eq!(headers["ratelimit-policy"], *format!("\"{name}\";q={limit};w=86400"));
            }
        }
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
