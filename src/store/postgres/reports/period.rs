//! Days of quarters and years as bits, as the tables of sums have them. Each month counts for 31 days.

use std::ops::Range;

/// Day of a quarter or a year.
pub(super) struct PeriodDay {
    /// The year, such as `2026`, or the quarter, such as `2026-Q4`.
    pub(super) period: String,
    /// Number of the day in it, from 1.
    pub(super) day: usize,
    /// Number of days of each such period.
    days: usize,
}

impl PeriodDay {
    /// Parses a day such as `2026-11-22`.
    pub(super) fn of_quarter(day: &str) -> Self {
        let month = number(day, 5..7).saturating_sub(1);
        let period = format!("{}-Q{}", year(day), month / 3 + 1);
        Self { period, day: month % 3 * 31 + number(day, 8..10), days: 3 * 31 }
    }

    /// Parses a day such as `2026-11-22`.
    pub(super) fn of_year(day: &str) -> Self {
        let month = number(day, 5..7).saturating_sub(1);
        Self { period: year(day).to_owned(), day: month * 31 + number(day, 8..10), days: 12 * 31 }
    }

    /// Returns the condition for the rows of these periods whose column `days` has one of the days from `first` to
    /// `last`. `column` is that of the periods.
    pub(super) fn condition(column: &str, [first, last]: &[Self; 2]) -> String {
        let bits = |from: usize, to: usize| -> String {
            (1..=first.days).map(|day| if (from..=to).contains(&day) { '1' } else { '0' }).collect()
        };
        format!(
            "{column} BETWEEN '{first}' AND '{last}'
                 AND days & CASE {column} WHEN '{first}' THEN B'{since}' ELSE B'{all}' END
                 & CASE {column} WHEN '{last}' THEN B'{until}' ELSE B'{all}' END <> B'{none}'",
            since = bits(first.day, first.days),
            until = bits(1, last.day),
            all = bits(1, first.days),
            none = bits(1, 0),
            first = first.period,
            last = last.period,
        )
    }
}

fn year(day: &str) -> &str {
    day.get(..4).unwrap_or_default()
}

fn number(day: &str, digits: Range<usize>) -> usize {
    day.get(digits).and_then(|digits| digits.parse().ok()).unwrap_or(1)
}
