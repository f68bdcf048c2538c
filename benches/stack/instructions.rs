//! Counts the proxy's instructions per request with callgrind.

use std::path::{Path, PathBuf};

use tempfile::NamedTempFile;
use tower::BoxError;

use crate::{
    callgrind,
    load::{Job, Load, Until},
    options::{Requests, Runtime, Setup},
    proxy::Variant,
    responses::Kind,
    start_upstream,
    subject::Subject,
};

/// Counts for every variant of this program, and prints the difference to the base.
pub(crate) fn count(
    setup: &Setup,
    requests: Requests,
    profiles: Option<&Path>,
) -> Result<(), BoxError> {
    let upstream = start_upstream()?;
    let subjects = Subject::all(setup, setup.runtime(Runtime::Current), upstream.address)?;
    let (mut of_base, name) = (Vec::new(), setup.base.name());
    println!("\n### Instructions per request, one connection\n");
    println!(
        "| variant | response | instructions | over {name} | × {name} |\n|---|---|--:|--:|--:|"
    );
    for subject in subjects {
        if matches!(subject.variant, Variant::Haproxy | Variant::Nginx) {
            continue;
        }
        for (kind, requests) in requests.each() {
            let profile = match profiles {
                Some(directory) => {
                    let name = subject.name.replace(' ', "-");
                    directory.join(format!("{name}-{}.callgrind", kind.name()))
                }
                None => PathBuf::from("/dev/null"),
            };
            // The difference of two runs excludes starting, warming up and ending.
            let few = run(&subject, kind, requests / 2, &profile)?;
            let many = run(&subject, kind, requests / 2 + requests, &profile)?;
            let each = (many as f64 - few as f64) / requests as f64;
            let base = of_base.iter().find(|(known, _)| *known == kind).map(|(_, each)| *each);
            if base.is_none() {
                of_base.push((kind, each));
            }
            let base = base.unwrap_or(each);
            let (name, more, ratio) = (&subject.name, each - base, each / base);
            println!("| {name} | {} | {each:.0} | {more:+.0} | {ratio:.3} |", kind.name());
        }
    }
    Ok(())
}

/// Returns the instructions of a proxy that serves `requests` requests.
fn run(subject: &Subject, kind: Kind, requests: u64, profile: &Path) -> Result<u64, BoxError> {
    let log = NamedTempFile::new()?;
    let server = subject.start_as(callgrind::command(subject.program(), log.path(), profile))?;
    let until = Until::Requests(requests);
    Load::start()?.run(Job { address: server.address, kind, connections: 1, until })?;
    server.finish()?;
    Ok(callgrind::collected(log.path())?)
}
