use std::time::SystemTime;

use http::{HeaderMap, HeaderName};

use crate::store::{
    QuotaStatus,
    rate_headers::{
        HeaderText, IetfRateHeaders, RateHeaders, insert_texts, put, put_number, seconds_to_reset,
    },
};

const LIMIT: HeaderName = HeaderName::from_static("x-ratelimit-limit-requests");
const REMAINING: HeaderName = HeaderName::from_static("x-ratelimit-remaining-requests");
const RESET: HeaderName = HeaderName::from_static("x-ratelimit-reset-requests");

/// The rate limit headers that OpenAI's clients read, `x-ratelimit-limit-requests`,
/// `x-ratelimit-remaining-requests` and `x-ratelimit-reset-requests`, of the most constrained quota, beside those of
/// [`IetfRateHeaders`](crate::store::rate_headers::IetfRateHeaders).
///
/// ```
/// use tower_quota::{openai::OpenAiRateHeaders, quota::DailyQuotaLayer, store::memory::MemoryStore};
///
/// let quota = DailyQuotaLayer::new(MemoryStore::new()).headers(OpenAiRateHeaders);
/// # let _ = quota;
/// ```
#[derive(Clone, Copy, Debug, Default)]
pub struct OpenAiRateHeaders;

impl RateHeaders for OpenAiRateHeaders {
    fn insert(&self, statuses: &[QuotaStatus], at: SystemTime, headers: &mut HeaderMap) {
        let Some(status) = QuotaStatus::most_constrained(statuses) else { return };
        let (Some(limit), Some(remaining)) = (status.limit.units(), status.remaining()) else {
            return;
        };
        IetfRateHeaders.insert(statuses, at, headers);
        let texts: [HeaderText<'_>; 3] = [
            (LIMIT, &|text| put_number(text, limit)),
            (REMAINING, &|text| put_number(text, remaining)),
            (RESET, &|text| put_duration(text, seconds_to_reset(status, at))),
        ];
        insert_texts(texts, headers);
    }
}

/// Writes a duration in OpenAI's format: `8h40m50s`, `40m50s`, `50s`.
fn put_duration(text: &mut Vec<u8>, seconds: u64) {
    let (hours, minutes) = (seconds / 3600, seconds / 60 % 60);
    for (number, unit) in [(hours, "h"), (minutes, "m")] {
        if number > 0 || (unit == "m" && hours > 0) {
            put_number(text, number);
            put(text, unit);
        }
    }
    put_number(text, seconds % 60);
    put(text, "s");
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use super::*;
    use crate::{clock::Period, key::Limit, store::Quota};

    fn status(limit: u64, used: u64, resets_at: SystemTime) -> QuotaStatus {
        QuotaStatus::new("1970-01-01".parse().unwrap(), Limit::Units(limit), used, resets_at)
    }

    fn headers(statuses: &[QuotaStatus], at: SystemTime) -> HeaderMap {
        let mut headers = HeaderMap::new();
        OpenAiRateHeaders.insert(statuses, at, &mut headers);
        headers
    }

    #[test]
    fn the_headers_have_the_documented_format() {
        let at = UNIX_EPOCH + Duration::from_secs(100);
        let headers = headers(&[status(200, 143, at + Duration::from_millis(31_249_500))], at);
        assert_eq!(headers["ratelimit-policy"], "\"daily\";q=200;w=86400");
        assert_eq!(headers["ratelimit"], "\"daily\";r=57;t=31250");
        assert_eq!(headers["x-ratelimit-limit-requests"], "200");
        assert_eq!(headers["x-ratelimit-remaining-requests"], "57");
        assert_eq!(headers["x-ratelimit-reset-requests"], "8h40m50s");
    }

    #[test]
    fn the_most_constrained_of_several_quotas_speaks() {
        let images = status(10, 9, UNIX_EPOCH).quota(Quota::new("images", Period::Day).unwrap());
        let headers = headers(&[status(100, 2, UNIX_EPOCH), images], UNIX_EPOCH);
        assert_eq!(headers["ratelimit"], r#""daily";r=98;t=1, "images";r=1;t=1"#);
        assert_eq!(headers["x-ratelimit-limit-requests"], "10");
        assert_eq!(headers["x-ratelimit-remaining-requests"], "1");
    }

    #[test]
    fn an_unlimited_subject_has_no_rate_headers() {
        let unlimited = QuotaStatus { limit: Limit::Unlimited, ..status(1, 143, UNIX_EPOCH) };
        assert!(headers(&[unlimited], UNIX_EPOCH).is_empty());
    }
}
