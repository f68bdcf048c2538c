//! Many keys and days: how fast the admin service responds, and how reports and the deletion of single
//! requests affect the latency of other requests.
//! `cargo bench --bench scale -- --help` lists the options.
//!
//! The program starts itself again as the server, so that memory and CPU are the server's alone.

mod admin;
mod fill;
mod fill_postgres;
mod load;
#[path = "../../tests/common/postgres.rs"]
#[allow(dead_code)]
mod postgres;
mod serve;
#[path = "../common/stats.rs"]
#[allow(dead_code)]
mod stats;

use std::{
    fs,
    io::{BufRead, BufReader},
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use clap::{Parser, Subcommand};
use tower::BoxError;

use crate::{admin::Client, load::Load, postgres::Postgres};

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
    /// File to create, and to keep for the next run; a temporary one if not given. With --postgres, the journal.
    #[arg(long)]
    database: Option<PathBuf>,
    /// PostgreSQL database to measure in place of a SQLite file, filled if the journal is new. Without a URL, one of
    /// an own server with the default settings.
    #[arg(long, num_args = 0..=1, default_missing_value = "")]
    postgres: Option<String>,
    /// Maximum median time of a page, in milliseconds, but for the busiest keys of several days.
    #[arg(long)]
    max_millis: Option<f64>,
    #[arg(long, hide = true)]
    bench: bool,
    #[command(subcommand)]
    role: Option<Role>,
}

#[derive(Subcommand)]
enum Role {
    /// Serves on a free port.
    #[command(hide = true)]
    Serve {
        file: PathBuf,
        retention_days: u32,
        #[arg(long)]
        url: Option<String>,
    },
}

/// What is filled and measured.
enum Database {
    Sqlite(PathBuf),
    Postgres { url: String, journal: PathBuf },
}

impl Database {
    /// A SQLite file, or the PostgreSQL database at the URL with this file as the beginning of its journal's files.
    fn new(file: PathBuf, url: Option<String>) -> Self {
        match url {
            Some(url) => Self::Postgres { url, journal: file },
            None => Self::Sqlite(file),
        }
    }

    async fn fill(&self, keys: usize, days: u32) -> Result<(), BoxError> {
        match self {
            Self::Sqlite(file) if file.exists() => Ok(()),
            Self::Sqlite(file) => fill::fill(file, keys, days).await,
            Self::Postgres { journal, .. } if is_used(journal)? => Ok(()),
            Self::Postgres { url, journal } => fill_postgres::fill(url, journal, keys, days).await,
        }
    }

    fn old_requests(&self, requests: u64) -> Result<(), BoxError> {
        match self {
            Self::Sqlite(file) => fill::old_requests(file, requests)?,
            Self::Postgres { url, .. } => fill_postgres::old_requests(url, requests),
        }
        Ok(())
    }

    fn has_old_requests(&self) -> Result<bool, BoxError> {
        match self {
            Self::Sqlite(file) => fill::has_old_requests(file),
            Self::Postgres { url, .. } => Ok(fill_postgres::has_old_requests(url)),
        }
    }
}

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    let options = Options::parse();
    match &options.role {
        Some(Role::Serve { file, retention_days, url }) => {
            let database = Database::new(file.clone(), url.clone());
            match serve::serve(&database, *retention_days).await? {}
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
    let file = options.database.clone().unwrap_or(own);
    let is_own_server = options.postgres.as_deref() == Some("");
    let server = is_own_server.then(|| Postgres::start(&[]));
    let url = match &server {
        Some(server) => Some(server.create_database()),
        None => options.postgres.clone(),
    };
    let database = Database::new(file, url);
    eprintln!("filling the database");
    database.fill(options.keys, options.days).await?;
    reports(options, &database).await?;
    retention(options, &database).await
}

/// Measures each admin call, and the load beside them.
async fn reports(options: &Options, database: &Database) -> Result<(), BoxError> {
    let server = Server::start(database, 0)?;
    let client = Client::new(server.address);
    let calls = admin::calls(&client, options.days).await?;
    let alone = Load::start(server.address, options.rate).run_for(Duration::from_secs(5)).await?;
    println!("{} keys × {} days, {} requests/s\n", options.keys, options.days, options.rate);
    println!("| call | first byte, ms | total, ms | slowest, ms | bytes | resident after, MB |");
    println!("|---|--:|--:|--:|--:|--:|");
    let before = server.resident()?;
    let load = Load::start(server.address, options.rate);
    let mut slow = Vec::new();
    for call in &calls {
        let (row, millis) = client.measure(call, options.times).await?;
        println!("{row} {} |", server.resident()?);
        if call.is_limited() && options.max_millis.is_some_and(|max| millis > max) {
            slow.push(call.name());
        }
    }
    let beside = load.stop().await?;
    println!("\n| load | p50, ms | p99, ms | slowest, ms | failed |");
    println!("|---|--:|--:|--:|--:|\n| alone {alone}\n| beside the calls {beside}");
    println!(
        "\nThe server: {before} MB resident before, {} MB at most, the load's included.\n",
        server.peak()?
    );
    if slow.is_empty() { Ok(()) } else { Err(format!("too slow: {}", slow.join(", ")).into()) }
}

/// Measures the load while expired requests are deleted.
async fn retention(options: &Options, database: &Database) -> Result<(), BoxError> {
    database.old_requests(options.expired)?;
    let server = Server::start(database, 7)?;
    let load = Load::start(server.address, options.rate);
    let start = std::time::Instant::now();
    while database.has_old_requests()? {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let (took, beside) = (start.elapsed(), load.stop().await?);
    println!("| {} requests deleted in {:.0} s {beside}", options.expired, took.as_secs_f64());
    Ok(())
}

/// Whether files of this journal exist.
fn is_used(journal: &Path) -> Result<bool, BoxError> {
    let directory = journal.parent().filter(|directory| !directory.as_os_str().is_empty());
    let name = journal.file_name().ok_or("--database is no file")?;
    for file in fs::read_dir(directory.unwrap_or(Path::new(".")))? {
        if file?.file_name().as_encoded_bytes().starts_with(name.as_encoded_bytes()) {
            return Ok(true);
        }
    }
    Ok(false)
}

struct Server {
    process: Child,
    address: SocketAddr,
}

impl Server {
    fn start(database: &Database, retention_days: u32) -> Result<Self, BoxError> {
        let mut command = Command::new(std::env::current_exe()?);
        match database {
            Database::Sqlite(file) => command.arg("serve").arg(file),
            Database::Postgres { url, journal } => {
                command.arg("serve").args(["--url", url]).arg(journal)
            }
        };
        let mut process = command.arg(retention_days.to_string()).stdout(Stdio::piped()).spawn()?;
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
