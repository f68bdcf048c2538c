//! What is known of the quotas of one request.

#[cfg(feature = "quota")]
use std::slice;

use crate::store::{Admission, QuotaStatus};

/// Quotas of one request, the outermost first.
#[derive(Default)]
pub(super) struct Quotas {
    entries: Vec<QuotaEntry>,
    /// Entry of the request in a store's ledger.
    pub(super) admission: Option<Admission>,
    /// Whether the quota that has seen the request last was exhausted.
    #[cfg(feature = "quota")]
    pub(super) is_exhausted: bool,
}

/// One quota of a request.
pub(crate) struct QuotaEntry {
    /// Status after the request's reservation.
    pub(crate) status: QuotaStatus,
    /// Number of units charged.
    pub(crate) units: u64,
    /// Whether the rate limit headers of all layers show the quota.
    #[cfg(feature = "quota")]
    pub(crate) is_shown: bool,
    is_refunded: bool,
    /// Whether the status is the last one known of the quota.
    is_current: bool,
}

impl Quotas {
    /// Returns the last known status of each quota.
    pub(super) fn statuses(&self) -> Vec<QuotaStatus> {
        let current = self.entries.iter().filter(|entry| entry.is_current);
        current.map(|entry| entry.status).collect()
    }

    /// Returns the entries of the outermost quota, which are several if the request was sent again.
    fn outermost(&self) -> impl Iterator<Item = &QuotaEntry> {
        let outermost = self.entries.first().map(|entry| entry.status.quota);
        self.entries.iter().filter(move |entry| Some(entry.status.quota) == outermost)
    }

    /// Returns the number of units charged by the outermost quota.
    pub(super) fn units(&self) -> u32 {
        let units = self.outermost().fold(0, |sum: u64, entry| sum.saturating_add(entry.units));
        u32::try_from(units).unwrap_or(u32::MAX)
    }

    /// Returns whether the outermost quota has refunded units.
    pub(super) fn is_refunded(&self) -> bool {
        self.outermost().any(|entry| entry.is_refunded)
    }
}

#[cfg(feature = "quota")]
impl QuotaEntry {
    /// Creates the entry of a quota with this status, which includes the units.
    pub(crate) fn new(status: QuotaStatus, units: u64, is_shown: bool) -> Self {
        Self { status, units, is_shown, is_refunded: false, is_current: true }
    }
}

#[cfg(feature = "quota")]
impl Quotas {
    /// Adds an entry, which replaces an earlier one of the same quota, and returns its index.
    pub(super) fn push(&mut self, entry: QuotaEntry) -> usize {
        for known in &mut self.entries {
            known.is_current &= known.status.quota != entry.status.quota;
        }
        // Nearly all requests have one.
        self.entries.reserve_exact(1);
        self.entries.push(entry);
        self.entries.len() - 1
    }

    pub(super) fn refund(&mut self, index: usize) {
        let entry = &mut self.entries[index];
        entry.status.used = entry.status.used.saturating_sub(entry.units);
        (entry.units, entry.is_refunded) = (0, true);
    }

    /// Forgets a reservation that is not charged.
    pub(super) fn discard(&mut self, index: usize) {
        let entry = &mut self.entries[index];
        (entry.units, entry.is_current) = (0, false);
    }

    /// Calls `read` with the statuses that headers show, if there are any.
    pub(super) fn with_shown(&self, read: impl FnOnce(&[QuotaStatus])) {
        let is_shown = |entry: &&QuotaEntry| entry.is_shown && entry.is_current;
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
}
