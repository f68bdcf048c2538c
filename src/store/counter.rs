//! In-memory counter of a subject's units, used by every back end.

use std::{
    hash::{Hash, Hasher},
    sync::Arc,
    time::SystemTime,
};

use super::sync::{Mutex, MutexGuard, lock};
use crate::{
    clock::{Calendar, Day, Window},
    key::{KeyId, Limit},
    store::{Demand, Quota, QuotaStatus, Refund},
};

/// Maximum number of units of a period: the largest integer that JSON numbers represent exactly.
pub(crate) const MAX_UNITS: u64 = 1 << 53;

/// Counts the units of one subject in one quota, one period at a time.
///
/// Units are reserved under a lock that is held for a few instructions, never across an `.await`. `A`
/// is additional state of a back end.
#[derive(Debug)]
pub(crate) struct PeriodCounter<A = ()> {
    key: CounterKey,
    state: Mutex<(Count, A)>,
}

/// State of a back end beside a count.
pub(crate) trait Beside {
    /// Called when a new period begins.
    fn begin_period(&mut self);

    /// Called when the count of the current period was reset.
    #[cfg(any(feature = "admin", test))]
    fn reset(&mut self);
}

impl Beside for () {
    fn begin_period(&mut self) {}

    #[cfg(any(feature = "admin", test))]
    fn reset(&mut self) {}
}

/// Key of a counter: quota, with its period, and subject.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct CounterKey {
    pub(crate) quota: Quota,
    pub(crate) subject: KeyId,
}

impl CounterKey {
    /// Returns the key of the subject's counter of the daily quota.
    #[cfg(any(feature = "admin", feature = "engine", test))]
    pub(crate) fn daily(subject: KeyId) -> Self {
        Self { quota: Quota::DAILY, subject }
    }

    /// Returns the first day of the current period.
    pub(crate) fn first_day(&self, calendar: &Calendar, now: SystemTime) -> Day {
        calendar.window_in(self.quota.period(), now).day
    }
}

/// Hashes the subject only, as it has few quotas.
impl Hash for CounterKey {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.subject.hash(state);
    }
}

impl From<&Demand> for CounterKey {
    fn from(demand: &Demand) -> Self {
        Self { quota: demand.quota, subject: demand.subject.clone() }
    }
}

/// Count of one period.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Count {
    /// First day of the period that is counted.
    pub(crate) day: Day,
    /// Number of resets of the counter so far.
    pub(crate) epoch: u32,
    /// Number of units used since the last reset.
    pub(crate) used: u64,
    /// Number of units refunded under [`Refund::UpToLimit`].
    pub(crate) refunded: u64,
}

/// First day of the period, and number of resets, at the time at which a unit was reserved.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Origin {
    pub(crate) day: Day,
    pub(crate) epoch: u32,
}

impl Count {
    /// Returns the count of an unused period that begins on this day.
    pub(crate) fn new(day: Day) -> Self {
        Self { day, epoch: 0, used: 0, refunded: 0 }
    }

    pub(crate) fn origin(&self) -> Origin {
        Origin { day: self.day, epoch: self.epoch }
    }

    /// Returns the count of another, unused period.
    pub(crate) fn on(&self, day: Day) -> Self {
        Self { epoch: self.epoch, ..Self::new(day) }
    }

    /// Returns the origin after a reset in the period that begins on `day`, which may be earlier than the
    /// counted one if the clock was ahead.
    #[cfg(any(all(feature = "admin", feature = "memory"), test))]
    pub(crate) fn after_reset(&self, day: Day) -> Origin {
        Origin { day, epoch: self.epoch + 1 }
    }
}

impl PeriodCounter {
    #[cfg(any(feature = "memory", test))]
    pub(crate) fn new(key: CounterKey, count: Count) -> Self {
        Self::beside(key, count, ())
    }
}

impl<A: Beside> PeriodCounter<A> {
    /// Creates a counter with additional state.
    pub(crate) fn beside(key: CounterKey, count: Count, extra: A) -> Self {
        Self { key, state: Mutex::new((count, extra)) }
    }

