//! Nodes that share the units of a key through PostgreSQL: trips to the database for each key and day, recalls, and the
//! time that a request waits for them. `cargo bench --bench leases -- --help` lists the options.
//!
//! The nodes are stores of one process, each with a journal of its own. Their callers do what a gateway does for a request
//! whose response takes a while.

mod callers;
#[path = "../common/chart.rs"]
#[expect(dead_code, reason = "other benches use the rest")]
mod chart;
mod database;
mod picture;
#[path = "../../tests/common/postgres.rs"]
#[expect(dead_code, reason = "the tests use the rest")]
mod postgres;
#[path = "../../tests/common/seed.rs"]
#[expect(dead_code, reason = "the tests use the rest")]
mod seed;
#[path = "../../tests/common/spread.rs"]
mod spread;
#[path = "../common/stats.rs"]
mod stats;
#[path = "../common/table.rs"]
mod table;

use std::{
    fs,
    time::{Duration, Instant},
};

use clap::{Parser, Subcommand, ValueEnum};
use tempfile::TempDir;
use tokio::runtime::Builder;
use tower::BoxError;
use tower_quota::{
    key::KeyId,
    store::postgres::{PostgresOptions, PostgresStore},
};

use crate::{
    callers::{Callers, Reserved},
    database::{Database, Trips},
    postgres::Postgres,
    seed::Random,
    spread::Spread,
    stats::{median, percentile},
};

/// Trips to the database for each key and day, over several nodes that share one.
#[derive(Parser)]
#[command(bin_name = "cargo bench --bench leases --")]
struct Options {
    #[command(subcommand)]
    task: Option<Task>,
    #[arg(long, default_value_t = 8)]
    nodes: usize,
    /// Daily limits.
    #[arg(long, value_delimiter = ',', default_values_t = [1, 50, 200, 1_000, 10_000])]
    limits: Vec<u64>,
    /// How callers are spread over the nodes; every way if none is given.
    #[arg(long, value_delimiter = ',')]
    spreads: Vec<Spread>,
    /// Numbers of callers, each with one request at a time.
    #[arg(long, value_delimiter = ',', default_values_t = [16, 256])]
    callers: Vec<usize>,
    /// Number of keys that are used up, one after the other, of each limit, spread and number of callers.
    #[arg(long, default_value_t = 9)]
    keys: usize,
    /// Time that a response takes, in milliseconds.
    #[arg(long, default_value_t = 2)]
    response: u64,
    /// Passed by cargo.
    #[arg(long, global = true, hide = true)]
    bench: bool,
}

#[derive(Subcommand)]
enum Task {
    /// Draws docs/pictures/leases.svg from the table of the simulated sweep in docs/scaling.md.
    Picture,
}

/// What is the same for several keys.
#[derive(Clone, Copy)]
struct Case {
    limit: u64,
    spread: Spread,
    callers: usize,
    response: Duration,
}

/// What several keys of one case have cost.
#[derive(Default)]
struct Measured {
    trips: Vec<f64>,
    returns: Vec<f64>,
    recalls: Vec<f64>,
    /// Times in microseconds for which requests have waited for a recall, and for a trip without one.
    waits: Vec<u64>,
    plain_waits: Vec<u64>,
    short_rejections: u64,
    failures: u64,
}

/// Several stores on one database.
struct Nodes {
    database: Database,
    stores: Vec<PostgresStore>,
    // Before the server, which ends with the process.
    _directories: Vec<TempDir>,
    _server: Postgres,
}

fn main() -> Result<(), BoxError> {
    let options = Options::parse();
    match options.task {
        Some(Task::Picture) => draw(),
        None if options.bench => {
            Builder::new_multi_thread().enable_all().build()?.block_on(measure(&options))
        }
        // `cargo test --all-targets` runs benches without `--bench`.
        None => {
            println!("nothing is measured without --bench");
            Ok(())
        }
    }
}

fn draw() -> Result<(), BoxError> {
    const DOCUMENTS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/docs");
    let document = fs::read_to_string(format!("{DOCUMENTS}/scaling.md"))?;
    let picture = picture::draw(&document).ok_or("docs/scaling.md has no table of nodes")?;
    Ok(fs::write(format!("{DOCUMENTS}/pictures/leases.svg"), picture)?)
}

