//! Counts the proxy's instructions per request with callgrind.

use std::{fs, io, path::Path};

use tempfile::NamedTempFile;
use tower::BoxError;

use crate::{
    callgrind,
    load::{Job, Keys, Load, Until},
    options::{Requests, Setup},
    proxy::Program,
    responses::Kind,
    start_upstream,
    subject::{Conditions, Subject},
};

/// Counts for every variant of this program, and prints the difference to the base.
pub(crate) fn count(
    setup: &Setup,
    requests: Requests,
    profiles: Option<&Path>,
) -> Result<(), BoxError> {
    let upstream = start_upstream()?;
    let subjects = Subject::all(setup, Conditions::new(setup, 0, upstream.address))?;
    let (mut of_base, name) = (Vec::new(), setup.base.name());
    let temporary = tempfile::tempdir()?;
    let directory = profiles.unwrap_or(temporary.path());
    println!("\n### Instructions per request of the serving thread, one connection\n");
    println!(
        "| variant | response | instructions | over {name} | × {name} | all threads |\n\
         |---|---|--:|--:|--:|--:|"
    );
    for subject in subjects {
        if subject.variant.program() == Program::Rival {
            continue;
        }
        for (kind, requests) in requests.each() {
            let name = format!("{}-{}.callgrind", subject.name.replace(' ', "-"), kind.name());
            let Instructions { serving: each, all } =
                per_request(&subject, kind, requests, &directory.join(name))?;
            let base = of_base.iter().find(|(known, _)| *known == kind).map(|(_, each)| *each);
            if base.is_none() {
                of_base.push((kind, each));
            }
            let base = base.unwrap_or(each);
            let (name, more, ratio) = (&subject.name, each - base, each / base);
            let kind = kind.name();
            println!("| {name} | {kind} | {each:.0} | {more:+.0} | {ratio:.3} | {all:.0} |");
        }
    }
    Ok(())
}

/// Instructions of a proxy for a request.
#[derive(Clone, Copy)]
pub(crate) struct Instructions {
    /// Of the first thread, which serves requests.
    pub(crate) serving: f64,
    /// Of all threads. What is done in the background depends on the time that a run takes.
    pub(crate) all: f64,
}

/// Counts for a kind of request. The difference of two runs excludes starting, warming up and ending.
pub(crate) fn per_request(
    subject: &Subject,
    kind: Kind,
    requests: u64,
    profile: &Path,
) -> Result<Instructions, BoxError> {
    let few = run(subject, kind, requests / 2, profile)?;
    let many = run(subject, kind, requests / 2 + requests, profile)?;
    let each = |few: u64, many: u64| (many as f64 - few as f64) / requests as f64;
    Ok(Instructions { serving: each(few[0], many[0]), all: each(few[1], many[1]) })
}

/// Returns the instructions of the first thread, and of all, of a proxy that serves `requests` requests.
/// Writes a profile of each thread to a file whose name begins with that of `profile`.
fn run(subject: &Subject, kind: Kind, requests: u64, profile: &Path) -> Result<[u64; 2], BoxError> {
    let log = NamedTempFile::new()?;
    let by_thread = &["--separate-threads=yes"];
    let command = callgrind::command(subject.program(), log.path(), profile, by_thread);
    let server = subject.start_as(command)?;
    let until = Until::Requests(requests);
    let keys = Keys::Any(subject.conditions.warm_keys);
    let job = Job { address: server.address, kind, connections: 1, keys, rate: 0, until };
    Load::start()?.run(job)?;
    server.finish()?;
    let mut of_first = profile.as_os_str().to_owned();
    of_first.push("-01");
    Ok([total(Path::new(&of_first))?, callgrind::collected(log.path())?])
}

/// Returns the number of instructions in a profile.
fn total(profile: &Path) -> io::Result<u64> {
    let text = fs::read_to_string(profile)?;
    let count = text.lines().find_map(|line| line.strip_prefix("totals: ")?.trim().parse().ok());
    count.ok_or_else(|| io::Error::other(format!("no total in {}", profile.display())))
}