    /// Returns the key of the counter.
    pub(crate) fn key(&self) -> &CounterKey {
        &self.key
    }

    /// Returns the first day of the period that is counted.
    #[cfg(feature = "memory")]
    pub(crate) fn day(&self) -> Day {
        self.lock().0.day
    }

    fn lock(&self) -> MutexGuard<'_, (Count, A)> {
        lock(&self.state)
    }

    /// Returns the count of the period that begins on this day. If the clock has stepped back, the later
    /// period stays current.
    fn on(&self, day: Day) -> MutexGuard<'_, (Count, A)> {
        let mut state = self.lock();
        if day > state.0.day {
            state.0 = state.0.on(day);
            state.1.begin_period();
        }
        state
    }

    /// Runs `work` with the count of the period of this demand, and what is beside it, under the lock.
    /// Returns its result and the status after it.
    #[cfg(feature = "postgres")]
    pub(crate) fn with_current<T>(
        &self,
        demand: &Demand,
        calendar: &Calendar,
        work: impl FnOnce(&mut Count, &mut A) -> T,
    ) -> (T, QuotaStatus) {
        let window = demand.window(calendar);
        let mut state = self.on(window.day);
        let (count, extra) = &mut *state;
        let done = work(count, extra);
        (done, self.status_of(count, demand.limit, calendar, &window))
    }

    /// Runs `work` with the count and what is beside it, under the lock.
    #[cfg(feature = "postgres")]
    pub(crate) fn with<T>(&self, work: impl FnOnce(&mut Count, &mut A) -> T) -> T {
        let mut state = self.lock();
        let (count, extra) = &mut *state;
        work(count, extra)
    }

    /// Returns the status of `count`. `window` is the current period, which may be before the counted one if
    /// the clock has stepped back.
    fn status_of(
        &self,
        count: &Count,
        limit: Limit,
        calendar: &Calendar,
        window: &Window,
    ) -> QuotaStatus {
        let quota = self.key.quota;
        let resets_at = if count.day == window.day {
            window.end
        } else {
            calendar.window_from(quota.period(), count.day).end
        };
        QuotaStatus { quota, day: count.day, limit, used: count.used, resets_at }
    }

    /// Reserves the units if enough are left. Calls `record` with the count before them, under the lock,
    /// and reserves them only if it succeeds.
    #[cfg(any(feature = "memory", feature = "sqlite", test))]
    pub(crate) fn reserve<T, E>(
        &self,
        demand: &Demand,
        calendar: &Calendar,
        record: impl FnOnce(&Count, &mut A) -> Result<T, E>,
    ) -> Result<(Option<T>, QuotaStatus), E> {
        let window = demand.window(calendar);
        let mut state = self.on(window.day);
        let (count, extra) = &mut *state;
        let recorded = match fitting(count, demand) {
            None => None,
            Some(used) => {
                let recorded = record(count, extra)?;
                count.used = used;
                Some(recorded)
            }
        };
        Ok((recorded, self.status_of(count, demand.limit, calendar, &window)))
    }

    /// Returns the subject's status.
    pub(crate) fn status(&self, demand: &Demand, calendar: &Calendar) -> QuotaStatus {
        let window = demand.window(calendar);
        self.status_of(&self.on(window.day).0, demand.limit, calendar, &window)
    }

    /// Refunds units if their origin is the current one and `refund` allows it. Calls `record` with the
    /// number of units that stay used, and refunds only if it returns `true`. Returns whether the units
    /// were refunded.
    pub(crate) fn refund(
        &self,
        origin: Origin,
        amount: u64,
        limit: Limit,
        refund: Refund,
        record: impl FnOnce(u64, &mut A) -> bool,
    ) -> bool {
        let mut state = self.lock();
        let (count, extra) = &mut *state;
        let provoked = if refund == Refund::UpToLimit { amount } else { 0 };
        let refunded = count.refunded.saturating_add(provoked);
        let limit = limit.units().unwrap_or(u64::MAX);
        if count.origin() != origin || (provoked > 0 && refunded > limit) {
            return false;
        }
        let Some(left) = count.used.checked_sub(amount) else { return false };
        if !record(left, extra) {
            return false;
        }
        (count.used, count.refunded) = (left, refunded);
        true
    }

    /// Counts `actual` units instead of `reserved` ones, also beyond the limit, if their origin is the
    /// current one. Then calls `record` with the number of units used. Returns whether it was current.
    pub(crate) fn settle(
        &self,
        origin: Origin,
        reserved: u64,
        actual: u64,
        record: impl FnOnce(u64, &mut A),
    ) -> bool {
        let mut state = self.lock();
        let (count, extra) = &mut *state;
        let is_current = count.origin() == origin;
        if is_current {
            let used = count.used.saturating_sub(reserved).saturating_add(actual);
            count.used = used.min(MAX_UNITS);
            record(count.used, extra);
        }
        is_current
    }

    /// Adds units that were counted elsewhere in the period that begins on this day, if it is the current one.
    #[cfg(all(feature = "admin", feature = "sqlite"))]
    pub(crate) fn add(&self, day: Day, units: u64) {
        let count = &mut self.lock().0;
        if count.day == day {
            count.used = count.used.saturating_add(units).min(MAX_UNITS);
        }
    }

    /// Resets the count to the origin that `new_origin` returns for the current count, if it has a higher
    /// epoch. Holds the lock meanwhile.
    #[cfg(any(feature = "admin", test))]
    pub(crate) fn reset(&self, new_origin: impl FnOnce(&Count) -> Origin) {
        let mut state = self.lock();
        let origin = new_origin(&state.0);
        if origin.epoch > state.0.epoch {
            let day = state.0.day;
            state.0 = Count { epoch: origin.epoch, ..Count::new(origin.day) };
            if day == origin.day { state.1.reset() } else { state.1.begin_period() }
        }
    }

    /// Returns the count.
    #[cfg(any(feature = "engine", test))]
    pub(crate) fn count(&self) -> Count {
        self.lock().0
    }
}

