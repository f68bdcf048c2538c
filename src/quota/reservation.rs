use std::{
    future::Future,
    iter, mem,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll, ready},
    time::SystemTime,
};

use http::{HeaderMap, response};
use http_body::{Body, Frame};
use smallvec::SmallVec;

use super::{
    ChargeDecision, ChargePolicy, DailyQuotaLayer, QuotaRejection, ResponseEnd, Subject,
    layer::note_shadow_excess,
    rule::QuotaNeed,
    units::{Units, both, or_unchanged, warn_unchanged},
};
use crate::{
    body::{BodyEnd, EndDetector},
    error::{Rejected, StoreError, catalog},
    key::Limit,
    request::{QuotaEntry, RequestContext, Visibility},
    store::{
        Admission, Demand, QuotaStatus, QuotaStore, Refund, Reservation, ReserveAllOutcome,
        ReserveOutcome, StoreFuture, rate_headers::RateHeaders,
    },
};

impl DailyQuotaLayer {
    /// Starts the reservation of a request's units.
    pub(super) fn reserve(
        &self,
        subject: Subject,
        need: Need,
    ) -> Result<Reserving, QuotaRejection> {
        let Need { context, amount, further, at, admission } = need;
        let first = QuotaNeed { quota: self.quota, subject, amount };
        let mut claims = SmallVec::<[Claim; 1]>::new();
        for need in iter::once(first).chain(further) {
            match need.subject {
                Subject::Counted(subject) => {
                    let limit = if self.is_shadow { Limit::Unlimited } else { subject.limit };
                    let demand = Demand::new(subject.id, limit, at)
                        .quota(need.quota)
                        .amount(need.amount)
                        .admission(admission.clone());
                    claims.push(Claim { demand, limit: subject.limit });
                }
                Subject::Exempt => {}
                Subject::Unknown => self.unless_shadow(QuotaRejection::NoSubject)?,
            }
        }
        let Some(first) = claims.first() else { return Ok(Reserving::Decided(None)) };
        context.note_subject(&first.demand.subject);
        let mut outcome = start(&self.store, &claims);
        let claims = Claims { context, claims, at };
        match outcome.take_ready() {
            Some(outcome) => claims.hold(self, outcome).map(Reserving::Decided),
            None => {
                let pending = PendingReservation { outcome, claims: Some(claims) };
                Ok(Reserving::Pending(Box::new(pending)))
            }
        }
    }
}

/// Reserves the units of all claims, or none.
fn start(store: &Arc<dyn QuotaStore>, claims: &[Claim]) -> StoreFuture<Decision> {
    match claims {
        [Claim { demand, .. }] if demand.amount > 0 => store.reserve(demand).map(Decision::from),
        [Claim { demand, .. }] => store.status(demand).map(Decision::of_no_units),
        _ if claims.iter().all(|claim| claim.demand.amount > 0) => {
            let demands: Vec<_> = claims.iter().map(|claim| claim.demand.clone()).collect();
            store.reserve_all(&demands).map(Decision::from)
        }
        _ => {
            let demands = claims.iter().map(|claim| claim.demand.clone()).collect();
            StoreFuture::pending(reserve_or_look(store.clone(), demands))
        }
    }
}

/// Reserves the units of the demands that need some, once the statuses of the others are known.
async fn reserve_or_look(
    store: Arc<dyn QuotaStore>,
    demands: Vec<Demand>,
) -> Result<Decision, StoreError> {
    let mut known = Vec::new();
    for (index, demand) in demands.iter().enumerate().filter(|(_, demand)| demand.amount == 0) {
        known.push((index, store.status(demand).await?));
    }
    let needed: Vec<_> = demands.into_iter().filter(|demand| demand.amount > 0).collect();
    let mut admitted = match needed[..] {
        [] => Vec::new(),
        _ => match Decision::from(store.reserve_all(&needed).await?) {
            Decision::Admitted(admitted) => admitted.into_vec(),
            rejected => return Ok(rejected),
        },
    };
    for (index, status) in known {
        admitted.insert(index.min(admitted.len()), (Box::new(NoUnits), status));
    }
    Ok(Decision::Admitted(admitted.into()))
}

