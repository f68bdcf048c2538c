//! The in-memory counter of one subject's day, which every back end shares.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::SystemTime,
};

use super::{QuotaSubject, Refund, Standing};
use crate::clock::{Calendar, Day, Window};

/// Counts the units of one subject, one day at a time.
///
/// A unit is taken under a lock that is held for a few instructions, never across an `.await`.
#[derive(Debug)]
pub(crate) struct DayCounter(Mutex<Count>);

/// What is counted of one day.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Count {
    /// The day.
    pub(crate) day: Day,
    /// How often it was reset.
    pub(crate) epoch: u32,
    /// Units used since the last reset.
    pub(crate) used: u64,
    /// Units given back under [`Refund::UpToLimit`].
    pub(crate) refunded: u64,
}

/// The day and reset that a unit was taken from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Origin {
    pub(crate) day: Day,
    pub(crate) epoch: u32,
}

impl Count {
    /// An unused day.
    pub(crate) fn new(day: Day) -> Self {
        Self { day, epoch: 0, used: 0, refunded: 0 }
    }

    pub(crate) fn origin(&self) -> Origin {
        Origin { day: self.day, epoch: self.epoch }
    }

    /// Begins a later day. A clock that steps back never reopens a day: the later one goes on.
    fn turn_to(&mut self, day: Day) {
        if day > self.day {
            *self = Self::new(day);
        }
    }

    /// `window` is the day by the clock, which may have stepped back behind the one counted.
    fn standing(&self, subject: &QuotaSubject, calendar: &Calendar, window: &Window) -> Standing {
        let counted = if self.day == window.day { *window } else { calendar.window_of(self.day) };
        Standing::new(self.day, subject.daily_limit, self.used, counted.end)
    }
}

impl DayCounter {
    pub(crate) fn new(count: Count) -> Self {
        Self(Mutex::new(count))
    }

    fn lock(&self) -> MutexGuard<'_, Count> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes one unit if one is left, and hands its origin to `keep` before another can be taken or
    /// the day be reset. The unit is taken only if `keep` succeeds.
    pub(crate) fn reserve<T, E>(
        &self,
        subject: &QuotaSubject,
        calendar: &Calendar,
        at: SystemTime,
        keep: impl FnOnce(Origin) -> Result<T, E>,
    ) -> Result<(Option<T>, Standing), E> {
        let window = calendar.window(at);
        let mut count = self.lock();
        count.turn_to(window.day);
        let full = subject.daily_limit.limited().is_some_and(|limit| count.used >= limit);
        let kept = if full { None } else { Some(keep(count.origin())?) };
        count.used += u64::from(kept.is_some());
        Ok((kept, count.standing(subject, calendar, &window)))
    }

    /// Where the subject stands.
    pub(crate) fn standing(
        &self,
        subject: &QuotaSubject,
        calendar: &Calendar,
        at: SystemTime,
    ) -> Standing {
        let window = calendar.window(at);
        let mut count = self.lock();
        count.turn_to(window.day);
        count.standing(subject, calendar, &window)
    }

    /// Gives a unit back if its day and reset are still the current ones, the condition holds and
    /// `keep` succeeds. Returns whether it was given back.
    pub(crate) fn refund(
        &self,
        origin: Origin,
        subject: &QuotaSubject,
        refund: Refund,
        keep: impl FnOnce() -> bool,
    ) -> bool {
        let mut count = self.lock();
        let capped = refund == Refund::UpToLimit;
        let limit = subject.daily_limit.limited().unwrap_or(u64::MAX);
        let current = count.origin() == origin && count.used > 0;
        if !current || (capped && count.refunded >= limit) || !keep() {
            return false;
        }
        count.refunded += u64::from(capped);
        count.used -= 1;
        true
    }

    /// Begins the day anew and hands the new origin to `keep` before another unit can be taken. The
    /// day is reset only if `keep` succeeds.
    pub(crate) fn reset<T, E>(
        &self,
        day: Day,
        keep: impl FnOnce(Origin) -> Result<T, E>,
    ) -> Result<T, E> {
        let mut count = self.lock();
        count.turn_to(day);
        let anew = Count { epoch: count.epoch + 1, ..Count::new(count.day) };
        let kept = keep(anew.origin())?;
        *count = anew;
        Ok(kept)
    }

    /// The day that is counted.
    #[cfg(feature = "sqlite")]
    pub(crate) fn day(&self) -> Day {
        self.lock().day
    }

    /// Goes on from what a back end has kept, after it lost something.
    #[cfg(feature = "sqlite")]
    pub(crate) fn restore(&self, count: Count) {
        *self.lock() = count;
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::key::DailyLimit;

    fn subject(limit: u32) -> QuotaSubject {
        QuotaSubject::new("s".into(), DailyLimit::new(limit).unwrap())
    }

    fn noon(day: &str) -> SystemTime {
        Calendar::utc().window_of(day.parse().unwrap()).start + Duration::from_secs(12 * 3600)
    }

    fn take(counter: &DayCounter, limit: u32, day: &str) -> Option<Origin> {
        counter.reserve(&subject(limit), &Calendar::utc(), noon(day), Ok::<_, ()>).unwrap().0
    }

    #[test]
    fn a_late_refund_of_yesterday_or_of_before_a_reset_never_touches_today() {
        let counter = DayCounter::new(Count::new("2026-11-22".parse().unwrap()));
        let yesterday = take(&counter, 1, "2026-11-22").unwrap();
        let today = take(&counter, 1, "2026-11-23").unwrap();
        assert!(!counter.refund(yesterday, &subject(1), Refund::Always, || true));
        assert_eq!(take(&counter, 1, "2026-11-23"), None);
        counter.reset("2026-11-23".parse().unwrap(), |_| Ok::<_, ()>(())).unwrap();
        take(&counter, 1, "2026-11-23").unwrap();
        assert!(!counter.refund(today, &subject(1), Refund::Always, || true));
        assert_eq!(take(&counter, 1, "2026-11-23"), None);
    }

    #[test]
    fn a_clock_that_steps_back_never_reopens_a_day() {
        let counter = DayCounter::new(Count::new("2026-11-22".parse().unwrap()));
        take(&counter, 1, "2026-11-23").unwrap();
        assert_eq!(take(&counter, 1, "2026-11-22"), None);
        let standing = counter.standing(&subject(1), &Calendar::utc(), noon("2026-11-22"));
        assert_eq!(standing.resets_at, noon("2026-11-23") + Duration::from_secs(12 * 3600));
    }

    #[test]
    fn provoked_refunds_are_at_most_the_limit() {
        let counter = DayCounter::new(Count::new("2026-11-22".parse().unwrap()));
        let mut admitted = 0;
        while let Some(origin) = take(&counter, 5, "2026-11-22") {
            admitted += 1;
            counter.refund(origin, &subject(5), Refund::UpToLimit, || true);
        }
        assert_eq!(admitted, 10);
    }
}
