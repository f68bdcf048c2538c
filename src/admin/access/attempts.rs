//! Limits attempts without a valid token, by source.

use std::{
    net::{IpAddr, Ipv4Addr},
    sync::{Mutex, PoisonError},
    time::{Duration, SystemTime},
};

use crate::limit::Slots;

/// Maximum number of attempts of a source within a [`WINDOW`].
const MAX_ATTEMPTS: usize = 10;
/// Length of the sliding window in which attempts are counted.
const WINDOW: Duration = Duration::from_secs(60);
/// Number of slots, whatever the number of sources.
const SLOTS: usize = 4096;

/// A sliding window for each source, which is exact at any time. [`Gcra`](crate::limit::Gcra) would
/// admit two bursts within one window.
pub(crate) struct Attempts(Slots<Mutex<LastAttempts>>);

/// Times of the last attempts in Unix milliseconds, oldest first.
type LastAttempts = [u64; MAX_ATTEMPTS];

/// What attempts are counted by: an IPv4 address, an IPv6 /64 (the least that RFC 6177 assigns to a
/// site), or all clients without a known address together.
#[derive(Hash)]
enum Source {
    Unknown,
    V4(Ipv4Addr),
    V6([u16; 4]),
}

impl Attempts {
    pub(crate) fn new() -> Self {
        Self(Slots::new(SLOTS))
    }

    /// Counts an attempt.
    ///
    /// # Errors
    ///
    /// The time to wait when the source has made too many. That attempt is not counted.
    pub(crate) fn count(&self, ip: Option<IpAddr>, now: SystemTime) -> Result<(), Duration> {
        let now = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let now = u64::try_from(now.as_millis()).unwrap_or(u64::MAX);
        let last = self.0.of(&Source::of(ip));
        let mut last = last.lock().unwrap_or_else(PoisonError::into_inner);
        // A clock that was set back must not reject a source for longer than the window.
        let age = Duration::from_millis(now.abs_diff(last[0]));
        if age < WINDOW {
            return Err(WINDOW - age);
        }
        last.rotate_left(1);
        last[MAX_ATTEMPTS - 1] = now;
        Ok(())
    }
}

impl Source {
    fn of(ip: Option<IpAddr>) -> Self {
        match ip.map(|ip| ip.to_canonical()) {
            None => Self::Unknown,
            Some(IpAddr::V4(ip)) => Self::V4(ip),
            Some(IpAddr::V6(ip)) => {
                let [a, b, c, d, ..] = ip.segments();
                Self::V6([a, b, c, d])
            }
        }
    }
}
