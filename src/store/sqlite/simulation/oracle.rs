//! What holders and operators have seen, and what may be counted in consequence.

use std::collections::HashMap;

use crate::{clock::Day, store::Standing};

/// One day of one key, until its reset.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Period {
    pub(super) key: usize,
    pub(super) day: Day,
    pub(super) resets: u32,
}

/// What became of a period's units so far.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Seen {
    /// Answered and kept: each must be counted.
    pub(super) answered: u64,
    /// Under way: each is counted as long as the process lives.
    pub(super) under_way: u64,
    /// Unanswered, and counted in this process.
    pub(super) dropped: u64,
    /// Refused or given back, which the journal may not know: each may be counted or not once the
    /// process has ended.
    pub(super) unsettled: u64,
    /// Of the answered ones, those that a loss of power may undo.
    pub(super) unsynced: u64,
    /// Units were taken in this process, so some may be charged ahead.
    pub(super) is_charged: bool,
    /// Each may be counted or not.
    pub(super) uncertain: u64,
    /// Given back, of those that are limited, and the highest limit meanwhile.
    pub(super) provoked: u64,
    pub(super) limit: u64,
    /// Of those given back, those that a loss of power may have forgotten.
    pub(super) unsynced_provoked: u64,
}

#[derive(Debug, Default)]
pub(super) struct Oracle {
    seen: HashMap<Period, Seen>,
    resets: HashMap<(usize, Day), u32>,
}

impl Oracle {
    /// The period that a unit of this day belongs to now.
    pub(super) fn period(&self, key: usize, day: Day) -> Period {
        Period { key, day, resets: self.resets.get(&(key, day)).copied().unwrap_or_default() }
    }

    pub(super) fn reset(&mut self, key: usize, day: Day) {
        *self.resets.entry((key, day)).or_default() += 1;
    }

    pub(super) fn seen(&mut self, period: Period) -> &mut Seen {
        self.seen.entry(period).or_default()
    }

    /// The process has ended: nobody will answer what was under way. So many units of a key may have
    /// been charged ahead.
    pub(super) fn end_process(&mut self, ahead: impl Fn(usize) -> u64) {
        for (period, seen) in &mut self.seen {
            seen.uncertain += seen.under_way + seen.dropped + seen.unsettled;
            seen.uncertain += if seen.is_charged { ahead(period.key) } else { 0 };
            (seen.under_way, seen.dropped, seen.unsettled) = (0, 0, 0);
            seen.is_charged = false;
        }
    }

    /// All that was answered so far survives a loss of power.
    pub(super) fn synced(&mut self) {
        let all = self.seen.values_mut();
        all.for_each(|seen| (seen.unsynced, seen.unsynced_provoked) = (0, 0));
    }

    /// The power is lost, and with it what was not synced.
    pub(super) fn lose_power(&mut self) {
        for seen in self.seen.values_mut() {
            seen.answered -= seen.unsynced;
            seen.uncertain += seen.unsynced;
            seen.provoked -= seen.unsynced_provoked;
            (seen.unsynced, seen.unsynced_provoked) = (0, 0);
        }
    }

    /// What is counted must be what was seen.
    pub(super) fn check(&mut self, key: usize, standing: &Standing) {
        let period = self.period(key, standing.day);
        let seen = *self.seen(period);
        let least = seen.answered + seen.under_way + seen.dropped;
        let most = least + seen.uncertain;
        assert!(
            (least..=most).contains(&standing.used),
            "{} used of {period:?}, but {seen:?}",
            standing.used
        );
    }
}
