//! The picture of the sweep, drawn from its table in docs/scaling.md.

use super::{chart::Chart, table};

/// Draws the table whose rows are numbers of nodes. Its columns are `<limit> <spread>`.
pub(crate) fn draw(document: &str) -> Option<String> {
    let rows = table::rows(document, "| nodes |")?;
    let panels = table::panels(&rows, |limit| format!("limit {limit}"))?;
    let title = "Trips to the database for each key and day, simulated";
    Some(Chart { title, x_label: "nodes", panels }.svg())
}
