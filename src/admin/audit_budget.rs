//! Bounds the number of audit entries that rejected attempts write.

use std::{
    sync::{Mutex, PoisonError},
    time::Instant,
};

/// Maximum number of entries in a burst, over all sources.
const BURST: f64 = 100.0;
/// Number of entries that are added to the budget per second.
const ENTRIES_PER_SECOND: f64 = 1.0;

/// A token bucket: the entries that are left, and the time at which that was computed.
#[derive(Debug)]
pub(super) struct AuditBudget(Mutex<(f64, Instant)>);

impl AuditBudget {
    pub(super) fn new() -> Self {
        Self(Mutex::new((BURST, Instant::now())))
    }

    /// Takes one entry from the budget. Returns whether there was one.
    pub(super) fn spend(&self, now: Instant) -> bool {
        let mut budget = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (left, since) = *budget;
        let refill = now.saturating_duration_since(since).as_secs_f64() * ENTRIES_PER_SECOND;
        let left = (left + refill).min(BURST);
        let enough = left >= 1.0;
        *budget = (if enough { left - 1.0 } else { left }, now);
        enough
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_flood_of_rejected_attempts_writes_few_entries() {
        let budget = AuditBudget::new();
        let start = Instant::now();
        let written = (0..100_000).filter(|_| budget.spend(start)).count();
        assert_eq!(written, 100);
        assert!(budget.spend(start + Duration::from_millis(1500)));
        assert!(!budget.spend(start + Duration::from_millis(1500)));
    }
}
