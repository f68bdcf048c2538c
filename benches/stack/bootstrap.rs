//! Medians with confidence intervals.

use crate::stats::median;

/// A median and its 95 % confidence interval.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Estimate {
    pub(crate) median: f64,
    pub(crate) low: f64,
    pub(crate) high: f64,
}

const RESAMPLES: usize = 2_000;

/// Returns the median of all values with its percentile bootstrap interval. Resamples rounds, and values
/// within them. The same values give the same interval.
pub(crate) fn estimate(rounds: &[Vec<f64>]) -> Estimate {
    let mut random = SplitMix(0x9e37_79b9_7f4a_7c15);
    let mut resample = Vec::new();
    let mut medians: Vec<f64> = (0..RESAMPLES)
        .map(|_| {
            resample.clear();
            for _ in rounds {
                let values = &rounds[random.below(rounds.len())];
                resample.extend(values.iter().map(|_| values[random.below(values.len())]));
            }
            median(&mut resample)
        })
        .collect();
    medians.sort_by(f64::total_cmp);
    Estimate {
        median: median(&mut rounds.concat()),
        low: medians[RESAMPLES / 40],
        high: medians[RESAMPLES - 1 - RESAMPLES / 40],
    }
}

/// A small random number generator, good enough to choose indices.
pub(crate) struct SplitMix(pub(crate) u64);

impl SplitMix {
    pub(crate) fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((mixed ^ (mixed >> 31)) % bound as u64) as usize
    }
}
