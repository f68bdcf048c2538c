//! The units of one request in one quota.

use std::{
    iter,
    task::{Context, Poll},
};

use crate::{
    error::StoreError,
    store::{Refund, Reservation, StoreFuture},
};

/// Units of one request: those reserved for it, and those that its handler has taken since.
pub(super) struct Units {
    first: Reserved,
    more: Vec<Reserved>,
}

/// Units of one reservation.
struct Reserved {
    reservation: Box<dyn Reservation>,
    /// Number of charged units.
    amount: u64,
    is_refunded: bool,
}

impl Units {
    pub(super) fn new(reservation: Box<dyn Reservation>, amount: u64) -> Self {
        Self { first: Reserved::new(reservation, amount), more: Vec::new() }
    }

    /// Adds units that the handler has taken.
    pub(super) fn add(&mut self, taken: Vec<(Box<dyn Reservation>, u64)>) {
        let taken =
            taken.into_iter().map(|(reservation, amount)| Reserved::new(reservation, amount));
        self.more.extend(taken);
    }

    /// All of them, the last ones first.
    fn all(&mut self) -> impl Iterator<Item = &mut Reserved> {
        self.more.iter_mut().rev().chain(iter::once(&mut self.first))
    }

    /// Starts to make them durable.
    pub(super) fn commit(&mut self) {
        self.all().for_each(|units| units.reservation.commit());
    }

    /// Completes once all of them are durable.
    pub(super) fn poll_committed(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), StoreError>> {
        let mut all = Poll::Ready(Ok(()));
        for units in self.all() {
            match units.reservation.poll_committed(cx) {
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => all = Poll::Pending,
            }
        }
        all
    }

    /// Refunds them. The result is the number of refunded units.
    pub(super) fn refund(&mut self, refund: Refund) -> StoreFuture<u64> {
        if self.more.is_empty() {
            return self.first.refund(refund);
        }
        let none = StoreFuture::ready(Ok(0));
        self.all().fold(none, |sum, units| {
            both(sum, units.refund(refund))
                .map(|(sum, refunded): (u64, _)| sum.saturating_add(refunded))
        })
    }

    /// Charges `actual` units in all. The last reservations are reduced first; units beyond those reserved are
    /// charged to the first one. The result is the number of charged units.
    pub(super) fn settle(&mut self, actual: u64) -> StoreFuture<u64> {
        let mut charged = self.all().fold(0, |sum: u64, units| sum.saturating_add(units.amount));
        let mut settled = StoreFuture::ready(Ok(()));
        for units in self.all().filter(|units| units.amount > 0) {
            let less = charged.saturating_sub(actual).min(units.amount);
            if less > 0 {
                settled = then(settled, units.settle(units.amount - less));
                charged -= less;
            }
        }
        let is_charged = |units: &&mut Reserved| units.amount > 0 && !units.is_refunded;
        if charged < actual
            && let Some(units) = self.all().filter(is_charged).last()
        {
            settled = then(settled, units.settle(units.amount.saturating_add(actual - charged)));
            charged = actual;
        }
        settled.map(move |()| charged)
    }
}

impl Reserved {
    fn new(reservation: Box<dyn Reservation>, amount: u64) -> Self {
        Self { reservation, amount, is_refunded: false }
    }

    fn settle(&mut self, actual: u64) -> StoreFuture<()> {
        let settled = self.reservation.settle(actual).now_or_never();
        if !matches!(settled, Ok(Err(_))) {
            self.amount = actual;
        }
        into_future(settled)
    }

    /// The result is the number of refunded units.
    fn refund(&mut self, refund: Refund) -> StoreFuture<u64> {
        let amount = self.amount;
        let refunded = self.reservation.refund(refund).now_or_never();
        if !matches!(refunded, Ok(Ok(false))) {
            (self.amount, self.is_refunded) = (0, true);
        }
        into_future(refunded).map(move |is_refunded| if is_refunded { amount } else { 0 })
    }
}

/// Makes a failed change `None`, with a warning.
pub(super) fn or_unchanged<T: Send + 'static>(change: StoreFuture<T>) -> StoreFuture<Option<T>> {
    let changed = |change: Result<T, StoreError>| change.inspect_err(warn_unchanged).ok();
    match change.now_or_never() {
        Ok(change) => StoreFuture::ready(Ok(changed(change))),
        Err(pending) => StoreFuture::pending(async move { Ok(changed(pending.await)) }),
    }
}

/// Logs that the store has not changed the charged units.
pub(super) fn warn_unchanged(error: &StoreError) {
    tracing::warn!(source = ?error, "change of the charged units failed: the reserved ones may stay charged");
}

/// Waits for both of two changes, which the store makes whether they are waited for or not.
pub(super) fn both<A, B>(first: StoreFuture<A>, second: StoreFuture<B>) -> StoreFuture<(A, B)>
where
    A: Send + 'static,
    B: Send + 'static,
{
    match (first.now_or_never(), second.now_or_never()) {
        (Ok(first), Ok(second)) => {
            StoreFuture::ready(first.and_then(|first| second.map(|second| (first, second))))
        }
        (first, second) => StoreFuture::pending(async move {
            Ok((into_future(first).await?, into_future(second).await?))
        }),
    }
}

/// Returns the future of what [`StoreFuture::now_or_never`] has returned.
fn into_future<T>(result: Result<Result<T, StoreError>, StoreFuture<T>>) -> StoreFuture<T> {
    result.map_or_else(|pending| pending, StoreFuture::ready)
}

fn then(first: StoreFuture<()>, second: StoreFuture<()>) -> StoreFuture<()> {
    both(first, second).map(|_| ())
}
