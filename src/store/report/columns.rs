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

/// Returns the assignments of an `ON CONFLICT` clause that add figures to those of a row of the table `t`.
pub(crate) fn add_figures() -> String {
    let sums = FIGURES.map(|column| match column {
        // Without a value until a response reports one.
        "cached_tokens" | "reasoning_tokens" => format!(
            "{column} = coalesce(t.{column} + excluded.{column}, t.{column}, excluded.{column})"
        ),
        _ => format!("{column} = t.{column} + excluded.{column}"),
    });
    sums.join(", ")
}
