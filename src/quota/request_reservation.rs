use std::{fmt, future::poll_fn};

use super::{
    QuotaRejection,
    layer::{note_shadow_excess, note_shadow_rejection},
};
use crate::{
    error::StoreError,
    request::RequestContext,
    store::{Demand, Quota, QuotaStatus, Reservation, ReserveOutcome},
};

/// The units of one request in one quota, which its handler changes as it learns what the request costs.
///
/// It is that of [`RequestContext::reservation`]; clones are of the same request.
///
/// - [`take`](Self::take) takes more units, all of them or none.
/// - [`settle`](Self::settle) and [`give_back`](Self::give_back) say what is charged in the end: with the response
///   head if they are called by then, otherwise at the end of the body, or when the request is dropped.
/// - A request that costs 0 has a reservation, too, of no units.
/// - What was taken is refunded with the rest if the [`ChargePolicy`](super::ChargePolicy) says so.
/// - A store may be unable to charge less or more at the end, as with
///   [`ReserveOutcome::admitted`]: then a warning is logged, and what was reserved and taken stays charged.
///
/// A handler that could not take units rejects its request as in the example. Its response has the rate limit headers
/// of the exhausted quota alone, with the units that are left after the refund, as if the layer had rejected it; a
/// rejection for another reason has those of all quotas. In axum, where `Bytes` are no body, it ends with
/// `.map(axum::body::Body::from)`.
///
/// ```
/// use bytes::Bytes;
/// use http::{Request, Response};
/// use tower_quota::{
///     error::{ProblemJson, Rejection},
///     request::RequestContext,
/// };
///
/// /// A report costs one unit a page, of which one was reserved.
/// async fn report<B>(request: Request<B>) -> Response<Bytes> {
///     let reservation = request.extensions().get().and_then(RequestContext::reservation);
///     let reservation = reservation.expect("a quota is outside of this handler");
/// #   let (estimate, pages) = (3, 2);
///     if let Err(rejection) = reservation.take(estimate - 1).await {
///         // As the layer would respond, which then refunds the unit.
///         return Rejection::from(&rejection).render(&ProblemJson, &request);
///     }
///     // Work, which took fewer pages than estimated.
///     reservation.settle(pages);
///     Response::default()
/// }
/// # let _ = report::<()>;
/// ```
#[derive(Clone)]
pub struct RequestReservation {
    context: RequestContext,
    /// Index of the quota's entry in the context.
    entry: usize,
}

impl RequestContext {
    /// Returns the request's units in the quota of the innermost `DailyQuotaLayer` that has admitted it, not in one that
    /// [`and`](super::DailyQuotaLayer::and) has added to the layer.
    pub fn reservation(&self) -> Option<RequestReservation> {
        self.units_in(None)
    }

    /// Returns the request's units in this quota.
    pub fn reservation_of(&self, quota: Quota) -> Option<RequestReservation> {
        self.units_in(Some(quota))
    }

    fn units_in(&self, quota: Option<Quota>) -> Option<RequestReservation> {
        let entry = self.quotas(|quotas| quotas.reserved(quota))?;
        Some(RequestReservation { context: self.clone(), entry })
    }
}

impl RequestReservation {
    /// Returns the last known status of the subject, with what the handler has said since.
    pub fn status(&self) -> QuotaStatus {
        self.context.quotas(|quotas| quotas.settled(self.entry)).0
    }

    /// Returns the number of units that the request is charged.
    pub fn units(&self) -> u64 {
        self.context.quotas(|quotas| quotas.settled(self.entry)).1
    }

    /// Takes more units, of the period in which the request was received. Of concurrent requests no more are
    /// admitted than the limit allows, as at their reservation. The units are as durable as the store
    /// guarantees when the future is ready; if it is dropped, they may stay charged. Units taken after the end of the
    /// response are counted, but the request's event does not show them, and no policy refunds them.
    ///
    /// # Errors
    ///
    /// [`Exhausted`](QuotaRejection::Exhausted) if fewer units are left: none is taken.
    /// [`Store`](QuotaRejection::Store) if they could not be counted.
    pub async fn take(&self, units: u64) -> Result<QuotaStatus, QuotaRejection> {
        if units == 0 {
            return Ok(self.status());
        }
        let demand = self.context.quotas(|quotas| quotas.demand(self.entry, units));
        let Some((store, demand)) = demand else {
            let error =
                StoreError::unavailable("the units of the request could not be made durable");
            return Err(QuotaRejection::Store(error));
        };
        let reserved = store.reserve(&demand).await;
        let result = self.hold(reserved, &demand).await;
        if !self.context.quotas(|quotas| quotas.is_shadow(self.entry)) {
            return result;
        }
        let (quota, at, status) = (demand.quota, demand.at, self.status());
        match result {
            Err(rejection) => note_shadow_rejection(quota, &rejection),
            Ok(_) => note_shadow_excess(status, at),
        }
        Ok(status)
    }

    /// Adds the units to the request's once they are durable.
    async fn hold(
        &self,
        reserved: Result<ReserveOutcome, StoreError>,
        demand: &Demand,
    ) -> Result<QuotaStatus, QuotaRejection> {
        match reserved.map_err(QuotaRejection::Store)? {
            ReserveOutcome::Admitted { reservation, status } => {
                let (reservation, units) = (Some(reservation), demand.amount);
                let mut taken = Taken { of: self, reservation, units, status };
                taken.commit().await.map_err(QuotaRejection::Store)?;
                Ok(status)
            }
            ReserveOutcome::Exhausted(status) => {
                self.context.quotas(|quotas| quotas.set_exhausted(self.entry, status));
                Err(QuotaRejection::Exhausted { status, at: demand.at })
            }
            ReserveOutcome::Elsewhere(status) => {
                Err(QuotaRejection::Elsewhere { status, at: demand.at })
            }
        }
    }

    /// Charges `actual` units for the request in place of those reserved and taken so far. More than those are
    /// charged even beyond the limit, as they were used; it has no effect on a request that has none. Units
    /// taken later are added.
    pub fn settle(&self, actual: u64) {
        self.context.quotas(|quotas| quotas.set_actual(self.entry, |_| actual));
    }

    /// Gives units back, at most those that the request is charged.
    pub fn give_back(&self, units: u64) {
        let less = |charged: u64| charged.saturating_sub(units);
        self.context.quotas(|quotas| quotas.set_actual(self.entry, less));
    }
}

impl fmt::Debug for RequestReservation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (status, units) = self.context.quotas(|quotas| quotas.settled(self.entry));
        f.debug_struct("RequestReservation")
            .field("status", &status)
            .field("units", &units)
            .finish()
    }
}

/// Units that become the request's when this is dropped, unless they could not be made durable.
struct Taken<'a> {
    of: &'a RequestReservation,
    reservation: Option<Box<dyn Reservation>>,
    units: u64,
    status: QuotaStatus,
}

impl Taken<'_> {
    async fn commit(&mut self) -> Result<(), StoreError> {
        let Some(reservation) = &mut self.reservation else { return Ok(()) };
        let committed = poll_fn(|cx| reservation.poll_committed(cx)).await;
        committed.inspect_err(|_| self.reservation = None)
    }
}

impl Drop for Taken<'_> {
    fn drop(&mut self) {
        if let Some(reservation) = self.reservation.take() {
            let (taken, RequestReservation { context, entry }) =
                ((reservation, self.units), self.of);
            context.quotas(|quotas| quotas.take(*entry, taken, self.status));
        }
    }
}
