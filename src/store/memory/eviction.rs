//! What is kept of past periods.

use std::{
    sync::{Arc, atomic::Ordering},
    time::{Duration, SystemTime},
};

use super::{Inner, lock};
use crate::{
    clock::Day,
    error::StoreError,
    store::{
        Quota,
        counter::{Count, CounterKey, PeriodCounter},
    },
};

/// Time after the end of its period for which a counter stays in memory, so that a clock that steps back
/// does not reopen the period.
const EVICTION_DELAY: Duration = Duration::from_secs(24 * 3600);

/// Days on which counters were evicted. Locked while a counter is added.
#[derive(Default)]
pub(super) struct Eviction {
    last: Option<Day>,
    /// Also those whose period has ended less than [`EVICTION_DELAY`] ago.
    last_at_limit: Option<Day>,
}

impl Inner {
    /// Returns the counter with this key, which is added if the store has room for another one.
    pub(super) fn counter(
        &self,
        key: CounterKey,
        at: SystemTime,
    ) -> Result<Arc<PeriodCounter>, StoreError> {
        if let Some(counter) = self.known_counter(&key) {
            return Ok(counter);
        }
        let added = self.add_counter(key, at);
        self.forget_past_days();
        added
    }

    pub(super) fn known_counter(&self, key: &CounterKey) -> Option<Arc<PeriodCounter>> {
        self.counters.get(key).map(|counter| counter.clone())
    }

    pub(super) fn new_counter(&self, key: CounterKey, at: SystemTime) -> PeriodCounter {
        let day = key.first_day(&self.calendar, at);
        // An imported key may have used units elsewhere on this day.
        let is_daily = key.quota == Quota::DAILY;
        let used = if is_daily { lock(&self.totals).used_on(&key.subject, day) } else { 0 };
        PeriodCounter::new(key, Count { used, ..Count::new(day) })
    }

    fn add_counter(
        &self,
        key: CounterKey,
        at: SystemTime,
    ) -> Result<Arc<PeriodCounter>, StoreError> {
        let now = self.clock.now();
        let today = self.calendar.window(now).day;
        let mut eviction = lock(&self.eviction);
        if let Some(counter) = self.known_counter(&key) {
            return Ok(counter);
        }
        if eviction.last < Some(today) {
            self.evict_counters(now.checked_sub(EVICTION_DELAY).unwrap_or(SystemTime::UNIX_EPOCH));
            eviction.last = Some(today);
        }
        let is_full = || self.counters.len() >= self.max_subjects.load(Ordering::Relaxed);
        if is_full() && eviction.last_at_limit < Some(today) {
            self.evict_counters(now);
            eviction.last_at_limit = Some(today);
        }
        if is_full() {
            return Err(StoreError::unavailable("the maximum number of subjects is reached"));
        }
        let counter = Arc::new(self.new_counter(key.clone(), at));
        self.counters.insert(key, counter.clone());
        Ok(counter)
    }

    /// Removes unused counters whose period has ended at this time.
    fn evict_counters(&self, at: SystemTime) {
        self.counters.retain(|key, counter| {
            Arc::strong_count(counter) > 1 || counter.day() >= key.first_day(&self.calendar, at)
        });
    }

    /// Drops the units and figures of days that are no longer kept, once a day.
    pub(super) fn forget_past_days(&self) {
        let today = self.calendar.window(self.clock.now()).day;
        if lock(&self.totals).were_forgotten_on(today) {
            return;
        }
        let keys = lock(&self.keys);
        let is_key = |id: &_| keys.by_id_or_deleted(id).is_some();
        lock(&self.totals).forget(today, &self.calendar, is_key);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Barrier, atomic::AtomicU64};

    use super::*;
    use crate::{
        clock::{Calendar, Clock},
        key::{KeyId, KeyRecord, Limit, SecretKey},
        store::{
            Demand, QuotaStore, ReserveOutcome, UsageEvent, UsageSink,
            memory::{MemoryStore, usage::KEPT_DAYS},
        },
    };