/// Counters of the demands of one request, which are locked together.
pub(crate) struct LockedCounters<'a, A> {
    calendar: &'a Calendar,
    demands: &'a [Demand],
    /// In the order of the demands.
    counters: Vec<LockedCounter<'a, A>>,
}

/// A counter that is locked for a demand.
pub(crate) struct LockedCounter<'a, A> {
    counter: &'a PeriodCounter<A>,
    window: Window,
    state: MutexGuard<'a, (Count, A)>,
}

impl<'a, A: Beside> LockedCounters<'a, A> {
    /// Locks the counter of each demand in its period. Returns `None` if two demands have the same counter.
    ///
    /// All requests lock counters in the order of their addresses, so that no two of them wait for each other.
    pub(crate) fn lock(
        counters: &'a [Arc<PeriodCounter<A>>],
        demands: &'a [Demand],
        calendar: &'a Calendar,
    ) -> Option<Self> {
        let mut order: Vec<_> = counters.iter().zip(demands).enumerate().collect();
        order.sort_unstable_by_key(|(_, (counter, _))| Arc::as_ptr(counter));
        if order.windows(2).any(|pair| Arc::ptr_eq(pair[0].1.0, pair[1].1.0)) {
            return None;
        }
        let mut locked: Vec<_> = order
            .into_iter()
            .map(|(index, (counter, demand))| {
                let window = demand.window(calendar);
                let state = counter.on(window.day);
                (index, LockedCounter { counter: &**counter, window, state })
            })
            .collect();
        locked.sort_unstable_by_key(|(index, _)| *index);
        let counters = locked.into_iter().map(|(_, counter)| counter).collect();
        Some(Self { calendar, demands, counters })
    }

