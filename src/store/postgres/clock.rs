//! The database's clock, which decides the day for all nodes.

use std::time::{Instant, SystemTime};

use crate::{
    clock::Clock,
    store::sync::{Mutex, lock},
};

/// Clock that continues from the database's last known time. Changes of the machine's clock have no effect on it.
pub(super) struct DatabaseClock(Mutex<(SystemTime, Instant)>);

impl DatabaseClock {
    pub(super) fn new(now: SystemTime) -> Self {
        Self(Mutex::new((now, Instant::now())))
    }

    /// Sets the time that the database has returned to a query that began then.
    pub(super) fn set(&self, now: SystemTime, began: Instant) {
        *lock(&self.0) = (now, began + began.elapsed() / 2);
    }
}

impl Clock for DatabaseClock {
    fn now(&self) -> SystemTime {
        let (now, at) = *lock(&self.0);
        now + at.elapsed()
    }
}
