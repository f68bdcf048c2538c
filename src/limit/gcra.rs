use std::{
    hash::Hash,
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, Instant},
};

use super::Slots;

/// Limits events of each subject to a burst and then one in each interval: the generic cell rate
/// algorithm (ITU-T I.371).
pub(crate) struct Gcra {
    burst: u64,
    interval: Duration,
    started: Instant,
    /// The theoretical arrival time of the next event, in milliseconds after `started`.
    arrivals: Slots<AtomicU64>,
}

impl Gcra {
    /// Creates a limiter with this number of slots for its subjects.
    pub(crate) fn new(slots: usize, burst: u64, interval: Duration) -> Self {
        Self { burst, interval, started: Instant::now(), arrivals: Slots::new(slots) }
    }

    /// Counts an event of the subject, and returns whether it is within the limit.
    pub(crate) fn admit(&self, subject: &impl Hash) -> bool {
        self.admit_at(subject, self.started.elapsed())
    }

    fn admit_at(&self, subject: &impl Hash, now: Duration) -> bool {
        let millis = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        let (now, interval) = (millis(now), millis(self.interval));
        let tolerance = self.burst.saturating_sub(1) * interval;
        let next = |arrival: u64| {
            let arrival = arrival.max(now);
            (arrival <= now + tolerance).then_some(arrival + interval)
        };
        let arrival = self.arrivals.of(subject);
        arrival.fetch_update(Ordering::Relaxed, Ordering::Relaxed, next).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const INTERVAL: Duration = Duration::from_secs(3);

    fn admitted(limit: &Gcra, subject: &str, at: Duration) -> usize {
        (0..1000).filter(|_| limit.admit_at(&subject, at)).count()
    }

    #[test]
    fn a_flood_is_limited_to_the_burst_and_one_in_each_interval() {
        let limit = Gcra::new(4096, 20, INTERVAL);
        assert_eq!(admitted(&limit, "alice", Duration::ZERO), 20);
        assert_eq!(admitted(&limit, "alice", Duration::from_secs(2)), 0);
        assert_eq!(admitted(&limit, "alice", Duration::from_secs(7)), 2);
        assert_eq!(admitted(&limit, "alice", Duration::from_secs(3600)), 20);
        // Of two others, at most one can share her slot.
        let at = Duration::from_secs(3600);
        let others = [admitted(&limit, "bob", at), admitted(&limit, "carol", at)];
        assert!(others.contains(&20), "{others:?}");
    }

    #[test]
    fn subjects_of_one_slot_share_its_limit() {
        let limit = Gcra::new(1, 100, INTERVAL);
        assert_eq!(admitted(&limit, "alice", Duration::ZERO), 100);
        assert_eq!(admitted(&limit, "bob", Duration::ZERO), 0);
        assert_eq!(admitted(&limit, "bob", INTERVAL.mul_f64(1.5)), 1);
    }
}
