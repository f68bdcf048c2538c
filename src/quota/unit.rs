use std::{
    fmt,
    task::{Context, Poll},
    time::SystemTime,
};

use http::response::Parts;

use super::{ChargeDecision, ChargePolicy, in_flight::Slot};
use crate::{
    body::{BodyEnd, BodyObserver},
    error::StoreError,
    store::{QuotaStatus, Reservation, Units, rate_headers},
};

/// The unit of one request: it lives in the future, then in the body.
pub(super) struct Unit {
    reservation: Box<dyn Reservation>,
    status: QuotaStatus,
    units: Units,
    at: SystemTime,
    slot: Option<Slot>,
}

impl Unit {
    pub(super) fn new(
        reservation: Box<dyn Reservation>,
        status: QuotaStatus,
        units: Units,
        at: SystemTime,
        slot: Option<Slot>,
    ) -> Self {
        units.charge(reservation.admission());
        Self { reservation, status, units, at, slot }
    }

    /// Begins to make the unit durable.
    pub(super) fn commit(&mut self) {
        self.reservation.commit();
    }

    pub(super) fn poll_committed(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), StoreError>> {
        self.reservation.poll_committed(cx)
    }

    /// Does with the unit what the policy has decided.
    pub(super) fn apply(&mut self, decision: ChargeDecision) {
        if apply(decision, &mut *self.reservation, &self.units) {
            self.status.used = self.status.used.saturating_sub(1);
        }
    }

    /// The unit could not be made durable, so it is not charged.
    pub(super) fn forget(self) {
        self.units.clear();
    }

    pub(super) fn insert_headers(&self, head: &mut Parts) {
        rate_headers::insert(&mut head.headers, &self.status, self.at);
    }
}

/// Settles the unit of a response at the end of its body.
pub struct UnitObserver<P> {
    reservation: Box<dyn Reservation>,
    units: Units,
    slot: Option<Slot>,
    policy: P,
}

impl<P> UnitObserver<P> {
    pub(super) fn new(unit: Unit, policy: P) -> Self {
        let Unit { reservation, units, slot, .. } = unit;
        Self { reservation, units, slot, policy }
    }
}

impl<D, P: ChargePolicy> BodyObserver<D> for UnitObserver<P> {
    fn end(mut self, end: BodyEnd) {
        apply(self.policy.at_end(end), &mut *self.reservation, &self.units);
        drop(self.slot.take());
    }
}

/// Does with a unit what the policy has decided; returns whether it was given back.
fn apply(decision: ChargeDecision, reservation: &mut dyn Reservation, units: &Units) -> bool {
    let given_back = match decision {
        ChargeDecision::Refund(refund) => reservation.refund(refund),
        ChargeDecision::Keep => false,
    };
    if given_back {
        units.refund();
    }
    given_back
}

impl<P> fmt::Debug for UnitObserver<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("UnitObserver")
    }
}
