use jiff::{ToSpan, civil::Date};

/// Declares the periods and the list of them.
macro_rules! periods {
    ($($(#[$attribute:meta])* $name:ident,)*) => {
        /// Period in which the units of a quota are counted, by the calendar.
        ///
        /// There are no longer ones than a day so far. A [`QuotaStore`](crate::store::QuotaStore) of your own may
        /// count by the month all the same: a quota resets when the status that the store returns says so. Headers
        /// and texts of your own should then replace the default ones, which speak of a day.
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
}

impl Period {
    /// The default.
    pub(crate) const DEFAULT: Self = Self::Day;

    /// Returns the name of the period, for example `day`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Day => "day",
        }
    }

    /// Returns the usual length of the period in seconds, as in the header `RateLimit-Policy`.
    pub const fn seconds(self) -> u64 {
        match self {
            Self::Day => 86_400,
        }
    }

    /// Returns the first date of the period that contains `date`.
    pub(super) fn first_date(self, date: Date) -> Date {
        match self {
            Self::Day => date,
        }
    }

    /// Returns the date after the period that begins on `first`.
    pub(super) fn next_date(self, first: Date) -> Date {
        match self {
            Self::Day => first.saturating_add(1.day()),
        }
    }
}
