//! Leases: units that a process may use without waiting for the disk.

use std::time::{Duration, SystemTime};

use super::journal::Lsn;

/// Maximum number of units that a lease grants, which a power failure may cost a key.
const MAX_SIZE: u64 = 512;
/// Divisor for the size of a lease: at most 1/16 of the units left in the period.
const PART: u64 = 16;
/// Time below which the size of the next lease is doubled; it is halved after four times as long.
const SHORT: Duration = Duration::from_millis(500);

/// Lease: number of the period's units that may be used without another sync. After a power failure all of
/// them count as used, so no response is sent before its lease is durable. After any other end of the
/// process, unused units are returned.
#[derive(Debug, Default)]
pub(crate) struct Lease {
    /// Number of units granted in the period.
    granted: u64,
    /// LSN from which `granted` is durable.
    end: Lsn,
    /// Part of the lease that is durable.
    durable: u64,
    /// Number of units of the last extension.
    size: u64,
    /// Time of the last extension.
    begun: Option<SystemTime>,
}

/// Extension of a lease that must be appended to the journal.
pub(super) struct Extension {
    /// Number of units granted in the period.
    pub(super) granted: u64,
    /// Whether the next reservation must wait for the extension.
    pub(super) is_urgent: bool,
    /// Whether it must be on record beside the next reservation: what is used is durable together with its use, but the
    /// first lease of a period takes the place of the last one of the period before.
    pub(super) is_recorded: bool,
    size: u64,
    at: SystemTime,
}

impl Lease {
    /// Returns the extension that is due before the next `amount` units are reserved, when `used` units of
    /// this limit are used.
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
        let is_recorded = granted > used + amount || self.begun.is_none();
        (granted > self.granted).then_some(Extension { granted, is_urgent, is_recorded, size, at })
    }

    /// Applies an extension that was appended and is durable from `end` on.
    pub(super) fn extend(&mut self, extension: &Extension, end: Lsn) {
        (self.granted, self.end) = (extension.granted, end);
        (self.size, self.begun) = (extension.size, Some(extension.at));
    }

    /// Reduces the lease to its maximum size for `used` units. If a power failure undoes this, more units count as used,
    /// never fewer.
    pub(super) fn reduce(&mut self, used: u64, limit: u64) {
        self.granted = self.granted.min(used + max_size(used, limit));
        self.durable = self.durable.min(self.granted);
    }

    /// Returns the lease that must be on record beside `used` units, some of which come back.
    pub(super) fn to_record(&self, used: u64) -> Option<u64> {
        (self.granted > used).then_some(self.granted)
    }

    /// Returns the LSN that must be durable before unit `unit` is used.
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

/// Returns the maximum size of a lease when `used` units are used.
fn max_size(used: u64, limit: u64) -> u64 {
    (limit.saturating_sub(used) / PART).clamp(1, MAX_SIZE)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Uses all units of a period, one each `pause`. Returns the number of extensions and the size of the
    /// largest.
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
            assert!(used < lease.granted, "every unit is granted before its use");
            at += pause;
        }
        (extensions, largest)
    }

    #[test]
    fn slow_key_gets_single_units_and_fast_key_gets_large_leases() {
        assert_eq!(spend(200, Duration::from_secs(10)), (200, 1));
        let (extensions, largest) = spend(1_000_000, Duration::from_micros(50));
        assert_eq!(largest, MAX_SIZE);
        assert!(extensions < 5_000, "{extensions}");
    }

    #[test]
    fn lease_is_at_most_a_sixteenth_of_the_units_left() {
        assert_eq!(spend(200, Duration::ZERO).1, 200 / PART);
        assert_eq!(spend(15, Duration::ZERO), (15, 1));
    }

    #[test]
    fn refunded_units_reduce_the_lease_to_its_maximum() {
        let mut lease = Lease::default();
        for used in 0..300 {
            if let Some(extension) = lease.extension(used, 1, 400, SystemTime::UNIX_EPOCH, |_| true)
            {
                lease.extend(&extension, Lsn::default());
            }
        }
        for used in (0..300).rev() {
            lease.reduce(used, 400);
            assert!(lease.granted >= used, "every unit stays granted");
            assert!(lease.granted - used <= (400 - used) / PART, "{used} used");
        }
    }

    #[test]
    fn lease_starts_at_the_units_used_by_an_earlier_process() {
        let mut lease = Lease::default();
        let extension = lease.extension(150, 1, 200, SystemTime::UNIX_EPOCH, |_| true).unwrap();
        assert_eq!((extension.granted, extension.is_urgent), (151, true));
    }

    #[test]
    fn unit_waits_for_its_lease() {
        let mut lease = Lease::default();
        let at = SystemTime::UNIX_EPOCH;
        let extension = lease.extension(0, 1, 1000, at, |_| false).unwrap();
        lease.extend(&extension, Lsn(7));
        assert_eq!(lease.gate(1), Lsn(7));
        assert!(lease.extension(1, 1, 1000, at, |end| end == Lsn(7)).is_some());
        assert_eq!(lease.gate(1), Lsn(0), "a durable lease is not waited for");
        assert_eq!(lease.gate(2), Lsn(7), "until it is extended");
    }

    #[test]
    fn large_amount_is_granted_exactly() {
        let mut lease = Lease::default();
        let at = SystemTime::UNIX_EPOCH;
        let extension = lease.extension(0, 900, 1000, at, |_| true).unwrap();
        assert_eq!((extension.granted, extension.is_urgent), (900, true));
        lease.extend(&extension, Lsn(7));
        assert_eq!(lease.gate(900), Lsn(7));
        // All units were refunded.
        lease.reduce(0, 1000);
        assert_eq!(lease.to_record(0), Some(1000 / PART));
    }
}