    /// Returns each demand with its counter.
    pub(crate) fn iter_mut(
        &mut self,
    ) -> impl ExactSizeIterator<Item = (&'a Demand, &mut LockedCounter<'a, A>)> {
        self.demands.iter().zip(&mut self.counters)
    }

    /// Returns the statuses of the demands for which too few units are left.
    #[cfg(any(feature = "memory", feature = "sqlite", test))]
    pub(crate) fn exhausted(&self) -> Vec<QuotaStatus> {
        let lacks = |(demand, locked): &(&Demand, &LockedCounter<'_, A>)| {
            fitting(&locked.state.0, demand).is_none()
        };
        let lacking = self.demands.iter().zip(&self.counters).filter(lacks);
        lacking.map(|(demand, locked)| locked.status(demand, self.calendar)).collect()
    }

    /// Charges the units of all demands, and returns the status of each after it.
    pub(crate) fn charge(&mut self) -> Vec<QuotaStatus> {
        let calendar = self.calendar;
        self.iter_mut()
            .map(|(demand, locked)| {
                let used = &mut locked.state.0.used;
                *used = used.saturating_add(demand.amount).min(MAX_UNITS);
                locked.status(demand, calendar)
            })
            .collect()
    }
}

impl<'a, A: Beside> LockedCounter<'a, A> {
    /// Returns the key of the counter.
    #[cfg(feature = "engine")]
    pub(crate) fn key(&self) -> &'a CounterKey {
        &self.counter.key
    }

    /// Returns the count and what is beside it.
    pub(crate) fn state(&mut self) -> (&mut Count, &mut A) {
        let (count, extra) = &mut *self.state;
        (count, extra)
    }

    /// Returns the subject's status.
    pub(crate) fn status(&self, demand: &Demand, calendar: &Calendar) -> QuotaStatus {
        self.counter.status_of(&self.state.0, demand.limit, calendar, &self.window)
    }
}

/// Returns the number of units that are used with those of the demand, if they are within its limit.
#[cfg(any(feature = "memory", feature = "sqlite", test))]
fn fitting(count: &Count, demand: &Demand) -> Option<u64> {
    let limit = demand.limit.units().unwrap_or(MAX_UNITS).min(MAX_UNITS);
    count.used.checked_add(demand.amount).filter(|used| *used <= limit)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn noon(day: &str) -> SystemTime {
        Calendar::utc().window_of(day.parse().unwrap()).start + Duration::from_secs(12 * 3600)
    }

    fn counter(day: &str) -> PeriodCounter {
        PeriodCounter::new(CounterKey::daily("s".into()), Count::new(day.parse().unwrap()))
    }

    fn limit(limit: u32) -> Limit {
        Limit::Units(limit.into())
    }

    fn take_some(counter: &PeriodCounter, amount: u64, of: u32, day: &str) -> Option<Origin> {
        let record = |count: &Count, (): &mut ()| Ok::<_, ()>(count.origin());
        let demand = Demand::new("s".into(), limit(of), noon(day)).amount(amount);
        counter.reserve(&demand, &Calendar::utc(), record).unwrap().0
    }

    fn take(counter: &PeriodCounter, limit: u32, day: &str) -> Option<Origin> {
        take_some(counter, 1, limit, day)
    }

    fn give_back(counter: &PeriodCounter, origin: Origin, of: u32, refund: Refund) -> bool {
        counter.refund(origin, 1, limit(of), refund, |_, ()| true)
    }

    #[test]
    fn late_refund_from_yesterday_or_an_earlier_reset_never_changes_today() {
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
    fn clock_that_steps_back_never_reopens_a_day() {
        let counter = counter("2026-11-22");
        take(&counter, 1, "2026-11-23").unwrap();
        assert_eq!(take(&counter, 1, "2026-11-22"), None);
        let demand = Demand::new("s".into(), limit(1), noon("2026-11-22"));
        let status = counter.status(&demand, &Calendar::utc());
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
    fn amounts_are_reserved_completely_and_settled_beyond_the_limit() {
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
