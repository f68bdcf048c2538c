use std::{
    future::Future,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll, ready},
    time::SystemTime,
};

use http::{HeaderMap, request, response};
use http_body::{Body, Frame};

use super::{ChargeDecision, ChargePolicy, DailyQuotaLayer, QuotaRejection, ResponseEnd, Subject};
use crate::{
    body::{BodyEnd, EndDetector},
    error::{Rejected, StoreError},
    limit::InFlightGuard,
    request::{QuotaEntry, RequestContext},
    store::{
        Demand, QuotaStatus, Refund, Reservation, ReserveOutcome, StoreFuture,
        rate_headers::RateHeaders,
    },
};

impl DailyQuotaLayer {
    /// Returns what the request with this head needs of its subject's quota.
    pub(super) fn need(&self, head: &request::Parts, context: RequestContext) -> Need {
        let at = context.received_at_by(&*self.clock);
        Need { context, amount: (self.cost)(head), at }
    }

    /// Starts the reservation of a request's units. Returns `None` if the request is exempt.
    pub(super) fn reserve(
        &self,
        subject: Subject,
        need: Need,
    ) -> Result<Option<PendingReservation>, QuotaRejection> {
        let Need { context, amount, at } = need;
        let subject = match subject {
            Subject::Counted(subject) => subject,
            Subject::Exempt => return Ok(None),
            Subject::Unknown => return Err(QuotaRejection::NoSubject),
        };
        context.note_subject(&subject.id);
        let in_flight = match &self.in_flight {
            Some(in_flight) => {
                Some(in_flight.enter(&subject.id).ok_or(QuotaRejection::TooManyInFlight)?)
            }
            None => None,
        };
        let demand = Demand::new(subject.id, subject.limit, at).quota(self.quota).amount(amount);
        let outcome = match amount {
            0 => self
                .store
                .status(&demand)
                .map(|status| ReserveOutcome::Admitted { reservation: Box::new(NoUnits), status }),
            _ => self.store.reserve(&demand),
        };
        let is_shown = self.headers.is_some();
        let claim = Claim { context, amount, at, is_shown, in_flight };
        Ok(Some(PendingReservation { outcome, claim }))
    }
}

/// What a request needs of its subject's quota.
pub(super) struct Need {
    context: RequestContext,
    amount: u64,
    at: SystemTime,
}

/// The reservation of a request that costs nothing.
struct NoUnits;

impl Reservation for NoUnits {
    fn poll_committed(&mut self, _: &mut Context<'_>) -> Poll<Result<(), StoreError>> {
        Poll::Ready(Ok(()))
    }

    fn settle(&mut self, _: u64) -> StoreFuture<()> {
        StoreFuture::ready(Ok(()))
    }

    fn refund(&mut self, _: Refund) -> StoreFuture<bool> {
        StoreFuture::ready(Ok(false))
    }
}

/// A reservation that the store has not decided yet.
pub(super) struct PendingReservation {
    outcome: StoreFuture<ReserveOutcome>,
    claim: Claim,
}

/// What becomes a [`HeldReservation`] if the store admits it.
struct Claim {
    context: RequestContext,
    amount: u64,
    at: SystemTime,
    is_shown: bool,
    in_flight: Option<InFlightGuard>,
}

impl PendingReservation {
    /// Returns the reservation or its rejection if the store has decided already.
    pub(super) fn take_ready(&mut self) -> Option<Result<HeldReservation, QuotaRejection>> {
        let outcome = self.outcome.take_ready()?;
        Some(self.claim.hold(outcome))
    }

    pub(super) fn poll(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Result<HeldReservation, QuotaRejection>> {
        let outcome = ready!(Pin::new(&mut self.outcome).poll(cx));
        Poll::Ready(self.claim.hold(outcome))
    }
}

impl Claim {
    fn hold(
        &mut self,
        outcome: Result<ReserveOutcome, StoreError>,
    ) -> Result<HeldReservation, QuotaRejection> {
        let Self { context, amount, at, is_shown, in_flight } = self;
        match outcome {
            Ok(ReserveOutcome::Admitted { reservation, status }) => {
                let entry = QuotaEntry::new(status, *amount, *is_shown);
                Ok(HeldReservation {
                    entry: context.note_reserved(entry, reservation.admission()),
                    reservation: Mutex::new(reservation),
                    refund: None,
                    is_refunded: false,
                    has_ended: false,
                    context: context.clone(),
                    at: *at,
                    _in_flight: in_flight.take(),
                })
            }
            Ok(ReserveOutcome::Exhausted(status)) => {
                context.note_exhausted(QuotaEntry::new(status, 0, *is_shown));
                Err(QuotaRejection::Exhausted { status, at: *at })
            }
            Err(error) => Err(QuotaRejection::Store(error)),
        }
    }
}

/// The reservation of one request, kept in its future and then in its response body.
pub(super) struct HeldReservation {
    /// Never locked: the mutex only makes futures and bodies `Sync`.
    reservation: Mutex<Box<dyn Reservation>>,
    /// A refund that the store has not made yet.
    refund: Option<StoreFuture<bool>>,
    is_refunded: bool,
    /// Whether the policy has decided at the end of the response.
    has_ended: bool,
    context: RequestContext,
    /// Index of the quota's entry in the context.
    entry: usize,
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

