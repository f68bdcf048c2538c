//! What goes wrong with the disk.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use super::{chance::Random, disk::SimDisk};

/// The journal's disk and the database's commits. Clones share them.
#[derive(Clone, Default)]
pub(super) struct Faults {
    pub(super) disk: SimDisk,
    /// Set while commits fail.
    broken_file: Arc<AtomicBool>,
}

impl Faults {
    pub(super) fn break_something(&self, random: &mut Random) {
        match random.below(6) {
            0 => self.disk.break_writes(random.pick(80)),
            1 => self.disk.break_syncs(),
            2 => self.broken_file.store(true, Ordering::Relaxed),
            3 => self.disk.heal(),
            _ => self.heal(),
        }
    }

    pub(super) fn heal(&self) {
        self.disk.heal();
        self.broken_file.store(false, Ordering::Relaxed);
    }

    pub(super) fn breaks_commits(&self) -> bool {
        self.broken_file.load(Ordering::Relaxed)
    }

    pub(super) fn is_set(&self) -> bool {
        self.disk.is_broken() || self.breaks_commits()
    }
}
