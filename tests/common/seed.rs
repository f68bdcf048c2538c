use std::{
    env,
    time::{SystemTime, UNIX_EPOCH},
};

/// Random numbers (SplitMix64). `TOWER_QUOTA_SEED` repeats those of a run; every test prints its seed.
#[derive(Clone, Debug)]
pub(crate) struct Random(u64);

impl Random {
    /// A new seed, or that of the environment. Shown when the test fails.
    pub(crate) fn seeded(test: &str) -> Self {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        let seed = match env::var("TOWER_QUOTA_SEED") {
            Ok(seed) => seed.parse().expect("TOWER_QUOTA_SEED is a number"),
            Err(_) => since.as_nanos() as u64,
        };
        println!("{test}: TOWER_QUOTA_SEED={seed}");
        Self(seed)
    }

    /// The numbers of this seed.
    pub(crate) fn of(seed: u64) -> Self {
        Self(seed)
    }

    /// Another sequence that follows from this one.
    pub(crate) fn fork(&mut self) -> Self {
        Self(self.next())
    }

    /// A number below `end`.
    pub(crate) fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }

    /// This number of bytes.
    pub(crate) fn bytes(&mut self, length: usize) -> Vec<u8> {
        (0..length).map(|_| self.next().to_be_bytes()[0]).collect()
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
}