    /// Keeps or refunds the reservation. [`poll_settled`](Self::poll_settled) waits for the refund.
    pub(super) fn settle(&mut self, decision: ChargeDecision) {
        if let ChargeDecision::Refund(refund) = decision {
            match self.reservation().refund(refund).now_or_never() {
                Ok(refunded) => self.note_refund(refunded),
                Err(pending) => self.refund = Some(pending),
            }
        }
    }

    /// Settles the reservation, unless it is refunded, at the end of the response.
    pub(super) fn end(&mut self, policy: &dyn ChargePolicy, end: &ResponseEnd<'_>) {
        let had_ended = std::mem::replace(&mut self.has_ended, true);
        if !had_ended && !self.is_refunded {
            self.settle(policy.at_end(end));
        }
    }

    /// Returns whether the response has ended.
    pub(super) fn has_ended(&self) -> bool {
        self.has_ended
    }

    /// Waits until the store has refunded what it has to.
    pub(super) fn poll_settled(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if let Some(refund) = &mut self.refund {
            let refunded = ready!(Pin::new(refund).poll(cx));
            self.refund = None;
            self.note_refund(refunded);
        }
        Poll::Ready(())
    }

    fn note_refund(&mut self, refunded: Result<bool, StoreError>) {
        match refunded {
            Ok(true) => {
                self.is_refunded = true;
                self.context.note_refunded(self.entry);
            }
            Ok(false) => {}
            Err(error) => {
                tracing::warn!(source = ?error, "refund failed: the units may stay charged");
            }
        }
    }

    /// Drops a reservation that could not be made durable and so is not charged. Returns the context of
    /// its request.
    pub(super) fn discard(self) -> RequestContext {
        self.context.note_discarded(self.entry);
        self.context
    }

    /// Inserts the rate limit headers, unless a quota inside has rejected the request and shows its own.
    pub(super) fn insert_headers(
        &self,
        rate_headers: &dyn RateHeaders,
        head: &mut response::Parts,
    ) {
        if head.extensions.get::<Rejected>().is_some() && self.context.is_exhausted() {
            return;
        }
        let insert = |statuses: &[QuotaStatus]| {
            rate_headers.insert(statuses, self.at, &mut head.headers);
        };
        self.context.with_shown_quotas(insert);
    }
}

/// Settles a reservation at the end of the response body.
pub(super) struct SettleAtEnd {
    pub(super) reservation: HeldReservation,
    pub(super) layer: Arc<DailyQuotaLayer>,
    pub(super) detector: EndDetector,
}

impl SettleAtEnd {
    /// Settles the reservation if this is the last frame of `body`. Returns whether it is.
    pub(super) fn read<B: Body>(
        &mut self,
        frame: &Option<Result<Frame<B::Data>, B::Error>>,
        body: &B,
    ) -> bool {
        let Some(end) = self.detector.end(frame, body) else { return false };
        let frame = frame.as_ref().and_then(|frame| frame.as_ref().ok());
        self.end(end, frame.and_then(Frame::trailers_ref));
        true
    }

    fn end(&mut self, body: BodyEnd, trailers: Option<&HeaderMap>) {
        let end = ResponseEnd { body, bytes: self.detector.bytes(), trailers };
        self.reservation.end(&*self.layer.policy, &end);
    }

    /// Waits until the store has refunded what it has to.
    pub(super) fn poll_settled(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.reservation.poll_settled(cx)
    }
}

impl Drop for SettleAtEnd {
    fn drop(&mut self) {
        self.end(BodyEnd::Abandoned, None);
    }
}
