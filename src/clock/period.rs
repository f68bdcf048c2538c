use jiff::{ToSpan, civil::Date};

use super::Day;

/// Declares the periods and the list of them.
macro_rules! periods {
    ($($(#[$attribute:meta])* $name:ident,)*) => {
        /// Period in which the units of a quota are counted, by the calendar of the store's time zone.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[non_exhaustive]
        pub enum Period {
            $($(#[$attribute])* $name,)*
        }

        impl Period {
            /// All periods.
            pub const ALL: &[Self] = &[$(Self::$name),*];
        }
    };
}

periods! {
    /// One day.
    #[default]
    Day,
    /// One calendar month, from its first day on.
    Month,
}

impl Period {
    /// The default.
    pub(crate) const DEFAULT: Self = Self::Day;

    /// Returns the name of the period, for example `day`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Day => "day",
            Self::Month => "month",
        }
    }

    /// Returns the length in seconds of the period that begins on `first`, as in the header `RateLimit-Policy`. Changes
    /// of daylight saving time are not in it.
    pub fn seconds(self, first: Day) -> u64 {
        const DAY: u64 = 86_400;
        match self {
            Self::Day => DAY,
            Self::Month => DAY * u64::from(first.date().days_in_month().unsigned_abs()),
        }
    }

    /// Returns the first date of the period that contains `date`.
    pub(super) fn first_date(self, date: Date) -> Date {
        match self {
            Self::Day => date,
            Self::Month => date.first_of_month(),
        }
    }

    /// Returns the date after the period that begins on `first`.
    pub(super) fn next_date(self, first: Date) -> Date {
        match self {
            Self::Day => first.saturating_add(1.day()),
            Self::Month => first.saturating_add(1.month()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use super::*;
    use crate::clock::{Calendar, parse_timestamp, rfc3339};

    fn at(text: &str) -> SystemTime {
        parse_timestamp(text).unwrap()
    }

    #[test]
    fn a_month_begins_and_ends_at_midnight_of_the_time_zone() {
        for (zone, now, first, start, end, days) in [
            (
                "UTC",
                "2028-02-29T23:59:59Z",
                "2028-02-01",
                "2028-02-01T00:00:00Z",
                "2028-03-01T00:00:00Z",
                29,
            ),
            (
                "UTC",
                "2026-12-31T23:59:59Z",
                "2026-12-01",
                "2026-12-01T00:00:00Z",
                "2027-01-01T00:00:00Z",
                31,
            ),
            // Daylight saving time begins in March and ends in October.
            (
                "Europe/Berlin",
                "2026-02-28T23:00:00Z",
                "2026-03-01",
                "2026-02-28T23:00:00Z",
                "2026-03-31T22:00:00Z",
                31,
            ),
            (
                "Europe/Berlin",
                "2026-10-31T22:59:59Z",
                "2026-10-01",
                "2026-09-30T22:00:00Z",
                "2026-10-31T23:00:00Z",
                31,
            ),
        ] {
            let window = Calendar::new(zone).unwrap().window_in(Period::Month, at(now));
            assert_eq!(window.day.to_string(), first, "{zone} {now}");
            assert_eq!([rfc3339(window.start), rfc3339(window.end)], [start, end], "{zone} {now}");
            assert_eq!(Period::Month.seconds(window.day), days * 86_400, "{zone} {now}");
        }
    }

    #[test]
    fn each_instant_is_in_one_month() {
        let calendar = Calendar::new("Europe/Berlin").unwrap();
        let window = calendar.window_in(Period::Month, at("2026-12-31T22:59:59Z"));
        let next = calendar.window_in(Period::Month, window.end);
        assert_eq!((next.day.to_string().as_str(), next.start), ("2027-01-01", window.end));
        assert_eq!(calendar.window_in(Period::Month, window.end - Duration::from_nanos(1)), window);
    }
}
