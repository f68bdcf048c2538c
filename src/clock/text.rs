use std::time::SystemTime;

use jiff::{SignedDuration, Timestamp, civil::DateTime, tz::TimeZone};

/// RFC 3339 in UTC with `Z`, whole seconds.
pub(crate) fn rfc3339(at: SystemTime) -> String {
    let seconds = Timestamp::try_from(at).map_or(0, |timestamp| timestamp.as_second());
    Timestamp::from_second(seconds).unwrap_or_default().to_string()
}

/// An instant in any form that people type and programs write: RFC 3339, SQLite's `datetime` (UTC), a
/// bare day, Unix seconds (also broken ones), milliseconds or microseconds.
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
    if let Some(seconds) = broken_seconds(text) {
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

/// Seconds with a fraction, as Python's `time.time()` has them.
fn broken_seconds(text: &str) -> Option<f64> {
    let (whole, fraction) = text.split_once('.')?;
    let is_plain = |digits: &str| digits.bytes().all(|byte| byte.is_ascii_digit());
    let is_number = is_plain(whole) && is_plain(fraction) && (1..=11).contains(&whole.len());
    if is_number { text.parse().ok() } else { None }
}

fn unix(number: i64) -> Option<SystemTime> {
    // 10^11 seconds is the year 5138, 10^11 milliseconds 1973, and 10^15 microseconds 2001.
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
    fn every_form_that_people_type_is_the_same_instant() {
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
}
