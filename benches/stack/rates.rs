//! Latency at fixed rates of requests.

use std::time::Duration;

use tower::BoxError;

use crate::{
    compare::{Requests, RunningSubject},
    load::{Job, Keys, Load, Until},
    options::Setup,
    responses::Kind,
    start_upstream,
    stats::{median, percentile},
    subject::{Conditions, Subject},
};

const CONNECTIONS: usize = 64;
/// Number of windows of each variant at each rate. The variants take turns.
const WINDOWS: usize = 3;
/// Share of a rate that a variant must reach.
const REACHED: f64 = 0.98;

/// Prints a line for each rate, with a column for each percentile and variant; it is empty at rates that the
/// variant does not reach.
pub(crate) fn measure(setup: &Setup, rates: &[u64], window: Duration) -> Result<(), BoxError> {
    let upstream = start_upstream()?;
    let conditions = Conditions::new(setup, 0, upstream.address);
    let mut subjects = Subject::all(setup, conditions)?;
    // The control.
    subjects.remove(1);
    let mut running =
        subjects.into_iter().map(RunningSubject::start).collect::<Result<Vec<_>, _>>()?;
    let mut load = Load::start()?;
    let (kind, keys) = (Kind::Json, conditions.warm_keys);
    for subject in &mut running {
        let until = Until::Elapsed(window);
        subject.window(&mut load, Requests { kind, connections: CONNECTIONS, keys, until })?;
    }
    println!("\n### Latency at a rate, ms, {CONNECTIONS} connections\n");
    let columns = ["p50", "p99"].into_iter().flat_map(|percentile| {
        running.iter().map(move |running| format!(" {percentile} {} |", running.subject.name))
    });
    println!("| req/s |{}", columns.collect::<String>());
    println!("|--:|{}", "--:|".repeat(2 * running.len()));
    for &rate in rates {
        let mut measured = vec![[Vec::new(), Vec::new()]; running.len()];
        for _ in 0..WINDOWS {
            for (subject, [p50, p99]) in running.iter_mut().zip(&mut measured) {
                let window = subject.job(
                    &mut load,
                    Job {
                        address: subject.server.address,
                        kind,
                        connections: CONNECTIONS,
                        keys: Keys::Any(keys),
                        rate,
                        until: Until::Elapsed(window),
                    },
                )?;
                let reached = window.responses as f64 / window.elapsed.as_secs_f64() / rate as f64;
                if reached >= REACHED {
                    p50.push(percentile(&window.latencies, 0.5) as f64 / 1e6);
                    p99.push(percentile(&window.latencies, 0.99) as f64 / 1e6);
                }
            }
        }
        let cells = [0, 1].into_iter().flat_map(|index| {
            measured.iter().map(move |percentiles| match &percentiles[index] {
                reached if reached.len() == WINDOWS => {
                    format!(" {:.2} |", median(&mut reached.clone()))
                }
                _ => " |".to_owned(),
            })
        });
        println!("| {rate} |{}", cells.collect::<String>());
    }
    Ok(())
}
