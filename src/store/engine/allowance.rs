//! Bounds what is written for each subject, in memory of a fixed size.

use std::{
    hash::{BuildHasher, RandomState},
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, Instant},
};

use crate::key::KeyId;

/// However many subjects there are: those that share a place share its allowance.
const PLACES: usize = 4096;
/// So many at once,
const BURST: u64 = 20;
/// and another one after each of these times.
const PERIOD: Duration = Duration::from_secs(3);

/// Twenty at once for each subject, then one every three seconds (the generic cell rate algorithm,
/// ITU-T I.371).
pub(crate) struct Allowance {
    seed: RandomState,
    begun: Instant,
    /// Until when each place has spent ahead, in milliseconds since `begun`.
    spent_until: Box<[AtomicU64]>,
}

impl Allowance {
    pub(crate) fn new() -> Self {
        let spent_until = std::iter::repeat_with(|| AtomicU64::new(0)).take(PLACES).collect();
        Self { seed: RandomState::new(), begun: Instant::now(), spent_until }
    }

    /// Whether the subject may have one more.
    pub(crate) fn spend(&self, id: &KeyId) -> bool {
        self.spend_at(id, self.begun.elapsed())
    }

    fn spend_at(&self, id: &KeyId, now: Duration) -> bool {
        let millis = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        let (now, period) = (millis(now), millis(PERIOD));
        let place = self.seed.hash_one(id) as usize % PLACES;
        let spend = |until: u64| {
            let until = until.max(now);
            (until <= now + (BURST - 1) * period).then_some(until + period)
        };
        let (set, fetch) = (Ordering::Relaxed, Ordering::Relaxed);
        self.spent_until[place].fetch_update(set, fetch, spend).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_is_cut_to_the_burst_and_one_a_period_for_each_subject() {
        let allowance = Allowance::new();
        let spent =
            |id: &str, at| (0..1000).filter(|_| allowance.spend_at(&KeyId::from(id), at)).count();
        assert_eq!(spent("alice", Duration::ZERO), 20);
        assert_eq!(spent("alice", Duration::from_secs(2)), 0);
        assert_eq!(spent("alice", Duration::from_secs(7)), 2);
        assert_eq!(spent("alice", Duration::from_secs(3600)), 20);
        // Of two others, at most one can share her place.
        let others =
            [spent("bob", Duration::from_secs(3600)), spent("carol", Duration::from_secs(3600))];
        assert!(others.contains(&20), "{others:?}");
    }
}