/// What a request needs of its subject's quota and of further ones.
pub(super) struct Need {
    pub(super) context: RequestContext,
    pub(super) amount: u64,
    pub(super) further: Vec<QuotaNeed>,
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

/// What the store has decided of all claims.
enum Decision {
    Admitted(SmallVec<[(Box<dyn Reservation>, QuotaStatus); 1]>),
    Exhausted(Vec<QuotaStatus>),
    Elsewhere(Vec<QuotaStatus>),
}

impl Decision {
    fn of_no_units(status: QuotaStatus) -> Self {
        let units: Box<dyn Reservation> = Box::new(NoUnits);
        Self::Admitted([(units, status)].into())
    }
}

impl From<ReserveOutcome> for Decision {
    fn from(outcome: ReserveOutcome) -> Self {
        match outcome {
            ReserveOutcome::Admitted { reservation, status } => {
                Self::Admitted([(reservation, status)].into())
            }
            ReserveOutcome::Exhausted(status) => Self::Exhausted(vec![status]),
            ReserveOutcome::Elsewhere(status) => Self::Elsewhere(vec![status]),
        }
    }
}

impl From<ReserveAllOutcome> for Decision {
    fn from(outcome: ReserveAllOutcome) -> Self {
        match outcome {
            ReserveAllOutcome::Admitted(admitted) => Self::Admitted(admitted.into()),
            ReserveAllOutcome::Exhausted(statuses) => Self::Exhausted(statuses),
            ReserveAllOutcome::Elsewhere(statuses) => Self::Elsewhere(statuses),
        }
    }
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
    outcome: StoreFuture<Decision>,
    claims: Option<Claims>,
}

/// What becomes a [`HeldReservation`] if the store admits it.
struct Claims {
    context: RequestContext,
    claims: SmallVec<[Claim; 1]>,
    at: SystemTime,
}

/// What a request claims of one quota.
struct Claim {
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
        let claims = self.claims.take().expect("`PendingReservation` polled after completion");
        Poll::Ready(claims.hold(layer, outcome))
    }
}

impl Claims {
    #[inline]
    fn hold(
        self,
        layer: &DailyQuotaLayer,
        outcome: Result<Decision, StoreError>,
    ) -> Result<Option<Box<HeldReservation>>, QuotaRejection> {
        let Self { context, claims, at } = self;
        let visibility =
            Visibility { is_shown: layer.rate_headers().is_some(), is_shadow: layer.is_shadow };
        // Another attempt before the last reset meets the same rejection.
        let resets_last = |statuses: Vec<QuotaStatus>| {
            for status in &statuses {
                context.note_exhausted(QuotaEntry::exhausted(*status, visibility));
            }
            let later = |last: QuotaStatus, status: QuotaStatus| {
                if status.resets_at > last.resets_at { status } else { last }
            };
            let none = || StoreError::unavailable("the store has rejected a request for no quota");
            statuses.into_iter().reduce(later).ok_or_else(none)
        };
        let rejection = match outcome {
            Ok(Decision::Admitted(admitted)) => {
                let held = claims.into_iter().zip(admitted).enumerate();
                let quotas = held.map(|(index, (claim, admitted))| {
                    let (entry, units) = claim.hold(layer, visibility, admitted);
                    let entry = context.note_reserved(entry.further(index > 0));
                    HeldQuota { units: Mutex::new(units), change: None, is_refunded: false, entry }
                });
                return Ok(Some(Box::new(HeldReservation {
                    quotas: quotas.collect(),
                    has_ended: false,
                    context,
                    at,
                })));
            }
            Ok(Decision::Exhausted(statuses)) => {
                resets_last(statuses).map(|status| QuotaRejection::Exhausted { status, at })
            }
            Ok(Decision::Elsewhere(statuses)) => {
                resets_last(statuses).map(|status| QuotaRejection::Elsewhere { status, at })
            }
            Err(error) => Err(error),
        };
        let rejection = rejection.unwrap_or_else(QuotaRejection::Store);
        layer.unless_shadow(rejection).map(|()| None)
    }
}

