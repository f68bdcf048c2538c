//! Bounds what refused attempts write into the audit trail.

use std::{
    sync::{Mutex, PoisonError},
    time::Instant,
};

/// How many refused attempts of all sources are noted at once, and how many seconds pay for another.
const BURST: f64 = 100.0;
const SECONDS_EACH: f64 = 1.0;

/// How many refused attempts may still be noted, and since when.
#[derive(Debug)]
pub(super) struct NoteBudget(Mutex<(f64, Instant)>);

impl NoteBudget {
    pub(super) fn new() -> Self {
        Self(Mutex::new((BURST, Instant::now())))
    }

    /// Whether one more may be noted.
    pub(super) fn spend(&self, now: Instant) -> bool {
        let mut budget = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (left, since) = *budget;
        let earned = now.saturating_duration_since(since).as_secs_f64() / SECONDS_EACH;
        let left = (left + earned).min(BURST);
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
    fn a_flood_of_refused_attempts_is_noted_a_few_times() {
        let budget = NoteBudget::new();
        let start = Instant::now();
        let noted = (0..100_000).filter(|_| budget.spend(start)).count();
        assert_eq!(noted, 100);
        assert!(budget.spend(start + Duration::from_millis(1500)));
        assert!(!budget.spend(start + Duration::from_millis(1500)));
    }
}
