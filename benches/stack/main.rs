//! Complete requests over real sockets. `cargo bench --bench stack -- --help` lists the options.
//!
//! The program starts itself again in roles (upstream, proxy, load), so that each is a process with
//! a CPU clock of its own.

mod bootstrap;
#[path = "../common/callgrind.rs"]
mod callgrind;
mod compare;
#[path = "../common/cpu.rs"]
mod cpu;
mod forward;
mod instructions;
mod ledger;
mod load;
mod options;
#[path = "../../tests/common/postgres.rs"]
#[expect(dead_code, reason = "the tests use the rest")]
mod postgres;
mod process;
mod proxy;
mod report;
mod responses;
mod rivals;
#[path = "../common/stats.rs"]
mod stats;
mod subject;
mod syscalls;
mod upstream;
mod wire;

use std::{
    io::{self, Read},
    net::Ipv4Addr,
    process::{Command, ExitCode, exit},
    thread,
};

use clap::Parser;
use tokio::net::TcpListener;
use tower::BoxError;

use crate::{
    compare::RunningSubject,
    options::{Options, Runtime, Task},
    process::Server,
    proxy::Proxy,
    subject::Subject,
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
        Some(Task::Upstream) => Runtime::Current.build()?.block_on(async {
            end_with_stdin();
            let listener = listen().await?;
            println!("{}", listener.local_addr()?);
            upstream::serve(listener).await
        })?,
        Some(Task::Proxy { variant, upstream, database, url }) => {
            let runtime = options.setup.runtime(Runtime::Multi).build()?;
            end_with_stdin();
            let (database, url) = (database.clone(), url.clone());
            let proxy = Proxy { variant: *variant, upstream: *upstream, database, url };
            match runtime.block_on(async { proxy.serve(listen().await?).await })? {}
        }
        Some(Task::Load) => Runtime::Current.build()?.block_on(load::serve())?,
    }
    Ok(ExitCode::SUCCESS)
}

/// Measures CPU, throughput and latency of all variants, then checks the counts.
fn measure(options: &Options) -> Result<ExitCode, BoxError> {
    let upstream = start_upstream()?;
    let runtime = options.setup.runtime(Runtime::Multi);
    let subjects = Subject::all(&options.setup, runtime, upstream.address)?;
    let mut running =
        subjects.into_iter().map(RunningSubject::start).collect::<Result<Vec<_>, _>>()?;
    for kind in options.plan.kinds() {
        let rows = compare::compare(&mut running, kind, &options.plan)?;
        report::print(kind, options.plan.connections, &options.setup.base.name(), &rows);
    }
    let mut exact = true;
    let counts = |running: &RunningSubject| running.subject.variant.back_end().is_some();
    if running.iter().any(counts) {
        println!("\n### Counts\n");
    }
    for running in running {
        if let Some(back_end) = running.subject.variant.back_end() {
            exact &= ledger::check(running, back_end, options.plan.connections)?;
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
