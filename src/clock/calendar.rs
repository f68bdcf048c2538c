use std::{cell::RefCell, fmt, sync::Arc, time::SystemTime};

use jiff::{Timestamp, tz::TimeZone};

use super::{Day, Period};

/// Calendar of one IANA time zone, which determines when a day begins and ends.
///
/// Days have the length that the time zone gives them: 23 or 25 hours at a change of daylight
/// saving time, and a day without a midnight begins at its first instant.
///
/// ```
/// use std::time::{Duration, UNIX_EPOCH};
/// use tower_quota::clock::Calendar;
///
/// let shanghai = Calendar::new("Asia/Shanghai")?;
/// let window = shanghai.window(UNIX_EPOCH + Duration::from_secs(16 * 3600));
/// assert_eq!(window.day.to_string(), "1970-01-02");
/// assert_eq!(window.end, UNIX_EPOCH + Duration::from_secs(40 * 3600));
/// # Ok::<(), tower_quota::clock::UnknownTimeZone>(())
/// ```
#[derive(Clone)]
pub struct Calendar {
    zone: TimeZone,
    name: Arc<str>,
}

/// A window, and the zone for which it was computed.
type CachedWindow = Option<(Arc<str>, Window)>;

thread_local! {
    /// The window of each period that this thread computed last. Most requests fall into the same window as
    /// the previous one, and a thread-local needs no synchronisation.
    static LATEST: RefCell<[CachedWindow; Period::ALL.len()]> =
        const { RefCell::new([const { None }; Period::ALL.len()]) };
}

/// Time span of a day or a longer [`Period`], from `start` (inclusive) to `end` (exclusive).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// First day of the period.
    pub day: Day,
    /// First instant of that day.
    pub start: SystemTime,
    /// First instant of the next period, at which the quota resets.
    pub end: SystemTime,
}

/// Error for a name that is not the name of a known IANA time zone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnknownTimeZone(String);

impl Calendar {
    /// Creates the calendar of an IANA time zone such as `Europe/Berlin`.
    ///
    /// # Errors
    ///
    /// The time zone is not in the machine's database of them.
    pub fn new(name: &str) -> Result<Self, UnknownTimeZone> {
        let zone = TimeZone::get(name).map_err(|_| UnknownTimeZone(name.to_owned()))?;
        Ok(Self::from_zone(zone, name))
    }

    /// Creates the calendar of UTC.
    pub fn utc() -> Self {
        Self::from_zone(TimeZone::UTC, "UTC")
    }

    fn from_zone(zone: TimeZone, name: &str) -> Self {
        Self { zone, name: name.into() }
    }

    /// Returns the IANA name of the time zone.
    pub fn time_zone(&self) -> &str {
        &self.name
    }

    /// Returns the window of the day that contains the instant `at`.
    pub fn window(&self, at: SystemTime) -> Window {
        self.window_in(Period::Day, at)
    }

    /// Returns the window of `day`.
    pub fn window_of(&self, day: Day) -> Window {
        self.window_from(Period::Day, day)
    }

    /// Returns the window of the period that contains the instant `at`.
    pub fn window_in(&self, period: Period, at: SystemTime) -> Window {
        LATEST.with_borrow_mut(|latest| match &mut latest[period as usize] {
            Some((zone, window))
                if Arc::ptr_eq(zone, &self.name) && window.start <= at && at < window.end =>
            {
                *window
            }
            latest => {
                let window = self.compute(period, at);
                *latest = Some((self.name.clone(), window));
                window
            }
        })
    }

    /// Returns the window of the period that begins on `first`.
    pub(crate) fn window_from(&self, period: Period, first: Day) -> Window {
        Window {
            day: first,
            start: self.first_instant(first.date()),
            end: self.first_instant(period.next_date(first.date())),
        }
    }

    fn compute(&self, period: Period, at: SystemTime) -> Window {
        let timestamp = Timestamp::try_from(at).unwrap_or(Timestamp::UNIX_EPOCH);
        let date = self.zone.to_datetime(timestamp).date();
        self.window_from(period, Day::from_date(period.first_date(date)))
    }

    fn first_instant(&self, date: jiff::civil::Date) -> SystemTime {
        date.to_zoned(self.zone.clone())
            .map(|midnight| midnight.timestamp().into())
            .unwrap_or(SystemTime::UNIX_EPOCH)
    }
}

impl Default for Calendar {
    fn default() -> Self {
        Self::utc()
    }
}

impl fmt::Debug for Calendar {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Calendar").field(&self.name).finish()
    }
}

impl fmt::Display for UnknownTimeZone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "unknown time zone {:?}: expected an IANA name such as Asia/Shanghai", self.0)
    }
}

impl std::error::Error for UnknownTimeZone {}
