//! Counts attempts without a right token, by source.

use std::{
    hash::{BuildHasher, RandomState},
    net::{IpAddr, Ipv4Addr},
    sync::{Mutex, PoisonError},
    time::{Duration, SystemTime},
};

/// How many attempts of a source are answered as such within a [`WINDOW`].
const MOST: usize = 10;
const WINDOW: Duration = Duration::from_secs(60);
/// However many sources there are: those that share a bucket share its attempts.
const BUCKETS: usize = 4096;

/// A table of fixed size, whose seed nobody can aim at another source's bucket without.
pub(super) struct Attempts {
    seed: RandomState,
    buckets: Mutex<Box<[Bucket]>>,
}

/// When the last attempts were made, in Unix milliseconds, the oldest first.
type Bucket = [u64; MOST];

/// Who shares a count: one IPv4 address, one IPv6 /64 (RFC 6177 gives each site so much at least),
/// or all clients of no known address.
#[derive(Hash)]
enum Source {
    Unknown,
    V4(Ipv4Addr),
    V6([u16; 4]),
}

impl Attempts {
    pub(super) fn new() -> Self {
        let buckets = vec![[0; MOST]; BUCKETS].into_boxed_slice();
        Self { seed: RandomState::new(), buckets: Mutex::new(buckets) }
    }

    /// Counts an attempt.
    ///
    /// # Errors
    ///
    /// After how long to come again when the source has made too many; that one is not counted.
    pub(super) fn count(&self, ip: Option<IpAddr>, now: SystemTime) -> Result<(), Duration> {
        let now = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let at = u64::try_from(now.as_millis()).unwrap_or(u64::MAX);
        let number = self.seed.hash_one(Source::of(ip)) as usize % BUCKETS;
        let mut buckets = self.buckets.lock().unwrap_or_else(PoisonError::into_inner);
        let bucket = &mut buckets[number];
        // A clock that was set back must not lock a source out for longer than the window.
        let age = Duration::from_millis(at.abs_diff(bucket[0]));
        if age < WINDOW {
            return Err(WINDOW - age);
        }
        bucket.rotate_left(1);
        bucket[MOST - 1] = at;
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
