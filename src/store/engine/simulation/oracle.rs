//! What clients and operators have seen, and what may be counted in consequence.

use std::{collections::HashMap, mem};

use crate::{clock::Day, store::QuotaStatus};

/// What no number of units reaches.
pub(super) const UNLIMITED: u64 = u64::MAX;

/// One day of one counter, until a reset.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Period {
    pub(super) counter: usize,
    pub(super) day: Day,
    pub(super) resets: u32,
}

/// What became of a period's units so far.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Seen {
    /// Responses sent and kept: each must be counted.
    pub(super) responded: u64,
    /// Of these, those that a loss of power may undo.
    pub(super) unsynced: u64,
    /// Under way: each is counted as long as the process lives.
    pub(super) under_way: u64,
    /// Left by their clients, and counted in this process.
    pub(super) dropped: u64,
    /// Given back, which a loss of power may undo.
    pub(super) came_back: u64,
    /// Not charged in memory, of which neither the journal nor the file may know yet.
    pub(super) held: Held,
    /// Of these, those in the checkpoint that is at work.
    writing: Held,
    /// Counted besides when a process began, for nobody.
    found: u64,
    /// Each may be counted or not, which the next count shows.
    uncertain: u64,
    /// The highest limit of this day.
    pub(super) limit: u64,
    /// Given back, of those that are limited: at most as many.
    pub(super) provoked: u64,
    /// Of those given back, those that a loss of power may have forgotten.
    pub(super) unsynced_provoked: u64,
    /// The highest limit under which this process may have charged units ahead.
    pub(super) lease_limit: u64,
}

/// Units given back, or of requests that were rejected, while the journal could not be written.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Held {
    pub(super) units: u64,
    /// Of these, those of limited refunds.
    pub(super) provoked: u64,
    /// Units that a request has used beyond those reserved: charged in memory only.
    pub(super) more: u64,
}

#[derive(Debug, Default)]
pub(super) struct Oracle {
    seen: HashMap<Period, Seen>,
    resets: HashMap<usize, u32>,
    /// Whether units are charged ahead, in leases. Otherwise each is written down itself.
    has_leases: bool,
}

impl Seen {
    /// What this process counts, at least.
    fn least(&self) -> u64 {
        self.found + self.responded + self.under_way + self.dropped
    }

    /// How many units may be charged beyond what was used at most.
    fn ahead(&self, used: u64) -> u64 {
        let left = self.lease_limit.saturating_sub(used);
        (left / 16).clamp(1, 512).min(left)
    }
}

impl Oracle {
    pub(super) fn new(has_leases: bool) -> Self {
        Self { has_leases, ..Self::default() }
    }

    /// The period that a unit of this day belongs to now.
    pub(super) fn period(&self, counter: usize, day: Day) -> Period {
        Period { counter, day, resets: self.resets.get(&counter).copied().unwrap_or_default() }
    }

    /// A reset begins the day by the clock, also if it was left behind.
    pub(super) fn reset(&mut self, counter: usize) {
        *self.resets.entry(counter).or_default() += 1;
    }

    pub(super) fn seen(&mut self, period: Period) -> &mut Seen {
        self.seen.entry(period).or_default()
    }

    /// All that was written so far survives a loss of power.
    pub(super) fn synced(&mut self) {
        for seen in self.seen.values_mut() {
            (seen.unsynced, seen.unsynced_provoked) = (0, 0);
            // Until a held unit is checkpointed the journal charges for it, and for those after it.
            seen.came_back = if seen.held.units == 0 { 0 } else { seen.came_back };
        }
    }

    pub(super) fn begin_checkpoint(&mut self) {
        self.seen.values_mut().for_each(|seen| seen.writing = seen.held);
    }

    /// What was there when the checkpoint began is in the tables.
    pub(super) fn checkpointed(&mut self) {
        for seen in self.seen.values_mut() {
            let Held { units, provoked, more } = mem::take(&mut seen.writing);
            seen.held.units -= units;
            seen.held.provoked -= provoked;
            seen.held.more -= more;
        }
    }

    /// The process has ended: what was under way, and has reached the upstream, gets no response. It
    /// stays counted.
    pub(super) fn end_process(&mut self) {
        for seen in self.seen.values_mut() {
            seen.found += seen.under_way + seen.dropped;
            // After a loss of power some of them are uncertain already.
            seen.responded = seen.responded.saturating_sub(seen.held.more);
            seen.uncertain += seen.held.units + seen.held.more;
            seen.provoked -= seen.held.provoked;
            seen.unsynced_provoked = seen.unsynced_provoked.saturating_sub(seen.held.provoked);
            (seen.under_way, seen.dropped) = (0, 0);
            (seen.held, seen.writing) = (Held::default(), Held::default());
            (seen.came_back, seen.lease_limit) = (0, 0);
        }
    }

    /// The process has written all that it counted.
    pub(super) fn end_in_order(&mut self) {
        for seen in self.seen.values_mut() {
            seen.held = Held::default();
        }
        self.end_process();
    }

    /// The process has ended, and the next one is of another boot: what was charged ahead counts.
    pub(super) fn end_boot(&mut self) {
        for seen in self.seen.values_mut() {
            let held = seen.held.units;
            let most = seen.least() + seen.uncertain + seen.came_back + held;
            let ahead = if self.has_leases { held + seen.ahead(most) } else { 0 };
            seen.uncertain += seen.came_back + ahead;
        }
        self.end_process();
    }

    /// The power is lost, and with it what was not synced.
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

    /// What is counted must be what was seen.
    pub(super) fn check(&mut self, counter: usize, status: &QuotaStatus) {
        let period = self.period(counter, status.day);
        let seen = self.seen(period);
        let (least, used) = (seen.least(), status.used);
        let most = least + seen.uncertain;
        assert!((least..=most).contains(&used), "{used} used of {period:?}, but {seen:?}");
        (seen.found, seen.uncertain) = (seen.found + used - least, 0);
    }
}
