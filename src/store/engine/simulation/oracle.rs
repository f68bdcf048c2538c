//! Records what clients and operators have seen, and checks the counts against it.

use std::{collections::HashMap, mem};

use crate::{clock::Day, store::QuotaStatus};

/// Limit that no number of units reaches.
pub(super) const UNLIMITED: u64 = u64::MAX;

/// One day of one counter, until a reset.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Period {
    pub(super) counter: usize,
    pub(super) day: Day,
    pub(super) resets: u32,
}

/// States of the units of a period.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Seen {
    /// Units of responses that were sent and not refunded: each must be counted.
    pub(super) responded: u64,
    /// Part of `responded` that a power failure may undo.
    pub(super) unsynced: u64,
    /// Units of requests in flight: each is counted until the process ends.
    pub(super) under_way: u64,
    /// Units of requests that their clients have cancelled: each is counted until the process ends.
    pub(super) dropped: u64,
    /// Refunded units, whose refund a power failure may undo.
    pub(super) came_back: u64,
    /// Units that may not be in the journal or the tables yet as they are counted in memory.
    pub(super) held: Held,
    /// Part of `held` that is in the current checkpoint.
    writing: Held,
    /// Further units that were counted when the process started.
    found: u64,
    /// Units that may be counted or not, until the next count shows it.
    uncertain: u64,
    /// Highest limit of this day.
    pub(super) limit: u64,
    /// Units refunded under `Refund::UpToLimit`: at most `limit`.
    pub(super) provoked: u64,
    /// Part of `provoked` that a power failure may undo.
    pub(super) unsynced_provoked: u64,
    /// Highest limit under which this process may have extended a lease.
    pub(super) lease_limit: u64,
}

/// Units refunded, or of rejected requests, while the journal could not be written.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Held {
    pub(super) units: u64,
    /// Part of `units` refunded under `Refund::UpToLimit`.
    pub(super) provoked: u64,
    /// Units that requests have used beyond those reserved, charged in memory only.
    pub(super) more: u64,
}

#[derive(Debug, Default)]
pub(super) struct Oracle {
    seen: HashMap<Period, Seen>,
    resets: HashMap<usize, u32>,
    /// Whether the engine uses leases. Otherwise each unit is synced.
    has_leases: bool,
}

impl Seen {
    /// Returns the minimum number of units that this process counts.
    fn least(&self) -> u64 {
        self.found + self.responded + self.under_way + self.dropped
    }

    /// Returns the maximum number of unused units in a lease.
    fn ahead(&self, used: u64) -> u64 {
        let left = self.lease_limit.saturating_sub(used);
        (left / 16).clamp(1, 512).min(left)
    }
}

impl Oracle {
    pub(super) fn new(has_leases: bool) -> Self {
        Self { has_leases, ..Self::default() }
    }

    /// Returns the current period of a unit of this day.
    pub(super) fn period(&self, counter: usize, day: Day) -> Period {
        Period { counter, day, resets: self.resets.get(&counter).copied().unwrap_or_default() }
    }

    /// Starts a new period after a reset of the current day, which may be before the counted one.
    pub(super) fn reset(&mut self, counter: usize) {
        *self.resets.entry(counter).or_default() += 1;
    }

    pub(super) fn seen(&mut self, period: Period) -> &mut Seen {
        self.seen.entry(period).or_default()
    }

    /// Notes that all written records are durable.
    pub(super) fn synced(&mut self) {
        for seen in self.seen.values_mut() {
            (seen.unsynced, seen.unsynced_provoked) = (0, 0);
            // Until a held unit is checkpointed, the journal counts it and those after it.
            seen.came_back = if seen.held.units == 0 { 0 } else { seen.came_back };
        }
    }

    pub(super) fn begin_checkpoint(&mut self) {
        self.seen.values_mut().for_each(|seen| seen.writing = seen.held);
    }

    /// Notes that the units from the start of the checkpoint are in the tables.
    pub(super) fn checkpointed(&mut self) {
        for seen in self.seen.values_mut() {
            let Held { units, provoked, more } = mem::take(&mut seen.writing);
            seen.held.units -= units;
            seen.held.provoked -= provoked;
            seen.held.more -= more;
        }
    }

    /// Ends the process: requests in flight, which have reached the upstream, get no response and stay
    /// counted.
    pub(super) fn end_process(&mut self) {
        for seen in self.seen.values_mut() {
            seen.found += seen.under_way + seen.dropped;
            // After a power failure, some of them are already uncertain.
            seen.responded = seen.responded.saturating_sub(seen.held.more);
            seen.uncertain += seen.held.units + seen.held.more;
            seen.provoked -= seen.held.provoked;
            seen.unsynced_provoked = seen.unsynced_provoked.saturating_sub(seen.held.provoked);
            (seen.under_way, seen.dropped) = (0, 0);
            (seen.held, seen.writing) = (Held::default(), Held::default());
            (seen.came_back, seen.lease_limit) = (0, 0);
        }
    }

    /// Ends the process after it has written all counts.
    pub(super) fn end_in_order(&mut self) {
        for seen in self.seen.values_mut() {
            seen.held = Held::default();
        }
        self.end_process();
    }

    /// Ends the process and reboots the machine: leases count as used.
    pub(super) fn end_boot(&mut self) {
        for seen in self.seen.values_mut() {
            let held = seen.held.units;
            let most = seen.least() + seen.uncertain + seen.came_back + held;
            let ahead = if self.has_leases { held + seen.ahead(most) } else { 0 };
            seen.uncertain += seen.came_back + ahead;
        }
        self.end_process();
    }

    /// Cuts the power, which loses unsynced records.
    pub(super) fn lose_power(&mut self) {
        for seen in self.seen.values_mut() {
            seen.responded = seen.responded.saturating_sub(seen.unsynced);
            seen.uncertain += mem::take(&mut seen.unsynced) + seen.under_way + seen.dropped;
            (seen.under_way, seen.dropped) = (0, 0);
            seen.provoked -= mem::take(&mut seen.unsynced_provoked);
            seen.held.provoked = 0;
        }
        self.end_boot();
    }

    /// Checks that the count agrees with what was seen.
    pub(super) fn check(&mut self, counter: usize, status: &QuotaStatus) {
        let period = self.period(counter, status.day);
        let seen = self.seen(period);
        let (least, used) = (seen.least(), status.used);
        let most = least + seen.uncertain;
        assert!((least..=most).contains(&used), "{used} used of {period:?}, but {seen:?}");
        (seen.found, seen.uncertain) = (seen.found + used - least, 0);
    }
}
