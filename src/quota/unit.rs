use std::{
    fmt,
    task::{Context, Poll},
    time::SystemTime,
};

use http::response::Parts;

use super::{ChargePolicy, Settlement, in_flight::Slot};
use crate::{
    body::{BodyEnd, BodyObserver},
    error::StoreError,
    store::{Charge, Standing, Units, rate_headers},
};

/// The unit of one request: it lives in the future, then in the body.
pub(super) struct Unit {
    charge: Box<dyn Charge>,
    standing: Standing,
    units: Units,
    at: SystemTime,
    slot: Option<Slot>,
}

impl Unit {
    pub(super) fn new(
        charge: Box<dyn Charge>,
        standing: Standing,
        units: Units,
        at: SystemTime,
        slot: Option<Slot>,
    ) -> Self {
        units.charge(charge.admission());
        Self { charge, standing, units, at, slot }
    }

    /// Begins to make the unit durable.
    pub(super) fn commit(&mut self) {
        self.charge.commit();
    }

    pub(super) fn poll_committed(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), StoreError>> {
        self.charge.poll_committed(cx)
    }

    /// Does with the unit what the policy has decided.
    pub(super) fn apply(&mut self, settlement: Settlement) {
        if apply(settlement, &mut *self.charge, &self.units) {
            self.standing.used = self.standing.used.saturating_sub(1);
        }
    }

    /// The unit could not be made durable, so it is not charged.
    pub(super) fn forget(self) {
        self.units.clear();
    }

    pub(super) fn insert_headers(&self, head: &mut Parts) {
        rate_headers::insert(&mut head.headers, &self.standing, self.at);
    }
}

/// Settles the unit of a response at the end of its body.
pub struct UnitObserver<P> {
    charge: Box<dyn Charge>,
    units: Units,
    slot: Option<Slot>,
    policy: P,
}

impl<P> UnitObserver<P> {
    pub(super) fn new(unit: Unit, policy: P) -> Self {
        let Unit { charge, units, slot, .. } = unit;
        Self { charge, units, slot, policy }
    }
}

impl<D, P: ChargePolicy> BodyObserver<D> for UnitObserver<P> {
    fn end(mut self, end: BodyEnd) {
        apply(self.policy.at_end(end), &mut *self.charge, &self.units);
        drop(self.slot.take());
    }
}

/// Does with a unit what the policy has decided; returns whether it was given back.
fn apply(settlement: Settlement, charge: &mut dyn Charge, units: &Units) -> bool {
    let given_back = match settlement {
        Settlement::Refund(refund) => charge.refund(refund),
        Settlement::Keep => false,
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
