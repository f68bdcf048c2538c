use std::sync::Arc;

use super::{Inner, MemoryStore, lock};
use crate::{
    clock::Day,
    key::Limit,
    store::{
        Demand, Quota, QuotaStatus, QuotaStore, Refund, Reservation, ReserveOutcome, StoreFuture,
        counter::{CounterKey, MAX_UNITS, Origin, PeriodCounter},
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

impl QuotaStore for MemoryStore {
    fn reserve(&self, demand: &Demand) -> StoreFuture<ReserveOutcome> {
        let (store, amount) = (&self.0, demand.amount);
        let counter = match store.counter(demand.into(), demand.at) {
            Ok(counter) => counter,
            Err(error) => return StoreFuture::ready(Err(error)),
        };
        let taken = counter.reserve(demand, &store.calendar, |count, ()| {
            let origin = count.origin();
            let mut totals = lock(&store.totals);
            let units = totals.units(&demand.subject);
            units.last_used_at = Some(demand.at);
            if demand.quota == Quota::DAILY {
                let used = units.used_on(origin.day);
                *used = used.saturating_add(amount).min(MAX_UNITS);
            }
            Ok(origin)
        });
        StoreFuture::ready(taken.map(|(origin, status)| match origin {
            None => ReserveOutcome::Exhausted(status),
            Some(origin) => ReserveOutcome::Admitted {
                reservation: Box::new(MemoryReservation {
                    store: store.clone(),
                    counter,
                    limit: demand.limit,
                    amount,
                    origin: Some(origin),
                }),
                status,
            },
        }))
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
