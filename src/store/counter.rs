//! The in-memory counter of one subject's day, which every back end shares.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::SystemTime,
};

use super::{QuotaSubject, Refund, Standing};
use crate::clock::{Day, Window};

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
        Self {
            day,
            epoch: 0,
            used: 0,
            refunded: 0,
        }
    }

    pub(crate) fn origin(&self) -> Origin {
        Origin {
            day: self.day,
            epoch: self.epoch,
        }
    }

    /// Begins a later day. A clock that steps back never reopens a day: the later one goes on.
    fn turn_to(&mut self, day: Day) {
        if day > self.day {
            *self = Self::new(day);
        }
    }

    fn standing(&self, subject: &QuotaSubject, resets_at: SystemTime) -> Standing {
        Standing::new(self.day, subject.daily_limit, self.used, resets_at)
    }
}

impl DayCounter {
    pub(crate) fn new(count: Count) -> Self {
        Self(Mutex::new(count))
    }

    fn lock(&self) -> MutexGuard<'_, Count> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes one unit, and tells `taken` of it before another can be taken or the day be reset.
    /// `None` in the first place if nothing is left.
    pub(crate) fn reserve<T>(
        &self,
        subject: &QuotaSubject,
        window: &Window,
        taken: impl FnOnce(Origin) -> T,
    ) -> (Option<T>, Standing) {
        let mut count = self.lock();
        count.turn_to(window.day);
        let full = subject
            .daily_limit
            .limited()
            .is_some_and(|limit| count.used >= limit);
        let taken = (!full).then(|| {
            count.used += 1;
            taken(count.origin())
        });
        (taken, count.standing(subject, window.end))
    }

    /// Where the subject stands.
    pub(crate) fn standing(&self, subject: &QuotaSubject, window: &Window) -> Standing {
        let mut count = self.lock();
        count.turn_to(window.day);
        count.standing(subject, window.end)
    }

    /// Gives a unit back, and tells `given` of it, if its day and reset are still the current ones
    /// and the condition holds.
    pub(crate) fn refund(
        &self,
        origin: Origin,
        subject: &QuotaSubject,
        refund: Refund,
        given: impl FnOnce(),
    ) -> bool {
        let mut count = self.lock();
        if count.origin() != origin || count.used == 0 {
            return false;
        }
        if refund == Refund::UpToLimit {
            let limit = subject.daily_limit.limited().unwrap_or(u64::MAX);
            if count.refunded >= limit {
                return false;
            }
            count.refunded += 1;
        }
        count.used -= 1;
        given();
        true
    }

    /// Takes back a unit that could not be made durable.
    pub(crate) fn undo(&self, origin: Origin) {
        let mut count = self.lock();
        if count.origin() == origin {
            count.used = count.used.saturating_sub(1);
        }
    }

    /// Begins the day anew, and tells `reset` of it before another unit can be taken. Returns what
    /// had been used.
    pub(crate) fn reset(&self, day: Day, reset: impl FnOnce(Origin)) -> u64 {
        let mut count = self.lock();
        count.turn_to(day);
        let used = count.used;
        *count = Count {
            epoch: count.epoch + 1,
            ..Count::new(count.day)
        };
        reset(count.origin());
        used
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{clock::Calendar, key::DailyLimit};

    fn subject(limit: u32) -> QuotaSubject {
        QuotaSubject::new("s".into(), DailyLimit::new(limit).unwrap())
    }

    fn window(day: &str) -> Window {
        Calendar::utc().window_of(day.parse().unwrap())
    }

    fn take(counter: &DayCounter, limit: u32, day: &str) -> Option<Origin> {
        counter
            .reserve(&subject(limit), &window(day), |origin| origin)
            .0
    }

    #[test]
    fn a_late_refund_of_yesterday_or_of_before_a_reset_never_touches_today() {
        let counter = DayCounter::new(Count::new("2026-11-22".parse().unwrap()));
        let yesterday = take(&counter, 1, "2026-11-22").unwrap();
        let today = take(&counter, 1, "2026-11-23").unwrap();
        assert!(!counter.refund(yesterday, &subject(1), Refund::Always, || ()));
        assert_eq!(take(&counter, 1, "2026-11-23"), None);
        counter.reset("2026-11-23".parse().unwrap(), |_| ());
        take(&counter, 1, "2026-11-23").unwrap();
        assert!(!counter.refund(today, &subject(1), Refund::Always, || ()));
        assert_eq!(take(&counter, 1, "2026-11-23"), None);
    }

    #[test]
    fn a_clock_that_steps_back_never_reopens_a_day() {
        let counter = DayCounter::new(Count::new("2026-11-22".parse().unwrap()));
        take(&counter, 1, "2026-11-23").unwrap();
        assert_eq!(take(&counter, 1, "2026-11-22"), None);
    }

    #[test]
    fn provoked_refunds_are_at_most_the_limit() {
        let counter = DayCounter::new(Count::new("2026-11-22".parse().unwrap()));
        let mut admitted = 0;
        while let Some(origin) = take(&counter, 5, "2026-11-22") {
            admitted += 1;
            counter.refund(origin, &subject(5), Refund::UpToLimit, || ());
        }
        assert_eq!(admitted, 10);
    }
}
