use std::time::SystemTime;
#[cfg(any(feature = "serde", test))]
use std::time::{Duration, UNIX_EPOCH};

use jiff::{SignedDuration, Timestamp, civil::DateTime, tz::TimeZone};

/// Formats a time according to RFC 3339, in UTC (`Z`) and whole seconds, as it is in all texts of this crate.
/// Times that are later than 9999-12-30T22:00:00Z are formatted as that one.
///
/// ```
/// use bytes::Bytes;
/// use http::Response;
/// use tower_quota::{clock::rfc3339, error::reject_fn, quota::QuotaRejection};
///
/// let own_format = reject_fn(|rejection, _| {
///     let text = match rejection.reason() {
///         Some(QuotaRejection::Exhausted { status, .. }) => format!("come back at {}", rfc3339(status.resets_at)),
///         _ => rejection.message.to_string(),
///     };
///     let mut response = Response::new(Bytes::from(text));
///     *response.status_mut() = rejection.status;
///     response
/// });
/// # let _ = own_format;
/// assert_eq!(rfc3339(std::time::UNIX_EPOCH), "1970-01-01T00:00:00Z");
/// ```
pub fn rfc3339(at: SystemTime) -> String {
    let seconds = Timestamp::try_from(at).unwrap_or(Timestamp::MAX).as_second();
    Timestamp::from_second(seconds).unwrap_or(Timestamp::MAX).to_string()
}

/// Returns the Unix time in milliseconds, 0 before 1970.
#[cfg(feature = "serde")]
pub(crate) fn unix_millis(at: SystemTime) -> i64 {
    let millis = at.duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
    i64::try_from(millis).unwrap_or(i64::MAX)
}

/// Returns the time of a Unix time in milliseconds.
#[cfg(feature = "serde")]
pub(crate) fn from_unix_millis(millis: i64) -> SystemTime {
    UNIX_EPOCH + Duration::from_millis(u64::try_from(millis).unwrap_or_default())
}

/// Parses a time in any of the forms that people type and programs write.
///
/// Accepts RFC 3339, the output of SQLite's `datetime()` (UTC), a date alone (midnight UTC), and
/// Unix time in seconds (with or without a fraction), milliseconds or microseconds.
///
/// ```
/// use tower_quota::clock::parse_timestamp;
///
/// assert_eq!(parse_timestamp("2025-02-10 15:20:00"), parse_timestamp("1739200800"));
/// assert_eq!(parse_timestamp("yesterday"), None);
/// ```
pub fn parse_timestamp(text: &str) -> Option<SystemTime> {
    let text = text.trim();
    if let Ok(number) = text.parse::<i64>() {
        return unix(number);
    }
    if let Some(seconds) = fractional_seconds(text) {
        return Timestamp::from_duration(SignedDuration::try_from_secs_f64(seconds).ok()?)
            .ok()
            .map(SystemTime::from);
    }
    if let Ok(timestamp) = text.parse::<Timestamp>() {
        return Some(timestamp.into());
    }
    let datetime: DateTime = text.replace('/', "-").parse().ok()?;
    Some(datetime.to_zoned(TimeZone::UTC).ok()?.timestamp().into())
}

/// Parses Unix seconds with a fraction, as Python's `time.time()` returns them.
fn fractional_seconds(text: &str) -> Option<f64> {
    let (whole, fraction) = text.split_once('.')?;
    let is_digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    let is_number = is_digits(whole) && is_digits(fraction) && (1..=11).contains(&whole.len());
    if is_number { text.parse().ok() } else { None }
}

fn unix(number: i64) -> Option<SystemTime> {
    // 10^11 seconds are the year 5138, 10^11 milliseconds 1973, and 10^15 microseconds 2001.
    let timestamp = match number.unsigned_abs() {
        0..100_000_000_000 => Timestamp::from_second(number),
        100_000_000_000..1_000_000_000_000_000 => Timestamp::from_millisecond(number),
        1_000_000_000_000_000.. => Timestamp::from_microsecond(number),
    };
    timestamp.ok().map(SystemTime::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_accepted_forms_of_a_time_parse_to_the_same_instant() {
        for text in [
            "2025-02-10T15:20:00Z",
            "2025-02-10T23:20:00+08:00",
            "2025-02-10 15:20:00",
            "2025-02-10T15:20",
            "1739200800",
            "1739200800000",
            "1739200800000000",
            "1739200800.25",
            "2025/02/10 15:20:00",
        ] {
            let at = parse_timestamp(text).expect(text);
            assert_eq!(rfc3339(at), "2025-02-10T15:20:00Z", "{text}");
        }
        assert_eq!(parse_timestamp("2025-02-10").map(rfc3339).unwrap(), "2025-02-10T00:00:00Z");
        assert_eq!(parse_timestamp("yesterday"), None);
    }

    #[test]
    fn a_formatted_time_has_whole_seconds_and_at_most_year_9999() {
        let at = |seconds: u64| UNIX_EPOCH + Duration::from_millis(seconds * 1000 + 999);
        assert_eq!(rfc3339(at(1_739_200_800)), "2025-02-10T15:20:00Z");
        assert_eq!(rfc3339(at(1 << 40)), "9999-12-30T22:00:00Z");
    }
}
