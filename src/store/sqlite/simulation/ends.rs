//! How processes end.

use std::collections::VecDeque;

use rusqlite::Connection;

use super::{death::Death, world::World};

impl World {
    pub(super) fn is_broken(&self) -> bool {
        self.faults.is_set() || self.life().core.is_open().is_err()
    }

    pub(super) fn die_of(&mut self, death: Death) {
        match death {
            Death::Kill => self.kill(),
            Death::LossOfPower => self.lose_power(),
        }
    }

    fn die(&mut self) -> Connection {
        self.traffic().break_off();
        self.faults.heal();
        self.life.take().unwrap().state.into_connection()
    }

    pub(super) fn kill(&mut self) {
        let connection = self.die();
        self.traffic().oracle.end_process();
        self.start(connection);
    }

    pub(super) fn lose_power(&mut self) {
        let connection = self.die();
        let random = &mut self.random;
        self.faults.disk.lose_power(|length| random.pick(length));
        self.boot += 1;
        let mut traffic = self.traffic();
        traffic.oracle.lose_power();
        traffic.events.least = traffic.events.synced;
        drop(traffic);
        self.start(connection);
    }

    /// The process ends in order, if the disk lets it.
    pub(super) fn close(&mut self) {
        self.traffic().cease();
        let in_order = !self.is_broken();
        let mut life = self.life.take().unwrap();
        life.core.queue.stop();
        life.state.turn(VecDeque::new());
        life.state.finish();
        self.faults.heal();
        let reboots = self.random.below(2) == 0;
        self.boot += u32::from(reboots);
        let mut traffic = self.traffic();
        traffic.events.lose_ends();
        match (in_order, reboots) {
            (true, _) => traffic.oracle.end_in_order(),
            (false, true) => traffic.oracle.end_boot(),
            (false, false) => traffic.oracle.end_process(),
        }
        drop(traffic);
        self.start(life.state.into_connection());
    }
}
