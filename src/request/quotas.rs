//! What is known of the quotas of one request.

#[cfg(feature = "quota")]
use std::{mem, slice, sync::Arc};

use smallvec::SmallVec;

use crate::store::{Admission, QuotaStatus};
#[cfg(feature = "quota")]
use crate::store::{Demand, Quota, QuotaStore, Reservation};

/// Quotas of one request, the outermost first.
#[derive(Default)]
pub(crate) struct Quotas {
    entries: SmallVec<[QuotaEntry; 1]>,
    /// Whether the quota that has seen the request last was exhausted.
    #[cfg(feature = "quota")]
    pub(crate) is_exhausted: bool,
}

/// One quota of a request.
pub(crate) struct QuotaEntry {
    /// Status after the request's reservation.
    status: QuotaStatus,
    /// Number of units charged.
    units: u64,
    /// Number of units to charge in the end, if the handler has said it since.
    actual: Option<u64>,
    visibility: Visibility,
    is_refunded: bool,
    /// Whether the status is the last one known of the quota.
    is_current: bool,
    /// Whether fewer units were left than the layer or the handler has requested last.
    #[cfg(feature = "quota")]
    is_exhausted: bool,
    /// Entry of the request in the store's ledger.
    admission: Option<Admission>,
    /// Whether the layer counts the request on the quota beside another one.
    #[cfg(feature = "quota")]
    is_further: bool,
    #[cfg(feature = "quota")]
    held: Option<Held>,
}

/// Where the status of a quota counts.
#[derive(Clone, Copy)]
pub(crate) struct Visibility {
    /// Whether the rate limit headers of all layers show it.
    #[cfg(feature = "quota")]
    pub(crate) is_shown: bool,
    /// Whether the quota rejects no request.
    pub(crate) is_shadow: bool,
}

/// What the handler of a request changes of the units that are reserved for it.
#[cfg(feature = "quota")]
struct Held {
    store: Arc<dyn QuotaStore>,
    demand: Demand,
    /// Reservations that the layer has not taken over yet.
    taken: Vec<Taken>,
}

/// A reservation of further units, and their number.
#[cfg(feature = "quota")]
type Taken = (Box<dyn Reservation>, u64);

impl Quotas {
    /// Returns the last known status of each quota.
    pub(crate) fn statuses(&self) -> Vec<QuotaStatus> {
        let current = self.entries.iter().filter(|entry| entry.is_current);
        current.map(|entry| entry.status).collect()
    }

    /// Returns the status of the most constrained quota that is no shadow.
    pub(crate) fn most_constrained(&self) -> Option<QuotaStatus> {
        let is_real = |entry: &&QuotaEntry| entry.is_current && !entry.visibility.is_shadow;
        let real: Vec<_> = self.entries.iter().filter(is_real).map(|entry| entry.status).collect();
        QuotaStatus::most_constrained(&real).copied()
    }

    /// Returns the entries of the outermost quota, or of the outermost one that is no shadow. They are several if
    /// the request was sent again.
    fn outermost(&self) -> impl Iterator<Item = &QuotaEntry> {
        let real = self.entries.iter().find(|entry| !entry.visibility.is_shadow);
        let outermost = real.or(self.entries.first()).map(|entry| entry.status.quota);
        self.entries.iter().filter(move |entry| Some(entry.status.quota) == outermost)
    }

    /// Returns the number of units charged by the outermost quota.
    pub(crate) fn units(&self) -> u32 {
        let units = self.outermost().fold(0, |sum: u64, entry| sum.saturating_add(entry.actual()));
        u32::try_from(units).unwrap_or(u32::MAX)
    }

    /// Returns whether the outermost quota has refunded units.
    pub(crate) fn is_refunded(&self) -> bool {
        self.outermost().any(|entry| entry.is_refunded)
    }

    /// Returns the entry of the request in a store's ledger.
    pub(crate) fn admission(&self) -> Option<&Admission> {
        self.entries.iter().find_map(|entry| entry.admission.as_ref())
    }
}

impl QuotaEntry {
    /// Returns the number of units that are charged in the end.
    fn actual(&self) -> u64 {
        self.actual.unwrap_or(self.units)
    }
}

#[cfg(feature = "quota")]
impl QuotaEntry {
    /// Creates the entry of a quota of which nothing is reserved.
    pub(crate) fn exhausted(status: QuotaStatus, visibility: Visibility) -> Self {
        Self {
            status,
            units: 0,
            actual: None,
            visibility,
            is_refunded: false,
            is_current: true,
            is_exhausted: true,
            admission: None,
            is_further: false,
            held: None,
        }
    }

    /// Creates the entry of a quota of which the units of `demand` are reserved, which are in `status`.
    #[inline]
    pub(crate) fn reserved(
        store: Arc<dyn QuotaStore>,
        demand: Demand,
        status: QuotaStatus,
        admission: Option<Admission>,
        visibility: Visibility,
    ) -> Self {
        Self {
            status,
            units: demand.amount,
            actual: None,
            visibility,
            is_refunded: false,
            is_current: true,
            is_exhausted: false,
            admission,
            is_further: false,
            held: Some(Held { store, demand, taken: Vec::new() }),
        }
    }

    /// Sets whether the layer counts the request on the quota beside another one.
    pub(crate) fn further(self, is_further: bool) -> Self {
        Self { is_further, ..self }
    }

