//! The pictures of docs/performance.md, drawn from its tables.

use super::{
    chart::{Bars, Chart},
    table::{self, number},
};

/// Draws all pictures. Returns their names, and `None` if there is no such table.
pub(crate) fn draw(document: &str) -> [(&'static str, Option<String>); 3] {
    [
        ("cost-by-layer", layers(document)),
        ("cost-over-keys", keys(document)),
        ("latency-over-load", latency(document)),
    ]
}

/// Draws the instructions of a JSON request.
fn layers(document: &str) -> Option<String> {
    let rows = table::rows(document, "| variant | JSON | over raw |")?;
    let bars = rows[1..].iter().map(|row| Some((row[0].replace('`', ""), number(row[1])?)));
    let bars = bars.collect::<Option<Vec<_>>>()?;
    Some(Bars { title: "Instructions of a JSON request", bars }.svg())
}

fn keys(document: &str) -> Option<String> {
    let rows = table::rows(document, "| keys | CPU ")?;
    let panels = table::panels(&rows, |panel| format!("{panel}, µs"))?;
    let title = "CPU of a JSON request over keys";
    Some(Chart { title, x_label: "keys, evenly used", panels }.svg())
}

fn latency(document: &str) -> Option<String> {
    let rows = table::rows(document, "| req/s | p50 ")?;
    let panels = table::panels(&rows, |panel| format!("{panel}, ms"))?;
    Some(Chart { title: "Latency over load", x_label: "JSON requests per second", panels }.svg())
}
