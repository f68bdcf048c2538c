//! What happens while the writer is at work.

use super::{death::Death, traffic::Traffic};

impl Traffic {
    /// What happens between a fold's beginning and its commit. Returns whether that is reached.
    pub(super) fn meanwhile(&mut self) -> bool {
        if self.core.is_none() || self.random.below(2) == 0 {
            return true;
        }
        for _ in 0..self.random.below(12) {
            match self.random.below(16) {
                0..3 => self.reserve(),
                3..10 => self.answer(),
                10 => self.answer_all(),
                11 => self.leave(),
                12 => self.sync(),
                13..15 => self.fail_once(),
                _ => self.faults.break_something(&mut self.random),
            }
        }
        self.death = match self.random.below(16) {
            0 => Some(Death::Kill),
            1 | 2 => Some(Death::LossOfPower),
            _ => None,
        };
        self.death.is_none()
    }

    /// A sync or a write fails, and the next one would not.
    fn fail_once(&mut self) {
        if self.faults.is_set() {
            return;
        }
        if self.random.below(2) == 0 {
            self.faults.disk.break_syncs();
            self.sync();
        } else {
            self.faults.disk.break_writes(self.random.pick(80));
            self.answer();
        }
        self.faults.disk.heal();
    }
}