async fn measure(options: &Options) -> Result<(), BoxError> {
    let mut random = Random::seeded("leases");
    let nodes = Nodes::start(options.nodes).await?;
    let all = Spread::value_variants();
    let spreads = if options.spreads.is_empty() { all } else { &options.spreads };
    println!(
        "{} nodes, {} keys a line, {} ms a response\n\n\
         | limit | callers | spread | trips, median | most | returns, median | recalls, most | \
         wait for a trip, p50 / p99 ms | in a recall | short 429 | failed |\n\
         |--:|--:|---|--:|--:|--:|--:|--:|--:|--:|--:|",
        options.nodes, options.keys, options.response,
    );
    let start = Instant::now();
    for &limit in &options.limits {
        for &callers in &options.callers {
            for &spread in spreads {
                let response = Duration::from_millis(options.response);
                let case = Case { limit, spread, callers, response };
                let mut measured = Measured::default();
                for _ in 0..options.keys {
                    nodes.use_up(case, &mut random, &mut measured).await?;
                }
                measured.print(case);
            }
        }
    }
    let checkpoints = nodes.close().await? as f64;
    let (seconds, nodes) = (start.elapsed().as_secs_f64(), options.nodes);
    println!(
        "\n{:.2} checkpoints a second and node reported leases, for all keys at once.",
        checkpoints / seconds / nodes as f64
    );
    Ok(())
}

impl Nodes {
    async fn start(count: usize) -> Result<Self, BoxError> {
        let server = Postgres::start(&["max_connections=1000", "track_functions=pl"]);
        let url = server.create_database();
        let mut directories = Vec::new();
        // In the target directory, as temporary files may be in memory.
        for _ in 0..count {
            directories.push(tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR"))?);
        }
        let open = async |directory: &TempDir| {
            let options = PostgresOptions::new(&url, directory.path().join("quota"))?;
            Ok::<_, BoxError>(PostgresStore::open(options).await?)
        };
        // The functions must be there before they are watched.
        open(&directories[0]).await?.close().await?;
        let database = Database::watch(url.clone());
        let mut stores = Vec::new();
        for directory in &directories {
            stores.push(open(directory).await?);
        }
        Ok(Self { database, stores, _directories: directories, _server: server })
    }

    /// Uses up all units of a new key.
    async fn use_up(
        &self,
        case: Case,
        random: &mut Random,
        measured: &mut Measured,
    ) -> Result<(), BoxError> {
        let Case { limit, spread, callers, response } = case;
        let spread = spread.nodes(callers, self.stores.len(), random);
        let callers = Callers { key: KeyId::generate(), limit, response };
        let reserved = callers.run(spread.iter().map(|&node| self.stores[node].clone())).await?;
        let admitted: u64 = reserved.iter().map(|of_caller| of_caller.admitted).sum();
        if admitted != limit {
            return Err(format!("{admitted} of {limit} were admitted").into());
        }
        measured.add(&self.database.trips(&callers.key), &reserved, &spread);
        Ok(())
    }

    /// Closes all stores. Returns the number of checkpoints that reported leases.
    async fn close(self) -> Result<u64, BoxError> {
        for store in &self.stores {
            store.close().await?;
        }
        Ok(self.database.checkpoints())
    }
}

impl Measured {
    /// Adds what a key has cost: its trips, and what became of the reservations of each caller, at these nodes.
    fn add(&mut self, trips: &Trips, reserved: &[Reserved], nodes: &[usize]) {
        self.trips.push((trips.extensions + trips.returns) as f64);
        self.returns.push(trips.returns as f64);
        self.recalls.push(trips.recalls as f64);
        for (of_caller, &node) in reserved.iter().zip(nodes) {
            self.short_rejections += of_caller.short_rejections;
            self.failures += of_caller.failures;
            let recalls: Vec<u64> = of_node(trips, node).collect();
            for &[begun, ended] in &of_caller.slow {
                match recalls.iter().find(|at| (begun..ended).contains(at)) {
                    Some(at) => self.waits.push(ended - at),
                    None => self.plain_waits.push(ended - begun),
                }
            }
        }
    }

    fn print(mut self, case: Case) {
        let Case { limit, spread, callers, .. } = case;
        let spread = spread.to_possible_value();
        let spread = spread.as_ref().map_or("", |spread| spread.get_name());
        let most = |values: &[f64]| values.iter().copied().fold(0.0, f64::max);
        let (most_trips, most_recalls) = (most(&self.trips), most(&self.recalls));
        let (trips, returns) = (median(&mut self.trips), median(&mut self.returns));
        println!(
            "| {limit} | {callers} | {spread} | {trips:.0} | {most_trips} | {returns:.0} | \
             {most_recalls} | {} | {} | {} | {} |",
            millis(&mut self.plain_waits),
            millis(&mut self.waits),
            self.short_rejections,
            self.failures,
        );
    }
}

/// Returns when the trips of a node have found that other nodes have what is left.
fn of_node(trips: &Trips, node: usize) -> impl Iterator<Item = u64> {
    trips.elsewhere.iter().filter(move |trip| trip.node == node).map(|trip| trip.at)
}

/// Returns the median and the 99th percentile of these times, if there are any.
fn millis(micros: &mut [u64]) -> String {
    if micros.is_empty() {
        return String::new();
    }
    micros.sort_unstable();
    let [p50, p99] = [0.5, 0.99].map(|share| percentile(micros, share) as f64 / 1e3);
    format!("{p50:.1} / {p99:.1}")
}
