//! The generic cell rate algorithm (ITU-T I.371): a burst of events, and then one in each interval.

#[cfg(any(feature = "admin", feature = "engine"))]
use std::{hash::Hash, time::Instant};
use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

#[cfg(feature = "quota")]
use dashmap::DashMap;

#[cfg(any(feature = "admin", feature = "engine"))]
use super::Slots;
#[cfg(feature = "quota")]
use crate::key::KeyId;

/// The rate of a subject's events. Times are in nanoseconds.
#[derive(Clone, Copy)]
struct Rate {
    interval: u64,
    /// How far the theoretical arrival time of an event may be ahead of the event.
    tolerance: u64,
}

impl Rate {
    fn new(burst: u64, interval: u64) -> Self {
        Self { interval, tolerance: burst.saturating_sub(1).saturating_mul(interval) }
    }

    /// Takes the theoretical arrival time of an event that arrives now. Returns that of the next one, or the
    /// time until the event is within the rate.
    fn admit(self, arrival: u64, now: u64) -> Result<u64, u64> {
        let ahead = arrival.saturating_sub(now);
        match ahead.saturating_sub(self.tolerance) {
            0 => Ok(now.saturating_add(ahead).saturating_add(self.interval)),
            wait => Err(wait),
        }
    }
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

/// Limits the events of any number of subjects in memory of a fixed size: a few may share their limit.
#[cfg(any(feature = "admin", feature = "engine"))]
pub(crate) struct Gcra {
    rate: Rate,
    started: Instant,
    /// The theoretical arrival time of the next event, in nanoseconds after `started`.
    arrivals: Slots<AtomicU64>,
}

#[cfg(any(feature = "admin", feature = "engine"))]
impl Gcra {
    /// Creates a limiter with this number of slots for its subjects.
    pub(crate) fn new(slots: usize, burst: u64, interval: Duration) -> Self {
        let rate = Rate::new(burst, nanos(interval));
        Self { rate, started: Instant::now(), arrivals: Slots::new(slots) }
    }

    /// Counts an event of the subject, and returns whether it is within the limit.
    pub(crate) fn admit(&self, subject: &impl Hash) -> bool {
        self.admit_at(subject, self.started.elapsed())
    }

    fn admit_at(&self, subject: &impl Hash, now: Duration) -> bool {
        let next = |arrival| self.rate.admit(arrival, nanos(now)).ok();
        let arrival = self.arrivals.of(subject);
        arrival.fetch_update(Ordering::Relaxed, Ordering::Relaxed, next).is_ok()
    }
}

/// Limits the events of each subject on its own. It keeps the subjects with events in the last two periods.
#[cfg(feature = "quota")]
pub(crate) struct ExactGcra {
    /// In nanoseconds.
    period: u64,
    /// The theoretical arrival time of each subject's next event, in nanoseconds. One that is past may be missing.
    arrivals: DashMap<KeyId, u64>,
    /// The time from which arrival times that are past are removed, in nanoseconds.
    sweep_at: AtomicU64,
}

#[cfg(feature = "quota")]
impl ExactGcra {
    pub(crate) fn new(period: Duration) -> Self {
        Self { period: nanos(period), arrivals: DashMap::new(), sweep_at: AtomicU64::new(0) }
    }

    /// Counts an event of the subject, which has a burst of `limit` and then as many in each period. Returns the
    /// theoretical arrival time of the next event, or the time to wait if the event is beyond that.
    pub(crate) fn admit(&self, subject: KeyId, limit: u64, now: Duration) -> Result<u64, Duration> {
        if limit == 0 {
            return Err(Duration::from_nanos(self.period));
        }
        let now = nanos(now);
        self.sweep(now);
        // Rounded up, as the limit would be exceeded in the long run otherwise.
        let rate = Rate::new(limit, self.period.div_ceil(limit));
        let mut arrival = self.arrivals.entry(subject).or_default();
        *arrival = rate.admit(*arrival, now).map_err(Duration::from_nanos)?;
        Ok(*arrival)
    }

    /// Gives back an event that was counted under this limit, with `next` as the arrival time after it. What of it has
    /// passed by since is not given back, so that no event is admitted early in its place.
    pub(crate) fn give_back(&self, subject: &KeyId, limit: u64, next: u64, now: Duration) {
        let left = next.saturating_sub(nanos(now)).min(self.period.div_ceil(limit.max(1)));
        if let Some(mut arrival) = self.arrivals.get_mut(subject) {
            *arrival = arrival.saturating_sub(left);
        }
    }

    /// Removes arrival times that are past, once in a period.
    fn sweep(&self, now: u64) {
        let next = |at| (at <= now).then(|| now.saturating_add(self.period));
        if self.sweep_at.fetch_update(Ordering::Relaxed, Ordering::Relaxed, next).is_ok() {
            self.arrivals.retain(|_, arrival| *arrival > now);
            self.arrivals.shrink_to_fit();
        }
    }
}

#[cfg(all(test, any(feature = "admin", feature = "engine")))]
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
