//! The in-memory counter of one subject's day, which every back end shares.

use std::time::SystemTime;

use super::sync::{Mutex, MutexGuard, lock};
use crate::{
    clock::{Calendar, Day, Window},
    store::{QuotaStatus, QuotaSubject, Refund},
};

/// Counts the units of one subject, one day at a time.
///
/// A unit is taken under a lock that is held for a few instructions, never across an `.await`. `A`
/// is what a back end keeps beside the count of one [`Origin`]; it begins anew with each.
#[derive(Debug)]
pub(crate) struct DayCounter<A = ()>(Mutex<(Count, A)>);

/// What is counted of one day.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Count {
    /// The day.
    pub(crate) day: Day,
    /// How often the subject's days were reset.
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

    /// Another day, unused.
    pub(crate) fn on(&self, day: Day) -> Self {
        Self { epoch: self.epoch, ..Self::new(day) }
    }

    /// The origin that a reset begins when it is this day by the clock. Only a reset leads back from a day
    /// on which a clock that was ahead has put the subject.
    pub(crate) fn after_reset(&self, day: Day) -> Origin {
        Origin { day, epoch: self.epoch + 1 }
    }

    /// `window` is the day by the clock, which may have stepped back behind the one counted.
    fn status(&self, subject: &QuotaSubject, calendar: &Calendar, window: &Window) -> QuotaStatus {
        let counted = if self.day == window.day { *window } else { calendar.window_of(self.day) };
        QuotaStatus::new(self.day, subject.daily_limit, self.used, counted.end)
    }
}

impl<A: Default> DayCounter<A> {
    pub(crate) fn new(count: Count) -> Self {
        Self(Mutex::new((count, A::default())))
    }

    fn lock(&self) -> MutexGuard<'_, (Count, A)> {
        lock(&self.0)
    }

    /// The count on this day. A clock that steps back never reopens a day: the later one goes on.
    fn on(&self, day: Day) -> MutexGuard<'_, (Count, A)> {
        let mut state = self.lock();
        if day > state.0.day {
            *state = (state.0.on(day), A::default());
        }
        state
    }

    /// Takes one unit if one is left. `keep` learns what was counted before it, and the unit is
    /// taken only if it succeeds; no other unit is taken and no day reset meanwhile.
    pub(crate) fn reserve<T, E>(
        &self,
        subject: &QuotaSubject,
        calendar: &Calendar,
        at: SystemTime,
        keep: impl FnOnce(&Count, &mut A) -> Result<T, E>,
    ) -> Result<(Option<T>, QuotaStatus), E> {
        let window = calendar.window(at);
        let mut state = self.on(window.day);
        let (count, beside) = &mut *state;
        let full = subject.daily_limit.limited().is_some_and(|limit| count.used >= limit);
        let kept = if full { None } else { Some(keep(count, beside)?) };
        count.used += u64::from(kept.is_some());
        Ok((kept, count.status(subject, calendar, &window)))
    }

    /// Where the subject stands.
    pub(crate) fn status(
        &self,
        subject: &QuotaSubject,
        calendar: &Calendar,
        at: SystemTime,
    ) -> QuotaStatus {
        let window = calendar.window(at);
        self.on(window.day).0.status(subject, calendar, &window)
    }

    /// Gives a unit back if its day and reset are still the current ones, the condition holds and
    /// `keep` succeeds, which learns how many stay used. Returns whether it was given back.
    pub(crate) fn refund(
        &self,
        origin: Origin,
        subject: &QuotaSubject,
        refund: Refund,
        keep: impl FnOnce(u64, &mut A) -> bool,
    ) -> bool {
        let mut state = self.lock();
        let (count, beside) = &mut *state;
        let capped = refund == Refund::UpToLimit;
        let limit = subject.daily_limit.limited().unwrap_or(u64::MAX);
        let current = count.origin() == origin && count.used > 0;
        if !current || (capped && count.refunded >= limit) || !keep(count.used - 1, beside) {
            return false;
        }
        count.refunded += u64::from(capped);
        count.used -= 1;
        true
    }

    /// Gives a unit back that was not counted after all. If its day and reset are still the current
    /// ones, `keep` learns how many stay used; returns whether they are.
    pub(crate) fn undo(&self, origin: Origin, keep: impl FnOnce(u64, &mut A)) -> bool {
        let mut state = self.lock();
        let (count, beside) = &mut *state;
        let is_current = count.origin() == origin;
        if is_current {
            count.used = count.used.saturating_sub(1);
            keep(count.used, beside);
        }
        is_current
    }

    /// The day begins anew with the origin that `anew` makes of the present count, if that is a
    /// later one. No unit is taken meanwhile.
    pub(crate) fn reset(&self, anew: impl FnOnce(&Count) -> Origin) {
        let mut state = self.lock();
        let origin = anew(&state.0);
        if origin.epoch > state.0.epoch {
            *state = (Count { epoch: origin.epoch, ..Count::new(origin.day) }, A::default());
        }
    }

    /// What is counted.
    pub(crate) fn count(&self) -> Count {
        self.lock().0
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
        let keep = |count: &Count, (): &mut ()| Ok::<_, ()>(count.origin());
        counter.reserve(&subject(limit), &Calendar::utc(), noon(day), keep).unwrap().0
    }

    #[test]
    fn a_late_refund_of_yesterday_or_of_before_a_reset_never_touches_today() {
        let counter: DayCounter = DayCounter::new(Count::new("2026-11-22".parse().unwrap()));
        let yesterday = take(&counter, 1, "2026-11-22").unwrap();
        let today = take(&counter, 1, "2026-11-23").unwrap();
        assert!(!counter.refund(yesterday, &subject(1), Refund::Always, |_, ()| true));
        assert_eq!(take(&counter, 1, "2026-11-23"), None);
        counter.reset(|count| count.after_reset(today.day));
        take(&counter, 1, "2026-11-23").unwrap();
        assert!(!counter.refund(today, &subject(1), Refund::Always, |_, ()| true));
        assert_eq!(take(&counter, 1, "2026-11-23"), None);
    }

    #[test]
    fn a_clock_that_steps_back_never_reopens_a_day() {
        let counter: DayCounter = DayCounter::new(Count::new("2026-11-22".parse().unwrap()));
        take(&counter, 1, "2026-11-23").unwrap();
        assert_eq!(take(&counter, 1, "2026-11-22"), None);
        let status = counter.status(&subject(1), &Calendar::utc(), noon("2026-11-22"));
        assert_eq!(status.resets_at, noon("2026-11-23") + Duration::from_secs(12 * 3600));
    }

    #[test]
    fn provoked_refunds_are_at_most_the_limit() {
        let counter: DayCounter = DayCounter::new(Count::new("2026-11-22".parse().unwrap()));
        let mut admitted = 0;
        while let Some(origin) = take(&counter, 5, "2026-11-22") {
            admitted += 1;
            counter.refund(origin, &subject(5), Refund::UpToLimit, |_, ()| true);
        }
        assert_eq!(admitted, 10);
    }
}
