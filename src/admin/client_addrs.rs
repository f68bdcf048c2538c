//! Estimated number of client addresses per key.

use std::{
    collections::hash_map::RandomState,
    fmt,
    hash::BuildHasher,
    net::{IpAddr, Ipv6Addr},
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};

use dashmap::DashMap;

use crate::key::KeyId;

/// Time for which an address counts after its last request.
const ADDR_LIFETIME: Duration = Duration::from_secs(24 * 60 * 60);
/// Maximum number of addresses that are remembered per key.
const MAX_ADDRS: usize = 64;
/// Number of remembered addresses below which the sample is widened.
const MIN_ADDRS: usize = 16;
/// Number of records between removals of keys without live addresses.
const SWEEP_INTERVAL: u32 = 1 << 16;

/// Estimates the number of addresses from which each key was used in the last 24 hours. Clones share
/// the estimates.
///
/// Only hashes are kept, in memory and salted per process, at most 64 per key: up to 64 addresses are
/// counted exactly, more with an error of about 13 %. IPv6 addresses of one /64 count as one.
#[derive(Clone, Default)]
pub struct ClientAddrs(Arc<Shared>);

struct Shared {
    salt: RandomState,
    start: Instant,
    keys: DashMap<KeyId, Sample>,
    records: AtomicU32,
}

/// The addresses of one key whose hashes are below a bound. The bound falls when there are too many.
struct Sample {
    addrs: Vec<Addr>,
    bound: u64,
}

struct Addr {
    hash: u64,
    /// Seconds since the start.
    last_seen: u32,
}

impl Default for Shared {
    fn default() -> Self {
        Self {
            salt: RandomState::new(),
            start: Instant::now(),
            keys: DashMap::new(),
            records: AtomicU32::new(0),
        }
    }
}

impl ClientAddrs {
    /// Creates an estimator without any address.
    pub fn new() -> Self {
        Self::default()
    }

    /// Records a use of the key from this address.
    pub fn record(&self, id: &KeyId, addr: IpAddr) {
        self.record_at(id, addr, self.now());
    }

    fn record_at(&self, id: &KeyId, addr: IpAddr, now: u32) {
        let shared = &*self.0;
        let hash = shared.salt.hash_one(network(addr));
        match shared.keys.get_mut(id) {
            Some(mut sample) => sample.record(hash, now),
            None => shared.keys.entry(id.clone()).or_default().record(hash, now),
        }
        if shared.records.fetch_add(1, Ordering::Relaxed) % SWEEP_INTERVAL == SWEEP_INTERVAL - 1 {
            shared.keys.retain(|_, sample| sample.addrs.iter().any(|addr| addr.is_live(now)));
        }
    }

    /// Returns the estimated number of addresses from which the key was used in the last 24 hours, or
    /// since the start of the process.
    pub fn estimate(&self, id: &KeyId) -> u64 {
        self.estimate_at(id, self.now())
    }

    fn estimate_at(&self, id: &KeyId, now: u32) -> u64 {
        self.0.keys.get(id).map_or(0, |sample| sample.estimate(now))
    }

    fn now(&self) -> u32 {
        u32::try_from(self.0.start.elapsed().as_secs()).unwrap_or(u32::MAX)
    }
}

impl Default for Sample {
    fn default() -> Self {
        Self { addrs: Vec::new(), bound: u64::MAX }
    }
}

impl Sample {
    fn record(&mut self, hash: u64, now: u32) {
        let known = self.addrs.iter_mut().find(|addr| addr.hash == hash);
        let is_known = known.map(|addr| addr.last_seen = now).is_some();
        self.addrs.retain(|addr| addr.is_live(now));
        // Also for a known address: otherwise a few known ones keep a low bound, and are overestimated.
        if self.addrs.len() < MIN_ADDRS {
            self.bound = self.bound.saturating_mul(2);
        }
        if is_known || hash > self.bound {
            return;
        }
        self.addrs.push(Addr { hash, last_seen: now });
        if self.addrs.len() > MAX_ADDRS {
            self.bound = self.addrs.iter().map(|addr| addr.hash).max().unwrap_or(u64::MAX);
            self.addrs.retain(|addr| addr.hash < self.bound);
        }
    }

