//! Many keys over many days: how fast the admin service answers, and what the requests that pass
//! meanwhile notice of reports and of single requests being forgotten.
//! `cargo bench --bench scale -- --help` tells what can be varied.
//!
//! The program starts itself again as the server, so that memory and CPU are the server's alone.

mod ask;
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

use crate::{ask::Client, load::Load};

#[derive(Parser)]
struct Options {
    #[arg(long, default_value_t = 100_000)]
    keys: usize,
    /// Days with figures, today included.
    #[arg(long, default_value_t = 90)]
    days: u32,
    /// Requests a second that pass meanwhile.
    #[arg(long, default_value_t = 1000)]
    rate: u32,
    /// Single requests that are due to be forgotten.
    #[arg(long, default_value_t = 1_000_000)]
    forgotten: u64,
    /// How often each question is asked.
    #[arg(long, default_value_t = 9)]
    times: usize,
    /// Where the file is made, and left for the next run; without this it is temporary.
    #[arg(long)]
    database: Option<PathBuf>,
    #[arg(long, hide = true)]
    bench: bool,
    #[command(subcommand)]
    role: Option<Role>,
}

#[derive(Subcommand)]
enum Role {
    /// Answers on a free port.
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
        // `cargo test --all-targets` comes this way.
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
    forgetting(options, database).await
}

/// Each question by itself, while the load passes.
async fn reports(options: &Options, database: &Path) -> Result<(), BoxError> {
    let server = Server::start(database, 0)?;
    let client = Client::new(server.address);
    let questions = ask::questions(&client, options.days).await?;
    let quiet = Load::start(server.address, options.rate).for_a(Duration::from_secs(5)).await?;
    println!("{} keys × {} days, {} requests a second\n", options.keys, options.days, options.rate);
    println!("| asked | first byte, ms | whole, ms | slowest, ms | bytes | resident after, MB |");
    println!("|---|--:|--:|--:|--:|--:|");
    let before = server.resident()?;
    let load = Load::start(server.address, options.rate);
    for question in &questions {
        println!("{} {} |", client.ask(question, options.times).await?, server.resident()?);
    }
    let busy = load.end().await?;
    println!("\n| requests that pass | p50, ms | p99, ms | slowest, ms | not answered |");
    println!("|---|--:|--:|--:|--:|\n| alone {quiet}\n| beside the questions {busy}");
    println!(
        "\nThe server: {before} MB resident before, {} MB at most, the load's included.\n",
        server.peak()?
    );
    Ok(())
}

/// What requests notice while old ones are forgotten.
async fn forgetting(options: &Options, database: &Path) -> Result<(), BoxError> {
    fill::old_requests(database, options.forgotten)?;
    let server = Server::start(database, 7)?;
    let load = Load::start(server.address, options.rate);
    let began = std::time::Instant::now();
    while fill::has_old_requests(database)? {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let (took, busy) = (began.elapsed(), load.end().await?);
    println!("| {} requests forgotten in {:.0} s {busy}", options.forgotten, took.as_secs_f64());
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

    /// A figure of `/proc`, in MB.
    fn status(&self, name: &str) -> Result<u64, BoxError> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.process.id()))?;
        let value = status.lines().find_map(|line| line.strip_prefix(name)).ok_or("no figure")?;
        Ok(value.trim().trim_end_matches(" kB").parse::<u64>()? / 1024)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.process.kill().ok();
        self.process.wait().ok();
    }
}