impl Claim {
    /// Returns the units that were reserved, and their entry for the context.
    #[inline]
    fn hold(
        self,
        layer: &DailyQuotaLayer,
        visibility: Visibility,
        (reservation, mut status): (Box<dyn Reservation>, QuotaStatus),
    ) -> (QuotaEntry, Units) {
        let Self { demand, limit } = self;
        let (at, amount) = (demand.at, demand.amount);
        if layer.is_shadow {
            status.limit = limit;
            if amount > 0 {
                note_shadow_excess(status, at);
            }
        }
        let (store, admission) = (layer.store.clone(), reservation.admission());
        let entry = QuotaEntry::reserved(store, demand, status, admission, visibility);
        (entry, Units::new(reservation, amount))
    }
}

/// The reservation of one request, kept in its future and then in its response body. Boxed, as it is moved often.
pub(super) struct HeldReservation {
    quotas: SmallVec<[HeldQuota; 1]>,
    /// Whether the policy has decided at the end of the response.
    has_ended: bool,
    context: RequestContext,
    at: SystemTime,
}

/// The units of one quota in a reservation.
struct HeldQuota {
    /// Never locked: the mutex only makes futures and bodies `Sync`.
    units: Mutex<Units>,
    /// A change that the store has not made yet.
    change: Option<StoreFuture<Change>>,
    is_refunded: bool,
    /// Index of the quota's entry in the context.
    entry: usize,
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
    /// Starts to make the reservation durable.
    pub(super) fn commit(&mut self) {
        self.quotas.iter_mut().for_each(|quota| quota.units().commit());
    }

    pub(super) fn poll_committed(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), StoreError>> {
        let mut all = Poll::Ready(Ok(()));
        for quota in &mut self.quotas {
            match quota.units().poll_committed(cx) {
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => all = Poll::Pending,
            }
        }
        all
    }

    /// Charges what the handler says, and keeps or refunds it. [`poll_settled`](Self::poll_settled) waits for the
    /// store.
    pub(super) fn settle(&mut self, decision: ChargeDecision) {
        for quota in &mut self.quotas {
            quota.settle(&self.context, decision);
        }
    }

    /// Settles the reservation at the end of the response. The policy decides unless it is refunded already.
    pub(super) fn end(&mut self, policy: &dyn ChargePolicy, end: &ResponseEnd<'_>) {
        if mem::replace(&mut self.has_ended, true) {
            return;
        }
        let is_refunded = self.quotas.iter().any(|quota| quota.is_refunded);
        self.settle(if is_refunded { ChargeDecision::Keep } else { policy.at_end(end) });
    }

    /// Returns whether the response has ended.
    pub(super) fn has_ended(&self) -> bool {
        self.has_ended
    }

    /// Waits until the store has changed what it has to.
    pub(super) fn poll_settled(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        for quota in &mut self.quotas {
            ready!(quota.poll_settled(&self.context, cx));
        }
        Poll::Ready(())
    }

    /// Drops a reservation that could not be made durable and so is not charged, with the further units of its
    /// request. Returns the context of the request.
    pub(super) fn discard(mut self) -> RequestContext {
        self.settle(ChargeDecision::Refund(Refund::Always));
        self.has_ended = true;
        for quota in &self.quotas {
            self.context.quotas(|quotas| quotas.discard(quota.entry));
        }
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

impl HeldQuota {
    fn units(&mut self) -> &mut Units {
        self.units.get_mut().unwrap_or_else(PoisonError::into_inner)
    }

    fn settle(&mut self, context: &RequestContext, decision: ChargeDecision) {
        let changes = context.quotas(|quotas| quotas.take_changes(self.entry));
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
            Ok(change) => self.note_change(context, change),
            Err(pending) => self.change = Some(pending),
        }
    }

    fn poll_settled(&mut self, context: &RequestContext, cx: &mut Context<'_>) -> Poll<()> {
        if let Some(change) = &mut self.change {
            let change = ready!(Pin::new(change).poll(cx));
            self.change = None;
            self.note_change(context, change);
        }
        Poll::Ready(())
    }

    fn note_change(&mut self, context: &RequestContext, change: Result<Change, StoreError>) {
        match change {
            Ok(Change { charged, refunded }) => {
                self.is_refunded |= refunded > 0;
                context.quotas(|quotas| {
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
