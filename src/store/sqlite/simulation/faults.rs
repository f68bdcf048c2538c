//! What goes wrong, and how processes end.

use std::{collections::VecDeque, sync::atomic::Ordering};

use rusqlite::Connection;

use super::{super::Durability, world::World};

/// A sixteenth of the largest limit.
const LARGEST_BLOCK: u64 = 25;

impl World {
    pub(super) fn rotate(&mut self) {
        // A failure is known to the journal itself.
        if !self.life().core.journal.has_failed() {
            let _ = self.life().core.journal.renew();
        }
    }

    pub(super) fn break_something(&mut self) {
        match self.random.below(5) {
            0 => self.disk.break_writes(self.random.pick(80)),
            1 => self.disk.break_syncs(),
            2 => self.broken_file.store(true, Ordering::Relaxed),
            _ => self.heal(),
        }
    }

    pub(super) fn heal(&mut self) {
        self.disk.heal();
        self.broken_file.store(false, Ordering::Relaxed);
    }

    /// The process ends at once; what it was about to do is not done.
    fn die(&mut self) -> Connection {
        for request in self.requests.drain(..) {
            if request.is_returned {
                self.oracle.seen(request.period).unsettled += 1;
            }
            std::mem::forget(request.charge);
        }
        let life = self.life.take().unwrap();
        self.heal();
        // Events that only memory held are gone.
        self.events.0 = 0;
        life.state.into_connection()
    }

    pub(super) fn kill(&mut self) {
        let was_broken = self.is_broken();
        let events = self.events.0;
        let connection = self.die();
        if !was_broken {
            self.events.0 = events;
        }
        self.oracle.end_process(|_| 0);
        self.start(connection);
    }

    pub(super) fn lose_power(&mut self) {
        let connection = self.die();
        let random = &mut self.random;
        self.disk.lose_power(|length| random.pick(length));
        self.boot += 1;
        self.oracle.lose_power();
        self.end_charged();
        self.start(connection);
    }

    /// The process ends in order, if the disk lets it.
    pub(super) fn close(&mut self) {
        while !self.requests.is_empty() {
            self.leave();
        }
        let in_order = !self.is_broken();
        let mut life = self.life.take().unwrap();
        life.core.queue.stop();
        life.state.turn(VecDeque::new());
        life.state.finish();
        self.heal();
        self.boot += u32::from(self.random.below(2) == 0);
        if in_order {
            self.oracle.end_process(|_| 0);
        } else {
            self.end_charged();
            self.events.0 = 0;
        }
        self.start(life.state.into_connection());
    }

    pub(super) fn is_broken(&self) -> bool {
        let file = self.broken_file.load(Ordering::Relaxed);
        self.disk.is_broken() || file || self.life().core.is_open().is_err()
    }

    /// The process has ended, and units that it had charged ahead may count as used.
    fn end_charged(&mut self) {
        let came_back = std::mem::take(&mut self.came_back);
        match self.durability {
            Durability::Power => self.oracle.end_process(|_| 0),
            Durability::Process => {
                self.oracle.end_process(|key| LARGEST_BLOCK + came_back[key]);
            }
        }
    }
}
