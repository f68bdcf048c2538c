use std::sync::Arc;

use super::{Inner, MemoryStore, lock};
use crate::{
    clock::Day,
    error::StoreError,
    key::Limit,
    store::{
        Demand, Quota, QuotaStatus, QuotaStore, Refund, Reservation, ReserveAllOutcome,
        ReserveOutcome, StoreFuture,
        counter::{CounterKey, LockedCounters, MAX_UNITS, Origin, PeriodCounter},
        quota::same_counter,
    },
};

struct MemoryReservation {
    store: Arc<Inner>,
    counter: Arc<PeriodCounter>,
    limit: Limit,
    amount: u64,
    /// `None` after a refund.
    origin: Option<Origin>,
}

impl Inner {
    /// Changes the units that reports show, if the counter is one of the daily quota.
    pub(super) fn change_used(&self, key: &CounterKey, day: Day, change: impl FnOnce(u64) -> u64) {
        if key.quota == Quota::DAILY {
            let mut totals = lock(&self.totals);
            let used = totals.units(&key.subject).used_on(day);
            *used = change(*used).min(MAX_UNITS);
        }
    }
}

impl Inner {
    /// Adds units to those that reports show.
    fn add_used(&self, demand: &Demand, origin: Origin) {
        let mut totals = lock(&self.totals);
        let units = totals.units(&demand.subject);
        units.last_used_at = Some(demand.at);
        if demand.quota == Quota::DAILY {
            let used = units.used_on(origin.day);
            *used = used.saturating_add(demand.amount).min(MAX_UNITS);
        }
    }

    fn hold(
        self: &Arc<Self>,
        counter: Arc<PeriodCounter>,
        demand: &Demand,
        origin: Origin,
    ) -> Box<dyn Reservation> {
        let (limit, amount) = (demand.limit, demand.amount);
        let (store, origin) = (self.clone(), Some(origin));
        Box::new(MemoryReservation { store, counter, limit, amount, origin })
    }

    fn reserve_all(self: &Arc<Self>, demands: &[Demand]) -> Result<ReserveAllOutcome, StoreError> {
        let counters = demands.iter().map(|demand| self.counter(demand.into(), demand.at));
        let counters: Vec<_> = counters.collect::<Result<_, _>>()?;
        let locked = LockedCounters::lock(&counters, demands, &self.calendar);
        let mut locked = locked.ok_or_else(same_counter)?;
        let exhausted = locked.exhausted();
        if !exhausted.is_empty() {
            return Ok(ReserveAllOutcome::Exhausted(exhausted));
        }
        let origins = locked.iter_mut().map(|(demand, locked)| {
            let origin = locked.state().0.origin();
            self.add_used(demand, origin);
            origin
        });
        let origins: Vec<_> = origins.collect();
        let statuses = locked.charge();
        let held = counters.iter().zip(demands).zip(origins);
        let held =
            held.map(|((counter, demand), origin)| self.hold(counter.clone(), demand, origin));
        Ok(ReserveAllOutcome::Admitted(held.zip(statuses).collect()))
    }
}

impl QuotaStore for MemoryStore {
    fn reserve(&self, demand: &Demand) -> StoreFuture<ReserveOutcome> {
        let store = &self.0;
        let counter = match store.counter(demand.into(), demand.at) {
            Ok(counter) => counter,
            Err(error) => return StoreFuture::ready(Err(error)),
        };
        let taken = counter.reserve(demand, &store.calendar, |count, ()| {
            store.add_used(demand, count.origin());
            Ok(count.origin())
        });
        StoreFuture::ready(taken.map(|(origin, status)| match origin {
            None => ReserveOutcome::Exhausted(status),
            Some(origin) => {
                let reservation = store.hold(counter, demand, origin);
                ReserveOutcome::Admitted { reservation, status }
            }
        }))
    }

    fn reserve_all(&self, demands: &[Demand]) -> StoreFuture<ReserveAllOutcome> {
        StoreFuture::ready(self.0.reserve_all(demands))
    }

    fn status(&self, demand: &Demand) -> StoreFuture<QuotaStatus> {
        let (store, key) = (&self.0, demand.into());
        let status = match store.known_counter(&key) {
            Some(counter) => counter.status(demand, &store.calendar),
            None => store.new_counter(key, demand.at).status(demand, &store.calendar),
        };
        StoreFuture::ready(Ok(status))
    }
}

impl Reservation for MemoryReservation {
    fn settle(&mut self, actual: u64) -> StoreFuture<()> {
        if let Some(origin) = self.origin {
            let reserved = std::mem::replace(&mut self.amount, actual);
            self.counter.settle(origin, reserved, actual, |_, ()| {
                self.store.change_used(self.counter.key(), origin.day, |used| {
                    used.saturating_sub(reserved).saturating_add(actual)
                });
            });
        }
        StoreFuture::ready(Ok(()))
    }

    fn refund(&mut self, refund: Refund) -> StoreFuture<bool> {
        let (key, amount) = (self.counter.key(), self.amount);
        let is_refunded = self.origin.take().is_some_and(|origin| {
            self.counter.refund(origin, amount, self.limit, refund, |_, ()| {
                self.store.change_used(key, origin.day, |used| used.saturating_sub(amount));
                true
            })
        });
        StoreFuture::ready(Ok(is_refunded))
    }
}
