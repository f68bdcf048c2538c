//! Many keys and days: how fast the admin service responds, and how reports and the deletion of single
//! requests affect the latency of other requests.
//! `cargo bench --bench scale -- --help` lists the options.
//!
//! The program starts itself again as the server, so that memory and CPU are the server's alone.

mod admin;
mod fill;
mod load;
mod serve;
#[path = "../common/stats.rs"]
#[allow(dead_code)]
mod stats;

use std::{
    io::{BufRead, BufReader},
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use clap::{Parser, Subcommand};
use tower::BoxError;

use crate::{admin::Client, load::Load};

#[derive(Parser)]
struct Options {
    #[arg(long, default_value_t = 100_000)]
    keys: usize,
    /// Days with usage, today included.
    #[arg(long, default_value_t = 90)]
    days: u32,
    /// Requests per second of the load.
    #[arg(long, default_value_t = 1000)]
    rate: u32,
    /// Single requests beyond their retention.
    #[arg(long, default_value_t = 1_000_000)]
    expired: u64,
    /// Number of times that each call is made.
    #[arg(long, default_value_t = 9)]
    times: usize,
    /// File to create, and to keep for the next run; a temporary one if not given.
    #[arg(long)]
    database: Option<PathBuf>,
    #[arg(long, hide = true)]
    bench: bool,
    #[command(subcommand)]
    role: Option<Role>,
}

#[derive(Subcommand)]
enum Role {
    /// Serves on a free port.
    #[command(hide = true)]
    Serve { database: PathBuf, retention_days: u32 },
}

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    let options = Options::parse();
    match &options.role {
        Some(Role::Serve { database, retention_days }) => {
            match serve::serve(database, *retention_days).await? {}
        }
        None if options.bench => measure(&options).await,
        // `cargo test --all-targets` runs without --bench.
        None => {
            println!("nothing is measured without --bench");
            Ok(())
        }
    }
}

async fn measure(options: &Options) -> Result<(), BoxError> {
    let temporary = tempfile::tempdir()?;
    let own = temporary.path().join("scale.db");
    let database = options.database.as_ref().unwrap_or(&own);
    if !database.exists() {
        eprintln!("filling {}", database.display());
        fill::fill(database, options.keys, options.days).await?;
    }
    reports(options, database).await?;
    retention(options, database).await
}

/// Measures each admin call, and the load beside them.
async fn reports(options: &Options, database: &Path) -> Result<(), BoxError> {
    let server = Server::start(database, 0)?;
    let client = Client::new(server.address);
    let calls = admin::calls(&client, options.days).await?;
    let alone = Load::start(server.address, options.rate).run_for(Duration::from_secs(5)).await?;
    println!("{} keys × {} days, {} requests/s\n", options.keys, options.days, options.rate);
    println!("| call | first byte, ms | total, ms | slowest, ms | bytes | resident after, MB |");
    println!("|---|--:|--:|--:|--:|--:|");
    let before = server.resident()?;
    let load = Load::start(server.address, options.rate);
    for call in &calls {
        println!("{} {} |", client.measure(call, options.times).await?, server.resident()?);
    }
    let beside = load.stop().await?;
    println!("\n| load | p50, ms | p99, ms | slowest, ms | failed |");
    println!("|---|--:|--:|--:|--:|\n| alone {alone}\n| beside the calls {beside}");
    println!(
        "\nThe server: {before} MB resident before, {} MB at most, the load's included.\n",
        server.peak()?
    );
    Ok(())
}

/// Measures the load while expired requests are deleted.
async fn retention(options: &Options, database: &Path) -> Result<(), BoxError> {
    fill::old_requests(database, options.expired)?;
    let server = Server::start(database, 7)?;
    let load = Load::start(server.address, options.rate);
    let start = std::time::Instant::now();
    while fill::has_old_requests(database)? {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let (took, beside) = (start.elapsed(), load.stop().await?);
    println!("| {} requests deleted in {:.0} s {beside}", options.expired, took.as_secs_f64());
    Ok(())
}

struct Server {
    process: Child,
    address: SocketAddr,
}

impl Server {
    fn start(database: &Path, retention_days: u32) -> Result<Self, BoxError> {
        let mut process = Command::new(std::env::current_exe()?)
            .arg("serve")
            .arg(database)
            .arg(retention_days.to_string())
            .stdout(Stdio::piped())
            .spawn()?;
        let mut line = String::new();
        BufReader::new(process.stdout.take().ok_or("no stdout")?).read_line(&mut line)?;
        Ok(Self { process, address: line.trim().parse()? })
    }

    fn resident(&self) -> Result<u64, BoxError> {
        self.status("VmRSS:")
    }

    fn peak(&self) -> Result<u64, BoxError> {
        self.status("VmHWM:")
    }

    /// Returns a value of `/proc/<pid>/status` in MB.
    fn status(&self, name: &str) -> Result<u64, BoxError> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.process.id()))?;
        let value = status.lines().find_map(|line| line.strip_prefix(name)).ok_or("no value")?;
        Ok(value.trim().trim_end_matches(" kB").parse::<u64>()? / 1024)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.process.kill().ok();
        self.process.wait().ok();
    }
}
