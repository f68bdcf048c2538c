//! The in-memory counter of one subject's day, which every back end shares.

use std::time::SystemTime;

use super::sync::{Mutex, MutexGuard, lock};
use crate::{
    clock::{Calendar, Day, Window},
    key::{DailyLimit, KeyId},
    store::{Demand, QuotaName, QuotaStatus, Refund},
};

/// Counts the units of one subject in one quota, one day at a time.
///
/// Units are taken under a lock that is held for a few instructions, never across an `.await`. `A`
/// is what a back end keeps beside the count of one [`Origin`]; it begins anew with each.
#[derive(Debug)]
pub(crate) struct DayCounter<A = ()> {
    key: CounterKey,
    state: Mutex<(Count, A)>,
}

/// Which counter it is.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct CounterKey {
    pub(crate) quota: QuotaName,
    pub(crate) subject: KeyId,
}

impl CounterKey {
    /// The subject's counter of the daily quota.
    pub(crate) fn daily(subject: KeyId) -> Self {
        Self { quota: QuotaName::DAILY, subject }
    }
}

impl From<&Demand> for CounterKey {
    fn from(demand: &Demand) -> Self {
        Self { quota: demand.quota, subject: demand.subject.clone() }
    }
}

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
}

impl<A: Default> DayCounter<A> {
    pub(crate) fn new(key: CounterKey, count: Count) -> Self {
        Self { key, state: Mutex::new((count, A::default())) }
    }

    /// Which counter it is.
    pub(crate) fn key(&self) -> &CounterKey {
        &self.key
    }

