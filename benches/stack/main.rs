//! Complete requests over real sockets. `cargo bench --bench stack -- --help` lists the options.
//!
//! The program starts itself again in roles (upstream, proxy, load), so that each is a process with
//! a CPU clock of its own.

mod bootstrap;
mod budget;
#[path = "../common/callgrind.rs"]
mod callgrind;
#[path = "../common/chart.rs"]
mod chart;
mod compare;
#[path = "../common/cpu.rs"]
mod cpu;
mod forward;
mod gateway;
mod instructions;
mod ledger;
mod load;
mod memory;
mod options;
mod pictures;
mod pooled;
#[path = "../../tests/common/postgres.rs"]
#[expect(dead_code, reason = "the tests use the rest")]
mod postgres;
mod process;
mod proxy;
mod rates;
mod report;
mod responses;
mod rivals;
#[path = "../common/stats.rs"]
mod stats;
mod subject;
mod syscalls;
#[path = "../common/table.rs"]
mod table;
mod upstream;
mod wire;

use std::{
    fs,
    io::{self, Read},
    net::Ipv4Addr,
    process::{Command, ExitCode, exit},
    thread,
    time::Duration,
};

use clap::Parser;
use tokio::net::TcpListener;
use tower::BoxError;

use crate::{
    compare::RunningSubject,
    options::{Options, Runtime, Task},
    process::Server,
    proxy::Proxy,
    subject::{Conditions, Subject},
};

#[cfg(mimalloc)]
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> Result<ExitCode, BoxError> {
    let options = Options::parse();
    match &options.task {
        None if options.bench => return measure(&options),
        // `cargo test --all-targets` runs without --bench.
        None => println!("nothing is measured without --bench"),

        Some(Task::Syscalls { requests }) => syscalls::count(&options.setup, *requests)?,
        Some(Task::Instructions { requests, profiles }) => {
            instructions::count(&options.setup, *requests, profiles.as_deref())?;
        }
        Some(Task::Memory { streams }) => memory::measure(&options.setup, *streams)?,
        Some(Task::Rates { rates, seconds }) => {
            rates::measure(&options.setup, rates, Duration::from_secs(*seconds))?;
        }
        Some(Task::Pictures) => draw()?,
        Some(Task::Budget) => return budget::check(&options.setup),
        Some(Task::Upstream) => Runtime::Current.build()?.block_on(async {
            end_with_stdin();
            let listener = listen().await?;
            println!("{}", listener.local_addr()?);
            upstream::serve(listener).await
        })?,
        Some(Task::Proxy { variant, upstream, database, url }) => {
            let runtime = options.setup.runtime.build()?;
            end_with_stdin();
            let (database, url) = (database.clone(), url.clone());
            let keys = options.setup.keys.iter().copied().max().unwrap_or_default();
            let proxy = Proxy { variant: *variant, upstream: *upstream, keys, database, url };
            match runtime.block_on(async { proxy.serve(listen().await?).await })? {}
        }
        Some(Task::Load) => Runtime::Current.build()?.block_on(load::serve())?,
    }
    Ok(ExitCode::SUCCESS)
}

fn draw() -> Result<(), BoxError> {
    const DOCUMENTS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/docs");
    let document = fs::read_to_string(format!("{DOCUMENTS}/performance.md"))?;
    for (name, picture) in pictures::draw(&document) {
        let picture =
            picture.ok_or_else(|| format!("docs/performance.md has no table of {name}"))?;
        fs::write(format!("{DOCUMENTS}/pictures/{name}.svg"), picture)?;
    }
    Ok(())
}

/// Measures CPU, throughput and latency of all variants, then checks the counts.
fn measure(options: &Options) -> Result<ExitCode, BoxError> {
    let upstream = start_upstream()?;
    let Options { setup, plan, .. } = options;
    // Only a base that knows keys has further windows with each variant.
    let subjects = if setup.base.back_end().is_some() { setup.variants().len() + 1 } else { 1 };
    let first_keys = plan.first_keys(subjects, &setup.keys);
    let conditions = Conditions::new(setup, first_keys, upstream.address);
    let subjects = Subject::all(setup, conditions)?;
    let mut running =
        subjects.into_iter().map(RunningSubject::start).collect::<Result<Vec<_>, _>>()?;
    for requests in plan.tables(&setup.keys) {
        let rows = compare::compare(&mut running, requests, plan)?;
        report::print(requests, &setup.base.name(), &rows);
    }
    let mut exact = true;
    let counts = |running: &RunningSubject| running.subject.variant.back_end().is_some();
    if running.iter().any(counts) {
        println!("\n### Counts\n");
    }
    for running in running {
        if let Some(back_end) = running.subject.variant.back_end() {
            exact &= ledger::check(running, back_end)?;
        }
    }
    Ok(if exact { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn start_upstream() -> Result<Server, BoxError> {
    Server::start(Command::new(std::env::current_exe()?).arg("upstream"))
}

async fn listen() -> io::Result<TcpListener> {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await
}

/// Exits when the parent process closes the pipe or ends.
fn end_with_stdin() {
    thread::spawn(|| {
        io::stdin().read_to_end(&mut Vec::new()).ok();
        exit(0);
    });
}