    fn change_units(&mut self, units: u64) {
        self.status.used = self.status.used.saturating_sub(self.units).saturating_add(units);
        self.units = units;
    }
}

#[cfg(feature = "quota")]
impl Quotas {
    /// Adds an entry, which replaces an earlier one of the same quota, and returns its index.
    #[inline]
    pub(crate) fn push(&mut self, entry: QuotaEntry) -> usize {
        for known in &mut self.entries {
            known.is_current &= known.status.quota != entry.status.quota;
        }
        self.entries.push(entry);
        self.entries.len() - 1
    }

    pub(crate) fn refund(&mut self, index: usize, refunded: u64) {
        let entry = &mut self.entries[index];
        entry.change_units(entry.units.saturating_sub(refunded));
        entry.is_refunded |= refunded > 0;
    }

    /// Sets the number of charged units.
    pub(crate) fn settle(&mut self, index: usize, charged: u64) {
        self.entries[index].change_units(charged);
    }

    /// Forgets a reservation that is not charged.
    pub(crate) fn discard(&mut self, index: usize) {
        let entry = &mut self.entries[index];
        (entry.units, entry.is_current, entry.held) = (0, false, None);
    }

    /// Calls `read` with the statuses that headers show, if there are any: those of the exhausted quotas if the
    /// request was rejected for them.
    pub(crate) fn with_shown(&self, is_exhausted: bool, read: impl FnOnce(&[QuotaStatus])) {
        let only_exhausted =
            is_exhausted && self.entries.iter().any(|entry| entry.is_current && entry.is_exhausted);
        let is_shown = |entry: &&QuotaEntry| {
            let is_meant = entry.is_exhausted || !only_exhausted;
            entry.visibility.is_shown && entry.is_current && is_meant
        };
        match &self.entries[..] {
            [entry] if is_shown(&entry) => read(slice::from_ref(&entry.status)),
            entries => {
                let shown: Vec<_> =
                    entries.iter().filter(is_shown).map(|entry| entry.status).collect();
                if !shown.is_empty() {
                    read(&shown);
                }
            }
        }
    }

    /// Returns the index of the innermost entry with reserved units: of `quota` if one is given, otherwise of the first
    /// quota of a layer.
    pub(crate) fn reserved(&self, quota: Option<Quota>) -> Option<usize> {
        self.entries.iter().rposition(|entry| {
            let is_same = match quota {
                Some(quota) => entry.status.quota == quota,
                None => !entry.is_further,
            };
            is_same && entry.is_current && entry.held.is_some()
        })
    }

    /// Returns the store of an entry and the demand of further units, unless its reservation was discarded.
    pub(crate) fn demand(&self, index: usize, units: u64) -> Option<(Arc<dyn QuotaStore>, Demand)> {
        let entry = &self.entries[index];
        let Held { store, demand, .. } = entry.held.as_ref()?;
        let admission = entry.admission.as_ref().or(self.admission()).cloned();
        Some((store.clone(), demand.clone().amount(units).admission(admission)))
    }

    /// Adds further units, which are in `status`.
    pub(crate) fn take(&mut self, index: usize, taken: Taken, status: QuotaStatus) {
        let entry = &mut self.entries[index];
        let status = QuotaStatus { limit: entry.status.limit, ..status };
        entry.admission = entry.admission.take().or_else(|| taken.0.admission());
        (entry.units, entry.status) = (entry.units.saturating_add(taken.1), status);
        entry.is_exhausted = false;
        entry.actual = entry.actual.map(|actual| actual.saturating_add(taken.1));
        if let Some(held) = &mut entry.held {
            held.taken.push(taken);
        }
    }

    /// Returns whether the quota of an entry is a shadow.
    pub(crate) fn is_shadow(&self, index: usize) -> bool {
        self.entries[index].visibility.is_shadow
    }

    /// Notes that fewer units are left of a quota than the handler has requested.
    pub(crate) fn set_exhausted(&mut self, index: usize, status: QuotaStatus) {
        let entry = &mut self.entries[index];
        (entry.status, entry.is_exhausted) = (status, true);
    }

    /// Returns the status of an entry and the number of its charged units, as if it was settled already.
    pub(crate) fn settled(&self, index: usize) -> (QuotaStatus, u64) {
        let entry = &self.entries[index];
        let (mut status, actual) = (entry.status, entry.actual());
        status.used = status.used.saturating_sub(entry.units).saturating_add(actual);
        (status, actual)
    }

    /// Sets the number of units that are charged in the end to the result of `actual`, which is called with the
    /// present number.
    pub(crate) fn set_actual(&mut self, index: usize, actual: impl FnOnce(u64) -> u64) {
        let entry = &mut self.entries[index];
        entry.actual = Some(actual(entry.actual()));
    }

    /// Takes what the handler has changed since the last time, if anything.
    pub(crate) fn take_changes(&mut self, index: usize) -> Option<(Vec<Taken>, Option<u64>)> {
        let entry = &mut self.entries[index];
        let taken = entry.held.as_mut().map(|held| &mut held.taken);
        let taken = taken.filter(|taken| !taken.is_empty());
        if taken.is_none() && entry.actual.is_none() {
            return None;
        }
        Some((taken.map(mem::take).unwrap_or_default(), entry.actual.take()))
    }
}
