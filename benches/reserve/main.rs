//! The quota engine alone: reserving a unit and waiting until it is durable, without any HTTP.
//! `cargo bench --bench reserve -- --help` lists the options.

#[path = "../common/callgrind.rs"]
mod callgrind;
#[path = "../common/cpu.rs"]
mod cpu;
mod instructions;
#[path = "../common/stats.rs"]
mod stats;
mod stores;
mod throughput;

use clap::{Parser, Subcommand, ValueEnum};
use tokio::runtime::Builder;
use tower::BoxError;

use crate::{instructions::Work, stores::Kind};

/// The quota engine alone: units per second, CPU time and latency.
#[derive(Parser)]
#[command(bin_name = "cargo bench --bench reserve --")]
struct Options {
    #[command(subcommand)]
    task: Option<Task>,
    /// Stores; all if none is given.
    #[arg(long, value_delimiter = ',')]
    stores: Vec<Kind>,
    /// Numbers of tasks that wait for a unit at the same time.
    #[arg(long, value_delimiter = ',', default_values_t = [1, 8, 64, 512])]
    waiting: Vec<usize>,
    /// Numbers of keys whose units are reserved.
    #[arg(long, value_delimiter = ',', default_values_t = [1, 10_000])]
    keys: Vec<usize>,
    /// Number of windows of 300 ms each.
    #[arg(long, default_value_t = 9)]
    rounds: usize,
    /// Passed by cargo.
    #[arg(long, global = true, hide = true)]
    bench: bool,
}

#[derive(Subcommand)]
enum Task {
    /// Instructions per unit (callgrind).
    Instructions,
    #[command(hide = true)]
    Repeat { work: Work, times: u64 },
}

fn main() -> Result<(), BoxError> {
    let options = Options::parse();
    match options.task {
        // `cargo test --all-targets` runs benches without `--bench`.
        None if !options.bench => {
            println!("nothing is measured without --bench");
            Ok(())
        }
        None => Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()?
            .block_on(measure(&options)),
        Some(Task::Instructions) => instructions::count(),
        Some(Task::Repeat { work, times }) => {
            let runtime = Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(instructions::repeat(work, times))
        }
    }
}

async fn measure(options: &Options) -> Result<(), BoxError> {
    println!("| store | keys | waiting | units/s | CPU µs | p50 µs | p99 µs |");
    println!("|---|--:|--:|--:|--:|--:|--:|");
    let stores = if options.stores.is_empty() { Kind::value_variants() } else { &options.stores };
    for &store in stores {
        for &keys in &options.keys {
            throughput::measure(store, keys, &options.waiting, options.rounds).await?;
        }
    }
    Ok(())
}
