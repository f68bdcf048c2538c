//! Tables in Markdown, ready for `docs/performance.md`.

use crate::{
    answers::Kind,
    bootstrap::Estimate,
    compare::{Against, Row},
};

/// Prints one table and whether it may be believed.
pub(crate) fn print(kind: Kind, connections: usize, rows: &[Row]) {
    let title = match kind {
        Kind::Json => format!("JSON answers, {connections} connections"),
        Kind::Stream => format!("Streams of 20 events at once, {connections} connections"),
        Kind::Paced => format!("Streams of an event every 2 ms, {connections} connections"),
        Kind::Slow => "Latency on one connection, beyond the upstream's 20 ms".to_owned(),
    };
    println!("\n### {title}\n");
    println!(
        "| variant | CPU µs | × raw [95 %] | req/s | kept | p50 µs | added | p99 µs | added |"
    );
    println!("|---|--:|--:|--:|--:|--:|--:|--:|--:|");
    for Row { name, cpu, rate, latency, against } in rows {
        let (p50, p99) = (latency.p50, latency.p99);
        match against {
            None => println!("| {name} | {cpu:.1} | | {rate:.0} | | {p50:.0} | | {p99:.0} | |"),
            Some(against) => {
                let ratio = against.cpu;
                println!(
                    "| {name} | {cpu:.1} | {:.3} [{:.3}, {:.3}] | {rate:.0} | {:.1} % | {p50:.0} | {:+.0} | {p99:.0} | {:+.0} |",
                    ratio.median,
                    ratio.low,
                    ratio.high,
                    against.rate * 100.0,
                    against.latency.p50,
                    against.latency.p99,
                );
            }
        }
    }
    // The control comes right behind the raw pass-through.
    let control = rows.get(1).and_then(|row| row.against.as_ref());
    if control.is_none_or(|control| !holds(kind, control)) {
        println!("\n**Void**: raw against raw did not come out equal. Measure again.");
    }
}

/// Raw against raw must come out equal: its CPU by 2 % and by an interval that would not contain
/// anything, its latency by a quarter of the 100 µs that are to be told.
fn holds(kind: Kind, control: &Against) -> bool {
    let Estimate { median, low, high } = control.cpu;
    match kind {
        Kind::Slow => control.latency.p50.abs() <= 25.0,
        _ => (median - 1.0).abs() <= 0.02 && high - low <= 0.10,
    }
}
