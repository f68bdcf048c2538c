use std::{
    future::Future,
    mem,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll, ready},
    time::SystemTime,
};

use http::{HeaderMap, response};
use http_body::{Body, Frame};

use super::{
    ChargeDecision, ChargePolicy, DailyQuotaLayer, QuotaRejection, ResponseEnd, Subject,
    layer::note_shadow_excess,
    units::{Units, both, or_unchanged, warn_unchanged},
};
use crate::{
    body::{BodyEnd, EndDetector},
    error::{Rejected, StoreError, catalog},
    key::Limit,
    request::{QuotaEntry, RequestContext, Visibility},
    store::{
        Admission, Demand, QuotaStatus, Refund, Reservation, ReserveOutcome, StoreFuture,
        rate_headers::RateHeaders,
    },
};

impl DailyQuotaLayer {
    /// Starts the reservation of a request's units.
    pub(super) fn reserve(
        &self,
        subject: Subject,
        need: Need,
    ) -> Result<Reserving, QuotaRejection> {
        let Need { context, amount, at, admission } = need;
        let subject = match subject {
            Subject::Counted(subject) => subject,
            Subject::Exempt => return Ok(Reserving::Decided(None)),
            Subject::Unknown => {
                let passed = self.unless_shadow(QuotaRejection::NoSubject);
                return passed.map(|()| Reserving::Decided(None));
            }
        };
        context.note_subject(&subject.id);
        let limit = subject.limit;
        let demand =
            Demand::new(subject.id, if self.is_shadow { Limit::Unlimited } else { limit }, at)
                .quota(self.quota)
                .amount(amount)
                .admission(admission);
        let mut outcome = match amount {
            0 => self
                .store
                .status(&demand)
                .map(|status| ReserveOutcome::Admitted { reservation: Box::new(NoUnits), status }),
            _ => self.store.reserve(&demand),
        };
        let claim = Claim { context, demand, limit };
        match outcome.take_ready() {
            Some(outcome) => claim.hold(self, outcome).map(Reserving::Decided),
            None => {
                let pending = PendingReservation { outcome, claim: Some(claim) };
                Ok(Reserving::Pending(Box::new(pending)))
            }
        }
    }
}

/// What a request needs of its subject's quota.
pub(super) struct Need {
    pub(super) context: RequestContext,
    pub(super) amount: u64,
    pub(super) at: SystemTime,
    pub(super) admission: Option<Admission>,
}

/// A reservation that has been started.
pub(super) enum Reserving {
    /// The store has decided. There is no reservation if the request passes uncounted.
    Decided(Option<Box<HeldReservation>>),
    // Boxed, as most stores decide at once.
    Pending(Box<PendingReservation>),
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
    claim: Option<Claim>,
}

/// What becomes a [`HeldReservation`] if the store admits it.
struct Claim {
    context: RequestContext,
    demand: Demand,
    /// Limit of the subject, which a shadow quota does not demand.
    limit: Limit,
}

impl PendingReservation {
    /// Returns the reservation or its rejection once the store has decided.
    ///
    /// # Panics
    ///
    /// When polled again after completion.
    pub(super) fn poll(
        &mut self,
        layer: &DailyQuotaLayer,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Option<Box<HeldReservation>>, QuotaRejection>> {
        let outcome = ready!(Pin::new(&mut self.outcome).poll(cx));
        let claim = self.claim.take().expect("`PendingReservation` polled after completion");
        Poll::Ready(claim.hold(layer, outcome))
    }
}

impl Claim {
    #[inline]
    fn hold(
        self,
        layer: &DailyQuotaLayer,
        outcome: Result<ReserveOutcome, StoreError>,
    ) -> Result<Option<Box<HeldReservation>>, QuotaRejection> {
        let Self { context, demand, limit } = self;
        let (at, amount) = (demand.at, demand.amount);
        let visibility =
            Visibility { is_shown: layer.rate_headers().is_some(), is_shadow: layer.is_shadow };
        match outcome {
            Ok(ReserveOutcome::Admitted { reservation, mut status }) => {
                if layer.is_shadow {
                    status.limit = limit;
                    if amount > 0 {
                        note_shadow_excess(status, at);
                    }
                }
                let (store, admission) = (layer.store.clone(), reservation.admission());
                let entry = QuotaEntry::reserved(store, demand, status, admission, visibility);
                Ok(Some(Box::new(HeldReservation {
                    units: Mutex::new(Units::new(reservation, amount)),
                    change: None,
                    is_refunded: false,
                    has_ended: false,
                    entry: context.note_reserved(entry),
                    context,
                    at,
                })))
            }
            Ok(ReserveOutcome::Exhausted(status)) => {
                context.note_exhausted(QuotaEntry::exhausted(status, visibility));
                layer.unless_shadow(QuotaRejection::Exhausted { status, at }).map(|()| None)
            }
            Ok(ReserveOutcome::Elsewhere(status)) => {
                context.note_exhausted(QuotaEntry::exhausted(status, visibility));
                layer.unless_shadow(QuotaRejection::Elsewhere { status, at }).map(|()| None)
            }
            Err(error) => layer.unless_shadow(QuotaRejection::Store(error)).map(|()| None),
        }
    }
}

/// The reservation of one request, kept in its future and then in its response body. Boxed, as it is moved often.
pub(super) struct HeldReservation {
    /// Never locked: the mutex only makes futures and bodies `Sync`.
    units: Mutex<Units>,
    /// A change that the store has not made yet.
    change: Option<StoreFuture<Change>>,
    is_refunded: bool,
    /// Whether the policy has decided at the end of the response.
    has_ended: bool,
    context: RequestContext,
    /// Index of the quota's entry in the context.
    entry: usize,
    at: SystemTime,
}

/// Change of the units that are charged.
#[derive(Clone, Copy)]
struct Change {
    /// Number of units that are charged in all, if the handler has changed it.
    charged: Option<u64>,
    /// Number of units refunded of them.
    refunded: u64,
}

impl HeldReservation {
    fn units(&mut self) -> &mut Units {
        self.units.get_mut().unwrap_or_else(PoisonError::into_inner)
    }

