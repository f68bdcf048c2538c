//! Counts system calls per request with strace.

use std::{
    collections::BTreeMap,
    fs,
    io::{BufRead, BufReader, Read},
    process::{Child, Command, Stdio},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use tempfile::NamedTempFile;
use tower::BoxError;

use crate::{
    compare::{Requests as WindowRequests, RunningSubject},
    load::{Load, Until},
    options::{Requests, Setup},
    responses::Kind,
    start_upstream,
    subject::{Conditions, Subject},
};

/// Calls per request, by name.
type Calls = BTreeMap<String, f64>;

/// Threads of a process.
#[derive(Clone, Copy)]
enum Threads {
    /// The first, which serves requests.
    First,
    All,
}

/// Counts for every variant, and prints the difference to the base.
pub(crate) fn count(setup: &Setup, requests: Requests) -> Result<(), BoxError> {
    let upstream = start_upstream()?;
    let subjects = Subject::all(setup, Conditions::new(setup, 0, upstream.address))?;
    let (mut of_base, base_name) = (Vec::new(), setup.base.name());
    println!("\n### System calls per request, one connection\n");
    println!("| variant | response | calls | over {base_name} | which |\n|---|---|--:|--:|---|");
    for subject in subjects {
        let name = subject.name.clone();
        let (mut load, mut running) = (Load::start()?, RunningSubject::start(subject)?);
        for (kind, requests) in requests.each() {
            let calls = trace(&mut load, &mut running, (kind, requests), Threads::All)?;
            let base = of_base.iter().find(|(known, _)| *known == kind).map(|(_, calls)| calls);
            print(&name, kind, &calls, base.unwrap_or(&calls));
            if base.is_none() {
                of_base.push((kind, calls));
            }
        }
    }
    Ok(())
}

/// Returns the number of calls per request of the thread of a running proxy that serves.
pub(crate) fn per_request(
    load: &mut Load,
    running: &mut RunningSubject,
    kind: Kind,
    requests: u64,
) -> Result<f64, BoxError> {
    Ok(trace(load, running, (kind, requests), Threads::First)?.values().sum())
}

fn trace(
    load: &mut Load,
    running: &mut RunningSubject,
    (kind, requests): (Kind, u64),
    threads: Threads,
) -> Result<Calls, BoxError> {
    let keys = running.subject.conditions.warm_keys;
    let sent =
        |requests| WindowRequests { kind, connections: 1, keys, until: Until::Requests(requests) };
    // Warms up before strace attaches: opens connections, reads keys and counters.
    running.window(load, sent(200))?;
    let summary = NamedTempFile::new()?;
    let strace = attach(running, &summary, threads)?;
    running.window(load, sent(requests))?;
    detach(strace)?;
    let summary = fs::read_to_string(summary.path())?;
    let per_request = |(name, calls): (String, u64)| (name, calls as f64 / requests as f64);
    Ok(parse(&summary).map(per_request).collect())
}

fn attach(
    running: &RunningSubject,
    summary: &NamedTempFile,
    threads: Threads,
) -> Result<Child, BoxError> {
    let mut command = Command::new("strace");
    command.args(["-c", "-o"]).arg(summary.path());
    if matches!(threads, Threads::All) {
        command.arg("-f");
    }
    for pid in &running.server.pids {
        command.args(["-p", &pid.to_string()]);
    }
    let mut strace = command.stderr(Stdio::piped()).spawn()?;
    let mut lines = BufReader::new(strace.stderr.take().ok_or("strace has no stderr")?);
    for _ in &running.server.pids {
        let mut line = String::new();
        lines.read_line(&mut line)?;
        if !line.contains(" attached") {
            lines.read_to_string(&mut line)?;
            return Err(format!("strace cannot attach: {line}").into());
        }
    }
    // Must stay open until strace ends; its remaining output fits into the pipe.
    strace.stderr = Some(lines.into_inner());
    Ok(strace)
}

fn detach(mut strace: Child) -> Result<(), BoxError> {
    kill(Pid::from_raw(strace.id().cast_signed()), Signal::SIGINT)?;
    strace.wait()?;
    Ok(())
}

/// Parses the rows of strace's table: share, seconds, time per call, calls, errors if any, name.
fn parse(summary: &str) -> impl Iterator<Item = (String, u64)> {
    summary.lines().filter_map(|line| {
        let columns: Vec<&str> = line.split_whitespace().collect();
        let name = columns.last().filter(|name| **name != "total")?;
        Some(((*name).to_owned(), columns.get(3)?.parse().ok()?))
    })
}

fn print(name: &str, kind: Kind, calls: &Calls, base: &Calls) {
    let mut differences: Vec<(&str, f64)> = calls
        .keys()
        .chain(base.keys().filter(|name| !calls.contains_key(*name)))
        .map(|name| {
            let of = |calls: &Calls| calls.get(name).copied().unwrap_or_default();
            (name.as_str(), of(calls) - of(base))
        })
        .filter(|(_, difference)| difference.abs() >= 0.01)
        .collect();
    differences.sort_by(|a, b| b.1.abs().total_cmp(&a.1.abs()));
    let which: Vec<String> =
        differences.iter().map(|(name, difference)| format!("{name} {difference:+.2}")).collect();
    let total = |calls: &Calls| calls.values().sum::<f64>();
    println!(
        "| {name} | {} | {:.2} | {:+.2} | {} |",
        kind.name(),
        total(calls),
        total(calls) - total(base),
        which.join(", "),
    );
}