    fn lock(&self) -> MutexGuard<'_, (Count, A)> {
        lock(&self.state)
    }

    /// The count on this day. A clock that steps back never reopens a day: the later one goes on.
    fn on(&self, day: Day) -> MutexGuard<'_, (Count, A)> {
        let mut state = self.lock();
        if day > state.0.day {
            *state = (state.0.on(day), A::default());
        }
        state
    }

    /// `window` is the day by the clock, which may have stepped back behind the one counted.
    fn status_of(
        &self,
        count: &Count,
        limit: DailyLimit,
        calendar: &Calendar,
        window: &Window,
    ) -> QuotaStatus {
        let counted = if count.day == window.day { *window } else { calendar.window_of(count.day) };
        QuotaStatus::new(count.day, limit, count.used, counted.end).quota(self.key.quota)
    }

    /// Takes the units if as many are left. `keep` gets what was counted before them, and they are
    /// taken only if it succeeds; no other unit is taken and no day reset meanwhile.
    pub(crate) fn reserve<T, E>(
        &self,
        demand: &Demand,
        calendar: &Calendar,
        keep: impl FnOnce(&Count, &mut A) -> Result<T, E>,
    ) -> Result<(Option<T>, QuotaStatus), E> {
        let window = calendar.window(demand.at);
        let mut state = self.on(window.day);
        let (count, beside) = &mut *state;
        let used = count.used.checked_add(demand.amount);
        let limit = demand.limit.limited().unwrap_or(u64::MAX);
        let kept = match used.filter(|used| *used <= limit) {
            None => None,
            Some(used) => {
                let kept = keep(count, beside)?;
                count.used = used;
                Some(kept)
            }
        };
        Ok((kept, self.status_of(count, demand.limit, calendar, &window)))
    }

    /// Where the subject stands.
    pub(crate) fn status(
        &self,
        limit: DailyLimit,
        calendar: &Calendar,
        at: SystemTime,
    ) -> QuotaStatus {
        let window = calendar.window(at);
        self.status_of(&self.on(window.day).0, limit, calendar, &window)
    }

    /// Gives units back if their day and reset are still the current ones, the condition holds and
    /// `keep` succeeds, which gets how many stay used. Returns whether they were given back.
    pub(crate) fn refund(
        &self,
        origin: Origin,
        amount: u64,
        limit: DailyLimit,
        refund: Refund,
        keep: impl FnOnce(u64, &mut A) -> bool,
    ) -> bool {
        let mut state = self.lock();
        let (count, beside) = &mut *state;
        let provoked = if refund == Refund::UpToLimit { amount } else { 0 };
        let refunded = count.refunded.saturating_add(provoked);
        let limit = limit.limited().unwrap_or(u64::MAX);
        if count.origin() != origin || (provoked > 0 && refunded > limit) {
            return false;
        }
        let Some(left) = count.used.checked_sub(amount) else { return false };
        if !keep(left, beside) {
            return false;
        }
        (count.used, count.refunded) = (left, refunded);
        true
    }

    /// Counts `actual` units instead of `reserved` ones, also beyond the limit. If their day and reset
    /// are still the current ones, `keep` gets how many are used then; returns whether they are.
    pub(crate) fn settle(
        &self,
        origin: Origin,
        reserved: u64,
        actual: u64,
        keep: impl FnOnce(u64, &mut A),
    ) -> bool {
        let mut state = self.lock();
        let (count, beside) = &mut *state;
        let is_current = count.origin() == origin;
        if is_current {
            count.used = count.used.saturating_sub(reserved).saturating_add(actual);
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

    fn noon(day: &str) -> SystemTime {
        Calendar::utc().window_of(day.parse().unwrap()).start + Duration::from_secs(12 * 3600)
    }

    fn counter(day: &str) -> DayCounter {
        DayCounter::new(CounterKey::daily("s".into()), Count::new(day.parse().unwrap()))
    }

    fn limit(limit: u32) -> DailyLimit {
        DailyLimit::new(limit).unwrap()
    }

    fn take_some(counter: &DayCounter, amount: u64, of: u32, day: &str) -> Option<Origin> {
        let keep = |count: &Count, (): &mut ()| Ok::<_, ()>(count.origin());
        let demand = Demand::new("s".into(), limit(of), noon(day)).amount(amount);
        counter.reserve(&demand, &Calendar::utc(), keep).unwrap().0
    }

    fn take(counter: &DayCounter, limit: u32, day: &str) -> Option<Origin> {
        take_some(counter, 1, limit, day)
    }

    fn give_back(counter: &DayCounter, origin: Origin, of: u32, refund: Refund) -> bool {
        counter.refund(origin, 1, limit(of), refund, |_, ()| true)
    }

    #[test]
    fn a_late_refund_of_yesterday_or_of_before_a_reset_never_touches_today() {
        let counter = counter("2026-11-22");
        let yesterday = take(&counter, 1, "2026-11-22").unwrap();
        let today = take(&counter, 1, "2026-11-23").unwrap();
        assert!(!give_back(&counter, yesterday, 1, Refund::Always));
        assert_eq!(take(&counter, 1, "2026-11-23"), None);
        counter.reset(|count| count.after_reset(today.day));
        take(&counter, 1, "2026-11-23").unwrap();
        assert!(!give_back(&counter, today, 1, Refund::Always));
        assert_eq!(take(&counter, 1, "2026-11-23"), None);
    }

    #[test]
    fn a_clock_that_steps_back_never_reopens_a_day() {
        let counter = counter("2026-11-22");
        take(&counter, 1, "2026-11-23").unwrap();
        assert_eq!(take(&counter, 1, "2026-11-22"), None);
        let status = counter.status(limit(1), &Calendar::utc(), noon("2026-11-22"));
        assert_eq!(status.resets_at, noon("2026-11-23") + Duration::from_secs(12 * 3600));
    }

    #[test]
    fn provoked_refunds_are_at_most_the_limit() {
        let counter = counter("2026-11-22");
        let mut admitted = 0;
        while let Some(origin) = take(&counter, 5, "2026-11-22") {
            admitted += 1;
            give_back(&counter, origin, 5, Refund::UpToLimit);
        }
        assert_eq!(admitted, 10);
    }

    #[test]
    fn amounts_are_taken_whole_and_settled_beyond_the_limit() {
        let (counter, day) = (counter("2026-11-22"), "2026-11-22");
        let first = take_some(&counter, 4, 10, day).unwrap();
        take_some(&counter, 4, 10, day).unwrap();
        assert_eq!(take_some(&counter, 4, 10, day), None, "2 are left");
        assert!(counter.settle(first, 4, 1, |used, ()| assert_eq!(used, 5)));
        let third = take_some(&counter, 4, 10, day).unwrap();
        assert!(counter.settle(third, 4, 40, |used, ()| assert_eq!(used, 45)));
        assert_eq!(take_some(&counter, 1, 10, day), None);
        assert!(!counter.refund(third, 40, limit(10), Refund::UpToLimit, |_, ()| true));
        assert!(counter.refund(third, 40, limit(10), Refund::Always, |left, ()| left == 5));
        assert!(take_some(&counter, 5, 10, day).is_some());
        assert!(take_some(&counter, 0, 10, day).is_some(), "nothing is needed");
    }
}
