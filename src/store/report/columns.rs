//! Columns of the tables of sums.

/// Columns of [`UsageFigures`](super::UsageFigures), which are read and written in this order.
pub(crate) const FIGURES: [&str; 11] = [
    "requests",
    "succeeded",
    "failed",
    "refunded",
    "rejected",
    "tokens_unknown",
    "prompt_tokens",
    "completion_tokens",
    "total_tokens",
    "cached_tokens",
    "reasoning_tokens",
];
