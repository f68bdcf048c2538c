//! Units that are granted ahead of their use.

use std::time::{Duration, SystemTime};

use super::journal::Lsn;

/// No lease is larger, so that a loss of power costs a key no more.
const LARGEST: u64 = 512;
/// A lease is at most this part of what is left of the day.
const PART: u64 = 16;
/// A lease that lasts less is doubled, one that lasts four times as long is halved.
const SHORT: Duration = Duration::from_millis(500);

/// How far a day is granted ahead. After a loss of power all of it counts as used, so no unit is
/// answered for before its charge is synced; after any other end of the process it is forgotten.
#[derive(Debug, Default)]
pub(crate) struct Lease {
    /// The day is granted up to this unit…
    granted: u64,
    /// …which is safe once this is synced.
    end: Lsn,
    /// Up to this unit it is safe already.
    safe: u64,
    size: u64,
    begun: Option<SystemTime>,
}

/// How far the day is to be granted.
pub(super) struct Extension {
    pub(super) granted: u64,
    /// Whether the next unit waits for it.
    pub(super) is_urgent: bool,
    size: u64,
    at: SystemTime,
}

impl Lease {
    /// The extension that is due before the next unit of a day with this limit is taken, when
    /// `used` are.
    pub(super) fn extension(
        &mut self,
        used: u64,
        limit: u64,
        at: SystemTime,
        is_durable: impl FnOnce(Lsn) -> bool,
    ) -> Option<Extension> {
        if self.safe < self.granted && is_durable(self.end) {
            self.safe = self.granted;
        }
        let is_urgent = used >= self.granted;
        let spare = self.granted.saturating_sub(used);
        let is_low = self.safe == self.granted && spare <= self.size / 2;
        if !is_urgent && !is_low {
            return None;
        }
        let size = self.next_size(at).clamp(1, largest(used, limit));
        let granted = (used + size).min(limit);
        (granted > self.granted).then_some(Extension { granted, is_urgent, size, at })
    }

    /// The extension was written, and is safe once `end` is synced.
    pub(super) fn extend(&mut self, extension: &Extension, end: Lsn) {
        (self.granted, self.end) = (extension.granted, end);
        (self.size, self.begun) = (extension.size, Some(extension.at));
    }

    /// How far the day may stay granted when only `used` are used any more, if that is less than
    /// it is.
    pub(super) fn surplus(&self, used: u64, limit: u64) -> Option<u64> {
        let granted = used + largest(used, limit);
        (granted < self.granted).then_some(granted)
    }

    /// The surplus was written off. If that is lost with the power, more counts as used, not less.
    pub(super) fn lower(&mut self, granted: u64) {
        self.granted = granted;
        self.safe = self.safe.min(granted);
    }

    /// What the day's `unit`-th unit must wait for.
    pub(super) fn gate(&self, unit: u64) -> Lsn {
        if unit <= self.safe { Lsn::default() } else { self.end }
    }

    fn next_size(&self, at: SystemTime) -> u64 {
        let lasted = self.begun.and_then(|begun| at.duration_since(begun).ok());
        match lasted {
            Some(lasted) if lasted < SHORT => self.size * 2,
            Some(lasted) if lasted > 4 * SHORT => self.size / 2,
            _ => self.size,
        }
    }
}

/// The largest lease when `used` are used.
fn largest(used: u64, limit: u64) -> u64 {
    (limit.saturating_sub(used) / PART).clamp(1, LARGEST)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Takes units as fast as this until the day is used up; returns how many extensions there
    /// were, and the largest.
    fn spend(limit: u64, pause: Duration) -> (usize, u64) {
        let (mut lease, mut at) = (Lease::default(), SystemTime::UNIX_EPOCH);
        let (mut extensions, mut largest) = (0, 0);
        for used in 0..limit {
            if let Some(extension) = lease.extension(used, limit, at, |_| true) {
                assert!(extension.granted <= limit, "never granted beyond the limit");
                largest = largest.max(extension.granted - used);
                extensions += 1;
                lease.extend(&extension, Lsn(extensions as u64));
            }
            assert!(used < lease.granted, "every unit is granted ahead");
            at += pause;
        }
        (extensions, largest)
    }

    #[test]
    fn a_slow_key_is_charged_one_by_one_and_a_fast_one_in_large_blocks() {
        assert_eq!(spend(200, Duration::from_secs(10)), (200, 1));
        let (extensions, largest) = spend(1_000_000, Duration::from_micros(50));
        assert_eq!(largest, LARGEST);
        assert!(extensions < 5_000, "{extensions}");
    }

    #[test]
    fn a_block_is_at_most_a_sixteenth_of_what_is_left() {
        assert_eq!(spend(200, Duration::ZERO).1, 200 / PART);
        assert_eq!(spend(15, Duration::ZERO), (15, 1));
    }

    #[test]
    fn units_that_come_back_leave_no_more_than_a_block_charged() {
        let mut lease = Lease::default();
        for used in 0..300 {
            if let Some(extension) = lease.extension(used, 400, SystemTime::UNIX_EPOCH, |_| true) {
                lease.extend(&extension, Lsn::default());
            }
        }
        for used in (0..300).rev() {
            if let Some(granted) = lease.surplus(used, 400) {
                lease.lower(granted);
            }
            assert!(lease.granted >= used, "every unit stays granted");
            assert!(lease.granted - used <= (400 - used) / PART, "{used} used");
        }
    }

    #[test]
    fn a_day_that_was_begun_by_another_process_goes_on() {
        let mut lease = Lease::default();
        let extension = lease.extension(150, 200, SystemTime::UNIX_EPOCH, |_| true).unwrap();
        assert_eq!((extension.granted, extension.is_urgent), (151, true));
    }

    #[test]
    fn a_unit_waits_for_the_block_it_was_taken_from() {
        let mut lease = Lease::default();
        let at = SystemTime::UNIX_EPOCH;
        let extension = lease.extension(0, 1000, at, |_| false).unwrap();
        lease.extend(&extension, Lsn(7));
        assert_eq!(lease.gate(1), Lsn(7));
        assert!(lease.extension(1, 1000, at, |end| end == Lsn(7)).is_some());
        assert_eq!(lease.gate(1), Lsn(0), "what is synced need not be waited for");
        assert_eq!(lease.gate(2), Lsn(7), "until it is extended");
    }
}
