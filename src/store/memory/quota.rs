use std::{
    sync::Arc,
    task::{Context, Poll},
    time::SystemTime,
};

use super::{Inner, MemoryStore, lock};
use crate::{
    error::StoreError,
    key::KeyId,
    store::{
        QuotaStatus, QuotaStore, QuotaSubject, Refund, Reservation, ReserveOutcome, StoreFuture,
        engine::counter::{Count, DayCounter, Origin},
    },
};

struct MemoryReservation {
    store: Arc<Inner>,
    counter: Arc<DayCounter>,
    subject: QuotaSubject,
    origin: Option<Origin>,
}

impl Inner {
    pub(super) fn counter(&self, id: &KeyId, at: SystemTime) -> Arc<DayCounter> {
        if let Some(counter) = self.counters.get(id) {
            return counter.clone();
        }
        let day = self.calendar.window(at).day;
        // An imported key may have used units elsewhere on this day.
        let used = lock(&self.totals).used_on(id, day);
        let new = || Arc::new(DayCounter::new(Count { used, ..Count::new(day) }));
        self.counters.entry(id.clone()).or_insert_with(new).clone()
    }
}

impl QuotaStore for MemoryStore {
    fn reserve(&self, subject: &QuotaSubject, at: SystemTime) -> StoreFuture<ReserveOutcome> {
        let counter = self.0.counter(&subject.id, at);
        let taken = counter.reserve(subject, &self.0.calendar, at, |count, ()| {
            let origin = count.origin();
            let mut totals = lock(&self.0.totals);
            totals.used(&subject.id, origin.day, |used| used.saturating_add(1));
            totals.last_used(&subject.id, at);
            Ok(origin)
        });
        StoreFuture::ready(taken.map(|(origin, status)| match origin {
            None => ReserveOutcome::Exhausted(status),
            Some(origin) => ReserveOutcome::Admitted {
                reservation: Box::new(MemoryReservation {
                    store: self.0.clone(),
                    counter,
                    subject: subject.clone(),
                    origin: Some(origin),
                }),
                status,
            },
        }))
    }

    fn status(&self, subject: &QuotaSubject, at: SystemTime) -> StoreFuture<QuotaStatus> {
        let counter = self.0.counter(&subject.id, at);
        StoreFuture::ready(Ok(counter.status(subject, &self.0.calendar, at)))
    }
}

impl Reservation for MemoryReservation {
    fn poll_committed(&mut self, _: &mut Context<'_>) -> Poll<Result<(), StoreError>> {
        Poll::Ready(Ok(()))
    }

    fn refund(&mut self, refund: Refund) -> bool {
        let Some(origin) = self.origin.take() else {
            return false;
        };
        self.counter.refund(origin, &self.subject, refund, |_, ()| {
            let mut totals = lock(&self.store.totals);
            totals.used(&self.subject.id, origin.day, |used| used.saturating_sub(1));
            true
        })
    }
}
