use std::{fmt, str::FromStr};

use jiff::civil::Date;
#[cfg(feature = "serde")]
use serde::{Serialize, Serializer};

/// Calendar day in the quota's time zone, formatted and parsed as `2026-11-22`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Day(Date);

/// Error for a text that is not a calendar day of the form `2026-11-22`.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct InvalidDay;

impl Day {
    pub(crate) fn from_date(date: Date) -> Self {
        Self(date)
    }

    pub(crate) fn date(self) -> Date {
        self.0
    }

    /// Returns the day that is `days` earlier, saturating at the first representable day.
    #[must_use]
    pub fn minus(self, days: u32) -> Self {
        Self(self.0.saturating_sub(jiff::Span::new().days(i64::from(days))))
    }

    /// Formats the day as eight digits, for example `20261122`.
    pub(crate) fn compact(self) -> String {
        self.0.strftime("%Y%m%d").to_string()
    }
}

impl fmt::Display for Day {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for Day {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for Day {
    type Err = InvalidDay;

    fn from_str(text: &str) -> Result<Self, InvalidDay> {
        // jiff also accepts a sign, a time and other ISO 8601 forms.
        if text.len() != 10 || !text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'-') {
            return Err(InvalidDay);
        }
        text.parse().map(Self).map_err(|_| InvalidDay)
    }
}

#[cfg(feature = "serde")]
impl Serialize for Day {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl fmt::Display for InvalidDay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("not a calendar day of the form 2026-11-22")
    }
}

impl std::error::Error for InvalidDay {}
