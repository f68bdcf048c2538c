//! Tables in Markdown, ready for `docs/performance.md`.

use crate::{
    bootstrap::Estimate,
    compare::{Comparison, Requests, Row},
    responses::Kind,
};

/// Prints one table of what was compared with the variant `base`, and whether the measurement is valid.
pub(crate) fn print(requests: Requests, base: &str, rows: &[Row]) {
    let Requests { kind, connections, keys, .. } = requests;
    let title = match kind {
        Kind::Json => "JSON responses",
        Kind::Stream => "Streams of 20 events without delay",
        Kind::Paced => "Streams of an event every 2 ms",
        Kind::Slow => "Latency beyond the upstream's 20 ms",
        Kind::Prompt => "Prompts of 100 KB",
        Kind::Large => "JSON responses of 16 KB",
        Kind::Burst => "Bursts of 200 events",
        Kind::First => "First requests of keys",
        Kind::Idle => "Idle streams",
    };
    println!("\n### {title}, connections: {connections}, keys: {keys}\n");
    println!(
        "| variant | CPU µs | × {base} [95 %] | req/s | kept | p50 µs | added | p99 µs | added |"
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
    // The control is in the second row.
    let control = rows.get(1).and_then(|row| row.against.as_ref());
    if control.is_none_or(|control| !is_valid(kind, control)) {
        println!("\n**Invalid**: {base} and its control differ. Measure again.");
    }
}

/// Returns whether the base and its control are equal: their CPU within 2 % and with a narrow
/// interval, their latency within a quarter of the 100 µs that must be detected.
fn is_valid(kind: Kind, control: &Comparison) -> bool {
    let Estimate { median, low, high } = control.cpu;
    match kind {
        Kind::Slow => control.latency.p50.abs() <= 25.0,
        _ => (median - 1.0).abs() <= 0.02 && high - low <= 0.10,
    }
}
