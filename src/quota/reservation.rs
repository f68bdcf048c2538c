use std::{
    future::Future,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll, ready},
    time::SystemTime,
};

use http::{request, response};

use super::{ChargeDecision, DailyQuotaLayer, QuotaRejection};
use crate::{
    body::{BodyEnd, BodyObserver},
    error::StoreError,
    limit::InFlightGuard,
    request::RequestContext,
    store::{Demand, QuotaStatus, Reservation, ReserveOutcome, StoreFuture, rate_headers},
};

impl DailyQuotaLayer {
    /// Starts the reservation of a unit for this request's subject.
    pub(super) fn reserve(
        &self,
        head: &request::Parts,
        context: RequestContext,
    ) -> Result<PendingReservation, QuotaRejection> {
        let at = context.received_at_by(&*self.clock);
        let subject = self.subject.subject(head).ok_or(QuotaRejection::NoSubject)?;
        let in_flight = match &self.in_flight {
            Some(in_flight) => {
                Some(in_flight.enter(&subject.id).ok_or(QuotaRejection::TooManyInFlight)?)
            }
            None => None,
        };
        let demand = Demand::new(subject.id, subject.daily_limit, at);
        let outcome = self.store.reserve(&demand);
        Ok(PendingReservation { outcome, context, at, in_flight })
    }
}

/// A reservation that the store has not decided yet.
pub(super) struct PendingReservation {
    outcome: StoreFuture<ReserveOutcome>,
    context: RequestContext,
    at: SystemTime,
    in_flight: Option<InFlightGuard>,
}

impl PendingReservation {
    /// Returns the reservation or its rejection if the store has decided already.
    pub(super) fn now_or_never(self) -> Result<Result<HeldReservation, QuotaRejection>, Self> {
        let Self { outcome, context, at, mut in_flight } = self;
        match outcome.now_or_never() {
            Ok(outcome) => Ok(hold(outcome, &context, at, &mut in_flight)),
            Err(outcome) => Err(Self { outcome, context, at, in_flight }),
        }
    }

    pub(super) fn poll(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Result<HeldReservation, QuotaRejection>> {
        let outcome = ready!(Pin::new(&mut self.outcome).poll(cx));
        Poll::Ready(hold(outcome, &self.context, self.at, &mut self.in_flight))
    }
}

fn hold(
    outcome: Result<ReserveOutcome, StoreError>,
    context: &RequestContext,
    at: SystemTime,
    in_flight: &mut Option<InFlightGuard>,
) -> Result<HeldReservation, QuotaRejection> {
    match outcome {
        Ok(ReserveOutcome::Admitted { reservation, status }) => {
            context.note_reserved(status, reservation.admission());
            Ok(HeldReservation {
                reservation: Mutex::new(reservation),
                status,
                context: context.clone(),
                at,
                _in_flight: in_flight.take(),
            })
        }
        Ok(ReserveOutcome::Exhausted(status)) => Err(QuotaRejection::Exhausted { status, at }),
        Err(error) => Err(QuotaRejection::Store(error)),
    }
}

/// The reservation of one request, kept in its future and then in its response body.
pub(super) struct HeldReservation {
    /// Never locked: the mutex only makes futures and bodies `Sync`.
    reservation: Mutex<Box<dyn Reservation>>,
    status: QuotaStatus,
    context: RequestContext,
    at: SystemTime,
    _in_flight: Option<InFlightGuard>,
}

impl HeldReservation {
    fn reservation(&mut self) -> &mut dyn Reservation {
        &mut **self.reservation.get_mut().unwrap_or_else(PoisonError::into_inner)
    }

    /// Starts to make the reservation durable.
    pub(super) fn commit(&mut self) {
        self.reservation().commit();
    }

    pub(super) fn poll_committed(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), StoreError>> {
        self.reservation().poll_committed(cx)
    }

    /// Keeps or refunds the reservation.
    pub(super) fn settle(&mut self, decision: ChargeDecision) {
        let is_refunded = match decision {
            ChargeDecision::Refund(refund) => self.reservation().refund(refund),
            ChargeDecision::Keep => false,
        };
        if is_refunded {
            self.status.used = self.status.used.saturating_sub(1);
            self.context.note_refunded(self.status);
        }
    }

    /// Drops a reservation that could not be made durable and so is not charged.
    pub(super) fn discard(self) {
        self.context.note_discarded();
    }

    pub(super) fn insert_headers(&self, head: &mut response::Parts) {
        rate_headers::insert(&mut head.headers, &self.status, self.at);
    }
}

/// Settles a reservation at the end of the response body.
pub(super) struct SettleAtEnd {
    pub(super) reservation: HeldReservation,
    pub(super) layer: Arc<DailyQuotaLayer>,
}

impl BodyObserver for SettleAtEnd {
    fn end(mut self, end: BodyEnd) {
        self.reservation.settle(self.layer.policy.at_end(end));
    }
}