    const DAY: u64 = 24 * 3600;

    /// Seconds since the epoch.
    #[derive(Clone, Default)]
    struct Seconds(Arc<AtomicU64>);

    impl Clock for Seconds {
        fn now(&self) -> SystemTime {
            SystemTime::UNIX_EPOCH + Duration::from_secs(self.0.load(Ordering::SeqCst))
        }
    }

    fn take(store: &MemoryStore, id: &str, at: SystemTime) -> Result<bool, StoreError> {
        let demand = Demand::new(KeyId::from(id), Limit::Units(1), at);
        let outcome = store.reserve(&demand).now_or_never().expect("never waits")?;
        Ok(matches!(outcome, ReserveOutcome::Admitted { .. }))
    }

    #[test]
    fn subjects_of_past_periods_take_no_memory() {
        const SUBJECTS: u64 = 200;
        let clock = Seconds::default();
        let store = MemoryStore::with_time(Calendar::utc(), clock.clone());
        let key = SecretKey::parse("trial-key-manual-123").unwrap();
        let record = KeyRecord::new(KeyId::from("a key"), Limit::Units(9));
        store.insert(&key, record).unwrap();
        for day in 1..=60 {
            clock.0.store(day * DAY + 7, Ordering::SeqCst);
            let subjects = (0..SUBJECTS).map(|n| format!("{day}-{n}"));
            for id in subjects.chain(["a key".to_owned()]) {
                assert!(take(&store, &id, clock.now()).unwrap(), "{id}");
                let mut event = UsageEvent::new(clock.now());
                event.key_id = Some(KeyId::from(&*id));
                store.record(event);
            }
            let counters = store.0.counters.len() as u64;
            let rows = lock(&store.0.totals).rows() as u64;
            assert!(counters <= 2 * (SUBJECTS + 1), "{day}: {counters}");
            // Units, figures and times of the subjects of two days, and of the key.
            assert!(rows <= 3 * 2 * SUBJECTS + 2 * u64::from(KEPT_DAYS) + 2, "{day}: {rows}");
        }
        let totals = lock(&store.0.totals);
        let today = "1970-03-02".parse().unwrap();
        assert_eq!(totals.used_on(&KeyId::from("a key"), today), 1);
        assert_eq!(totals.used_on(&KeyId::from("a key"), today.minus(KEPT_DAYS - 1)), 1);
        #[cfg(feature = "admin")]
        assert_eq!(totals.used_in_all(&KeyId::from("a key")), 60);
    }

    #[test]
    fn subjects_beyond_the_maximum_are_rejected_and_none_is_forgotten() {
        const MAX: usize = 40;
        let clock = Seconds::default();
        clock.0.store(9 * DAY, Ordering::SeqCst);
        let store = MemoryStore::with_time(Calendar::utc(), clock.clone()).max_subjects(MAX);
        for day in [9, 10] {
            clock.0.store(day * DAY, Ordering::SeqCst);
            let barrier = Barrier::new(8);
            let admitted = |thread: usize| {
                barrier.wait();
                let ids = (0..20).map(move |n| format!("{day}-{}", thread * 20 + n));
                ids.filter(|id| take(&store, id, clock.now()).is_ok_and(|admitted| admitted))
                    .collect()
            };
            let admitted: Vec<String> = std::thread::scope(|scope| {
                let threads: Vec<_> = (0..8).map(|n| scope.spawn(move || admitted(n))).collect();
                let ids = threads
                    .into_iter()
                    .flat_map(|thread| -> Vec<String> { thread.join().unwrap() });
                ids.collect()
            });
            assert_eq!(admitted.len(), MAX, "yesterday's subjects make room for today's");
            for id in &admitted {
                assert!(!take(&store, id, clock.now()).unwrap(), "{id} has used its unit");
            }
            assert!(take(&store, "another", clock.now()).is_err());
        }
    }
}
