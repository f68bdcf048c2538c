//! How callers are spread over several nodes.

use clap::ValueEnum;

use super::seed::Random;

/// How callers are spread over nodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Spread {
    /// The same number is at each node.
    Even,
    /// The n-th node has `n^-1.5` times the callers of the first one.
    Zipf,
    /// 95 % are at one node.
    OneNode,
    /// All are at one node, as behind a balancer that hashes on the key.
    Hashed,
}

impl Spread {
    /// Returns the node of each caller. Which node has the most of them is random.
    pub(crate) fn nodes(self, callers: usize, nodes: usize, random: &mut Random) -> Vec<usize> {
        let weights: Vec<u64> = (0..nodes).map(|rank| self.weight(rank, nodes)).collect();
        let first = random.below(nodes as u64) as usize;
        let choose = |caller: usize| {
            if self == Self::Even {
                return caller % nodes;
            }
            let mut left = random.below(weights.iter().sum());
            let rank = weights.iter().position(|&weight| {
                let is_chosen = left < weight;
                left = left.saturating_sub(weight);
                is_chosen
            });
            (first + rank.unwrap()) % nodes
        };
        (0..callers).map(choose).collect()
    }

    /// Returns the weight of a node, of which the heaviest has the rank 0.
    fn weight(self, rank: usize, nodes: usize) -> u64 {
        const PRECISION: f64 = 1e6;
        match self {
            Self::Even => 1,
            Self::Zipf => (PRECISION * ((rank + 1) as f64).powf(-1.5)) as u64,
            Self::OneNode if rank == 0 => 95 * (nodes as u64 - 1),
            Self::OneNode => 5,
            Self::Hashed => u64::from(rank == 0),
        }
    }
}
