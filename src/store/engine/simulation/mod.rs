//! Simulation of the whole engine, step by step in an order that a seed determines: requests, syncs,
//! checkpoints, clock steps, resets, failing disks, ends of the process and power failures, some of them
//! while the writer is about to commit. The counts are compared with what clients and operators have seen.
//!
//! It runs with any [`Ledger`]: here with one in memory, and in each back end with its own.
//!
//! `TOWER_QUOTA_SEEDS=10000 cargo test --lib simulation` runs that many seeds;
//! `TOWER_QUOTA_SEED=17` runs that one.

mod disk;
mod memory;
#[cfg(feature = "postgres")]
mod nodes;
mod oracle;
mod traffic;
mod world;

use std::{
    env,
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

pub(crate) use self::memory::MemoryLedger;
use self::world::World;
use super::Ledger;
use crate::{
    clock::{Clock, Day},
    key::KeyId,
    store::counter::{Count, CounterKey},
};

const COUNTERS: usize = 3;
const STEPS: usize = 160;
const THREADS: u64 = 2;

/// A ledger that can be simulated.
pub(crate) trait SimLedger: Ledger {
    /// Creates a ledger with these keys. `commits` is called before each commit, which fails if it returns
    /// `false`.
    fn create(keys: &[KeyId], commits: impl FnMut() -> bool + Send + 'static) -> Self;

    /// Returns the tables, for reading.
    fn tables(&self) -> &Self::Tables;

    /// Returns the count of the period that begins on `day`, or of a later one that the counter has already
    /// reached.
    fn load(tables: &Self::Tables, key: &CounterKey, day: Day) -> Count;

    /// Resets the count of the period that begins on `day`. Returns the new epoch.
    fn reset(tables: &Self::Tables, key: &CounterKey, day: Day) -> Result<u32, Self::Error>;

    /// Returns the number of requests in the sums.
    fn requests(tables: &Self::Tables) -> u64;
}

/// Returns the key of a counter: there are two subjects, one of which has two quotas.
fn key(counter: usize) -> CounterKey {
    let (quota, subject) = [("daily", "a"), ("daily", "b"), ("tokens", "a")][counter];
    CounterKey { quota: quota.parse().unwrap(), subject: KeyId::from(subject) }
}

/// Random number generator: SplitMix64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }

    fn pick(&mut self, length: usize) -> usize {
        self.below(length as u64) as usize
    }
}

#[derive(Clone)]
struct SimClock(Arc<AtomicU64>);

impl SimClock {
    /// Creates a clock that is stopped at this time, in Unix milliseconds.
    fn at(millis: u64) -> Self {
        Self(Arc::new(AtomicU64::new(millis)))
    }
}

impl Clock for SimClock {
    fn now(&self) -> SystemTime {
        UNIX_EPOCH + Duration::from_millis(self.0.load(Ordering::Relaxed))
    }
}

fn number(variable: &str) -> Option<u64> {
    env::var(variable).ok()?.parse().ok()
}

fn run<L: SimLedger>(seed: u64) {
    let simulated = catch_unwind(AssertUnwindSafe(|| {
        let mut world = World::<L>::new(seed);
        for _ in 0..STEPS {
            world.step();
        }
        world.end();
    }));
    if let Err(panic) = simulated {
        eprintln!("seed {seed} fails: run it alone with TOWER_QUOTA_SEED={seed}");
        resume_unwind(panic);
    }
}

/// Runs the seeds that the environment variables select, by default 300.
pub(crate) fn run_seeds<L: SimLedger>() {
    if let Some(seed) = number("TOWER_QUOTA_SEED") {
        return run::<L>(seed);
    }
    let seeds = number("TOWER_QUOTA_SEEDS").unwrap_or(300);
    let run_every = move |first| (first..seeds).step_by(THREADS as usize).for_each(run::<L>);
    let workers: Vec<_> =
        (0..THREADS).map(|first| thread::spawn(move || run_every(first))).collect();
    for worker in workers {
        worker.join().unwrap();
    }
}

#[test]
fn every_promise_holds_over_a_ledger_in_memory() {
    run_seeds::<MemoryLedger>();
}