    fn estimate(&self, now: u32) -> u64 {
        let live = self.addrs.iter().filter(|addr| addr.is_live(now)).count();
        let share = self.bound as f64 / u64::MAX as f64;
        (live as f64 / share).round() as u64
    }
}

impl Addr {
    fn is_live(&self, now: u32) -> bool {
        u64::from(now.saturating_sub(self.last_seen)) < ADDR_LIFETIME.as_secs()
    }
}

fn network(addr: IpAddr) -> IpAddr {
    match addr.to_canonical() {
        IpAddr::V4(addr) => IpAddr::V4(addr),
        IpAddr::V6(addr) => IpAddr::V6(Ipv6Addr::from_bits(addr.to_bits() >> 64 << 64)),
    }
}

impl fmt::Debug for ClientAddrs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientAddrs").field("keys", &self.0.keys.len()).finish()
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    const DAY: u32 = 24 * 60 * 60;

    fn record(addrs: &ClientAddrs, count: u32, now: u32) {
        let ips = (0..count).map(|number| IpAddr::V4(Ipv4Addr::from_bits(number)));
        ips.for_each(|ip| addrs.record_at(&"alice".into(), ip, now));
    }

    #[test]
    fn few_addresses_are_counted_and_many_estimated() {
        for count in [0, 1, 3, 64, 65, 200, 10_000] {
            let addrs = ClientAddrs::new();
            (0..3).for_each(|now| record(&addrs, count, now));
            let estimate = addrs.estimate_at(&"alice".into(), 3);
            // More than six standard errors of 13 % each.
            let margin = if count <= 64 { 0 } else { u64::from(count) * 8 / 10 };
            assert!(estimate.abs_diff(count.into()) <= margin, "{estimate} of {count}");
            assert_eq!(addrs.estimate_at(&"bob".into(), 3), 0);
            let kept =
                addrs.0.keys.get(&KeyId::from("alice")).map_or(0, |sample| sample.addrs.len());
            assert!(kept <= MAX_ADDRS, "{kept} of {count}");
        }
    }

    #[test]
    fn an_address_counts_for_a_day_after_its_last_request() {
        let (addrs, alice) = (ClientAddrs::new(), KeyId::from("alice"));
        record(&addrs, 3, 0);
        record(&addrs, 2, 10);
        assert_eq!(addrs.estimate_at(&alice, DAY - 1), 3);
        assert_eq!(addrs.estimate_at(&alice, DAY), 2);
        assert_eq!(addrs.estimate_at(&alice, DAY + 10), 0);
        record(&addrs, 5000, 20);
        // The sample widens again, so that a few addresses after many are soon counted exactly.
        (0..100).for_each(|second| record(&addrs, 3, 2 * DAY + second));
        assert_eq!(addrs.estimate_at(&alice, 2 * DAY + 100), 3);
    }

    #[test]
    fn an_ipv6_network_is_one_address() {
        let (addrs, alice) = (ClientAddrs::new(), KeyId::from("alice"));
        for ip in ["2001:db8::1", "2001:db8::ffff:2", "2001:db8:0:1::1", "::ffff:192.0.2.1"] {
            addrs.record(&alice, ip.parse().unwrap());
        }
        addrs.record(&alice, "192.0.2.1".parse().unwrap());
        assert_eq!(addrs.estimate(&alice), 3);
    }

    #[test]
    fn keys_without_live_addresses_are_removed() {
        let addrs = ClientAddrs::new();
        record(&addrs, 1, 0);
        let ip = IpAddr::V4(Ipv4Addr::LOCALHOST);
        (0..SWEEP_INTERVAL).for_each(|_| addrs.record_at(&"bob".into(), ip, DAY));
        assert_eq!(addrs.0.keys.len(), 1);
    }
}