    /// Starts to make the reservation durable.
    pub(super) fn commit(&mut self) {
        self.units().commit();
    }

    pub(super) fn poll_committed(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), StoreError>> {
        self.units().poll_committed(cx)
    }

    /// Charges what the handler says, and keeps or refunds it. [`poll_settled`](Self::poll_settled) waits for the
    /// store.
    pub(super) fn settle(&mut self, decision: ChargeDecision) {
        let changes = self.context.quotas(|quotas| quotas.take_changes(self.entry));
        if changes.is_none() && decision == ChargeDecision::Keep {
            return;
        }
        let (taken, actual) = changes.unwrap_or_default();
        let units = self.units();
        units.add(taken);
        let change = match (actual, decision) {
            (None, ChargeDecision::Keep) => return,
            (None, ChargeDecision::Refund(refund)) => {
                units.refund(refund).map(|refunded| Change { charged: None, refunded })
            }
            (Some(actual), ChargeDecision::Keep) => {
                units.settle(actual).map(|charged| Change { charged: Some(charged), refunded: 0 })
            }
            (Some(actual), ChargeDecision::Refund(refund)) => {
                // A store that cannot correct the amount may refund it.
                let settled = or_unchanged(units.settle(actual));
                both(settled, units.refund(refund))
                    .map(|(charged, refunded)| Change { charged, refunded })
            }
        };
        match change.now_or_never() {
            Ok(change) => self.note_change(change),
            Err(pending) => self.change = Some(pending),
        }
    }

    /// Settles the reservation at the end of the response. The policy decides unless it is refunded already.
    pub(super) fn end(&mut self, policy: &dyn ChargePolicy, end: &ResponseEnd<'_>) {
        if !mem::replace(&mut self.has_ended, true) {
            self.settle(if self.is_refunded { ChargeDecision::Keep } else { policy.at_end(end) });
        }
    }

    /// Returns whether the response has ended.
    pub(super) fn has_ended(&self) -> bool {
        self.has_ended
    }

    /// Waits until the store has changed what it has to.
    pub(super) fn poll_settled(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if let Some(change) = &mut self.change {
            let change = ready!(Pin::new(change).poll(cx));
            self.change = None;
            self.note_change(change);
        }
        Poll::Ready(())
    }

    fn note_change(&mut self, change: Result<Change, StoreError>) {
        match change {
            Ok(Change { charged, refunded }) => {
                self.is_refunded |= refunded > 0;
                self.context.quotas(|quotas| {
                    if let Some(charged) = charged {
                        quotas.settle(self.entry, charged);
                    }
                    if refunded > 0 {
                        quotas.refund(self.entry, refunded);
                    }
                });
            }
            Err(error) => warn_unchanged(&error),
        }
    }

    /// Drops a reservation that could not be made durable and so is not charged, with the further units of its
    /// request. Returns the context of the request.
    pub(super) fn discard(mut self) -> RequestContext {
        self.settle(ChargeDecision::Refund(Refund::Always));
        self.has_ended = true;
        self.context.quotas(|quotas| quotas.discard(self.entry));
        self.context.clone()
    }

    /// Inserts the rate limit headers, unless a quota inside has rejected the request and shows its own.
    pub(super) fn insert_headers(
        &self,
        rate_headers: &dyn RateHeaders,
        head: &mut response::Parts,
    ) {
        let rejected = head.extensions.get::<Rejected>();
        if rejected.is_some() && self.context.is_exhausted() {
            return;
        }
        let is_exhausted =
            rejected.is_some_and(|rejected| rejected.code == catalog::INSUFFICIENT_QUOTA.code());
        let insert = |statuses: &[QuotaStatus]| {
            rate_headers.insert(statuses, self.at, &mut head.headers);
        };
        self.context.quotas(|quotas| quotas.with_shown(is_exhausted, insert));
    }
}

/// Charges what the handler of a request that was dropped has said.
impl Drop for HeldReservation {
    fn drop(&mut self) {
        if !self.has_ended {
            self.settle(ChargeDecision::Keep);
        }
    }
}

/// Settles a reservation at the end of the response body.
pub(super) struct SettleAtEnd {
    pub(super) reservation: Box<HeldReservation>,
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
