//! Units per second, CPU and latency by the number of tasks that wait for a unit at the same time.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use nix::unistd::Pid;
use tokio::task::{JoinSet, yield_now};
use tower::BoxError;
use tower_quota::store::QuotaSubject;

use crate::{
    cpu, stats,
    stores::{self, Kind, Store, WINDOW},
};

/// Number of units after which a task yields, as a task that never waits would let no other run.
const TURN: usize = 64;

/// Result of one window.
struct Window {
    units: usize,
    elapsed: Duration,
    cpu: Duration,
    latencies: Vec<u64>,
}

/// Measures a store with `keys` keys, and prints a row for each number of waiting tasks.
pub(crate) async fn measure(
    kind: Kind,
    keys: usize,
    waiting: &[usize],
    rounds: usize,
) -> Result<(), BoxError> {
    let store = Store::open(kind, keys).await?;
    let mut windows: Vec<Vec<Window>> = waiting.iter().map(|_| Vec::new()).collect();
    for _ in 0..rounds {
        for (windows, &waiting) in windows.iter_mut().zip(waiting) {
            windows.push(window(&store, waiting).await?);
        }
    }
    store.close().await?;
    for (windows, waiting) in windows.into_iter().zip(waiting) {
        let median = |value: fn(&Window) -> f64| {
            stats::median(&mut windows.iter().map(value).collect::<Vec<_>>())
        };
        let rate = median(|window| window.units as f64 / window.elapsed.as_secs_f64());
        let cost = median(|window| window.cpu.as_secs_f64() * 1e6 / window.units as f64);
        let mut latencies: Vec<u64> =
            windows.iter().flat_map(|window| &window.latencies).copied().collect();
        latencies.sort_unstable();
        let micros = |share| stats::percentile(&latencies, share) as f64 / 1e3;
        let (p50, p99) = (micros(0.5), micros(0.99));
        println!("| {kind} | {keys} | {waiting} | {rate:.0} | {cost:.2} | {p50:.1} | {p99:.1} |");
    }
    Ok(())
}

async fn window(store: &Store, waiting: usize) -> Result<Window, BoxError> {
    let cpu_before = cpu::of_process(Pid::this())?;
    let begun = Instant::now();
    let mut tasks = JoinSet::new();
    for task in 0..waiting {
        let (quota, subjects) = (store.quota.clone(), store.subjects.clone());
        tasks.spawn(async move {
            let mut latencies = Vec::new();
            for subject in subjects_from(task, waiting, &subjects) {
                let began = Instant::now();
                if began.duration_since(begun) > WINDOW {
                    break;
                }
                stores::take(&*quota, subject).await?;
                latencies.push(began.elapsed().as_nanos() as u64);
                if latencies.len() % TURN == 0 {
                    yield_now().await;
                }
            }
            Ok::<_, BoxError>(latencies)
        });
    }
    let mut latencies = Vec::new();
    while let Some(taken) = tasks.join_next().await {
        latencies.extend(taken??);
    }
    let elapsed = begun.elapsed();
    // Checkpoints belong to the cost of the units.
    store.flush().await?;
    let cpu = cpu::of_process(Pid::this())? - cpu_before;
    Ok(Window { units: latencies.len(), elapsed, cpu, latencies })
}

/// Returns all subjects, repeatedly; each task begins at a different one.
fn subjects_from(
    task: usize,
    tasks: usize,
    subjects: &Arc<[QuotaSubject]>,
) -> impl Iterator<Item = &QuotaSubject> {
    subjects.iter().cycle().skip(task * subjects.len() / tasks)
}
