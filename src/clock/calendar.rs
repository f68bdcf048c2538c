use std::{cell::RefCell, fmt, sync::Arc, time::SystemTime};

use jiff::{Timestamp, tz::TimeZone};

use super::Day;

/// When the day turns: the calendar of one IANA time zone.
///
/// Days of 23 and 25 hours, and days whose midnight does not exist, are as long as the zone says.
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

thread_local! {
    /// The window that was asked for last, and the zone it belongs to: a request asks for the same
    /// day as the one before, and threads need not meet for that.
    static LATEST: RefCell<Option<(Arc<str>, Window)>> = const { RefCell::new(None) };
}

/// One day: from `start` until just before `end`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// The day.
    pub day: Day,
    /// Its first instant.
    pub start: SystemTime,
    /// The next day's first instant: when the quota resets.
    pub end: SystemTime,
}

/// No time zone of this name is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnknownTimeZone(String);

impl Calendar {
    /// The calendar of an IANA time zone such as `Europe/Berlin`.
    pub fn new(zone: &str) -> Result<Self, UnknownTimeZone> {
        let found = TimeZone::get(zone).map_err(|_| UnknownTimeZone(zone.to_owned()))?;
        Ok(Self::from_zone(found, zone))
    }

    /// The calendar of UTC.
    pub fn utc() -> Self {
        Self::from_zone(TimeZone::UTC, "UTC")
    }

    fn from_zone(zone: TimeZone, name: &str) -> Self {
        Self { zone, name: name.into() }
    }

    /// The zone's IANA name.
    pub fn time_zone(&self) -> &str {
        &self.name
    }

    /// The day that holds this instant.
    pub fn window(&self, at: SystemTime) -> Window {
        LATEST.with_borrow_mut(|latest| match latest {
            Some((zone, window))
                if Arc::ptr_eq(zone, &self.name) && window.start <= at && at < window.end =>
            {
                *window
            }
            _ => {
                let window = self.compute(at);
                *latest = Some((self.name.clone(), window));
                window
            }
        })
    }

    /// The window of a day that is known by its date.
    pub fn window_of(&self, day: Day) -> Window {
        Window {
            day,
            start: self.first_instant(day.date()),
            end: self.first_instant(day.date().saturating_add(jiff::Span::new().days(1))),
        }
    }

    fn compute(&self, at: SystemTime) -> Window {
        let timestamp = Timestamp::try_from(at).unwrap_or(Timestamp::UNIX_EPOCH);
        self.window_of(Day::from_date(self.zone.to_datetime(timestamp).date()))
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
        write!(f, "unknown time zone {:?}: an IANA name such as Asia/Shanghai is needed", self.0)
    }
}

impl std::error::Error for UnknownTimeZone {}
