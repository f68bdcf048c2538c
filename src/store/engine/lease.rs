//! Units that a process may spend without waiting for the disk.

use std::time::{Duration, SystemTime};

use super::journal::Lsn;

/// Maximum number of units that a lease grants ahead, which a loss of power may cost a key.
const MAX_SIZE: u64 = 512;
/// A lease grants at most this part of what is left of the day.
const PART: u64 = 16;
/// A lease that lasts less is doubled; one that lasts four times as long is halved.
const SHORT: Duration = Duration::from_millis(500);

/// How far a day is granted. After a loss of power all of it counts as used, so no response is sent
/// before its grant is synced; after any other end of the process what was not used is free again.
#[derive(Debug, Default)]
pub(crate) struct Lease {
    /// The day is granted up to this unit.
    granted: u64,
    /// The grant survives a loss of power once this is synced.
    end: Lsn,
    /// The part of the grant that survives one already.
    durable: u64,
    size: u64,
    begun: Option<SystemTime>,
}

/// A grant that is to be written.
pub(super) struct Extension {
    /// The day is granted up to this unit.
    pub(super) granted: u64,
    /// Whether the next reservation waits for it.
    pub(super) is_urgent: bool,
    size: u64,
    at: SystemTime,
}

impl Lease {
    /// Returns the extension that is due before the next `amount` units of a day with this limit are
    /// taken, when `used` are.
    pub(super) fn extension(
        &mut self,
        used: u64,
        amount: u64,
        limit: u64,
        at: SystemTime,
        is_durable: impl FnOnce(Lsn) -> bool,
    ) -> Option<Extension> {
        if self.durable < self.granted && is_durable(self.end) {
            self.durable = self.granted;
        }
        let is_urgent = used + amount > self.granted;
        let spare = self.granted.saturating_sub(used);
        let is_low = self.durable == self.granted && spare <= self.size / 2;
        if !is_urgent && !is_low {
            return None;
        }
        let size = self.next_size(at).clamp(1, max_size(used, limit));
        let granted = (used + size.max(amount)).min(limit);
        (granted > self.granted).then_some(Extension { granted, is_urgent, size, at })
    }

    /// The extension was appended, and survives a loss of power once `end` is synced.
    pub(super) fn extend(&mut self, extension: &Extension, end: Lsn) {
        (self.granted, self.end) = (extension.granted, end);
        (self.size, self.begun) = (extension.size, Some(extension.at));
    }

    /// Returns how far the day may stay granted when only `used` are used any more, if that is less
    /// than it is.
    pub(super) fn surplus(&self, used: u64, limit: u64) -> Option<u64> {
        let granted = used + max_size(used, limit);
        (granted < self.granted).then_some(granted)
    }

    /// The surplus was returned. If that is lost with the power, more counts as used, not less.
    pub(super) fn lower(&mut self, granted: u64) {
        self.granted = granted;
        self.durable = self.durable.min(granted);
    }

    /// Returns what a reservation waits for that takes the day's units up to this one.
    pub(super) fn gate(&self, unit: u64) -> Lsn {
        if unit <= self.durable { Lsn::default() } else { self.end }
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

/// The largest lease when `used` units are used.
fn max_size(used: u64, limit: u64) -> u64 {
    (limit.saturating_sub(used) / PART).clamp(1, MAX_SIZE)
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
            if let Some(extension) = lease.extension(used, 1, limit, at, |_| true) {
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
    fn a_slow_key_is_granted_units_one_by_one_and_a_fast_one_large_leases() {
        assert_eq!(spend(200, Duration::from_secs(10)), (200, 1));
        let (extensions, largest) = spend(1_000_000, Duration::from_micros(50));
        assert_eq!(largest, MAX_SIZE);
        assert!(extensions < 5_000, "{extensions}");
    }

    #[test]
    fn a_lease_is_at_most_a_sixteenth_of_what_is_left() {
        assert_eq!(spend(200, Duration::ZERO).1, 200 / PART);
        assert_eq!(spend(15, Duration::ZERO), (15, 1));
    }

    #[test]
    fn units_that_come_back_leave_no_more_than_a_lease_granted() {
        let mut lease = Lease::default();
        for used in 0..300 {
            if let Some(extension) = lease.extension(used, 1, 400, SystemTime::UNIX_EPOCH, |_| true)
            {
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
    fn a_day_that_another_process_has_begun_continues() {
        let mut lease = Lease::default();
        let extension = lease.extension(150, 1, 200, SystemTime::UNIX_EPOCH, |_| true).unwrap();
        assert_eq!((extension.granted, extension.is_urgent), (151, true));
    }

    #[test]
    fn a_unit_waits_for_the_lease_it_was_taken_from() {
        let mut lease = Lease::default();
        let at = SystemTime::UNIX_EPOCH;
        let extension = lease.extension(0, 1, 1000, at, |_| false).unwrap();
        lease.extend(&extension, Lsn(7));
        assert_eq!(lease.gate(1), Lsn(7));
        assert!(lease.extension(1, 1, 1000, at, |end| end == Lsn(7)).is_some());
        assert_eq!(lease.gate(1), Lsn(0), "what is synced need not be waited for");
        assert_eq!(lease.gate(2), Lsn(7), "until it is extended");
    }

    #[test]
    fn a_large_amount_is_granted_at_once_and_nothing_beside_it() {
        let mut lease = Lease::default();
        let at = SystemTime::UNIX_EPOCH;
        let extension = lease.extension(0, 900, 1000, at, |_| true).unwrap();
        assert_eq!((extension.granted, extension.is_urgent), (900, true));
        lease.extend(&extension, Lsn(7));
        assert_eq!(lease.gate(900), Lsn(7));
        // All of it came back.
        assert_eq!(lease.surplus(0, 1000), Some(1000 / PART));
    }
}
