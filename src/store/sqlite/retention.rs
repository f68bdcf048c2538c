//! Retention single requests, some at a time.

use std::time::{Duration, Instant, SystemTime};

use rusqlite::Connection;

use super::requests;

/// So many are looked at in one transaction.
const AT_ONCE: usize = 1000;
/// One transaction follows the other for so long, while nobody else wants the file,
pub(super) const MAX_BUSY_TIME: Duration = Duration::from_millis(50);
/// and after this time they go on.
const PAUSE: Duration = Duration::from_millis(100);
/// When none is left that is due.
const REST: Duration = Duration::from_secs(60);

/// How far old requests are forgotten, and when it goes on.
#[derive(Default)]
pub(super) struct Retention {
    /// The row behind which it goes on.
    after: i64,
    next: Option<Instant>,
}

impl Retention {
    pub(super) fn is_due(&self) -> bool {
        self.next.is_none_or(|next| next <= Instant::now())
    }

    /// Forgets some of the requests of before this time. Returns behind which row to go on, if
    /// there may be more.
    pub(super) fn forget(
        &self,
        connection: &Connection,
        before: SystemTime,
        now: SystemTime,
    ) -> rusqlite::Result<Option<i64>> {
        requests::delete_expired(connection, self.after, before, now, AT_ONCE)
    }

    /// Goes on soon behind this row; without one, from the first row after a while.
    pub(super) fn go_on(&mut self, after: Option<i64>) {
        let pause = if after.is_some() { PAUSE } else { REST };
        (self.after, self.next) = (after.unwrap_or_default(), Some(Instant::now() + pause));
    }
}
