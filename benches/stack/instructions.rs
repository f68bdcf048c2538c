//! Instructions a request, of the whole proxy, by callgrind.

use std::path::{Path, PathBuf};

use tempfile::NamedTempFile;
use tower::BoxError;

use crate::{
    answers::Kind,
    callgrind,
    load::{Load, Order, Until},
    options::{Requests, Runtime, Setup},
    proxy::Variant,
    start_upstream,
    subject::Subject,
};

/// Counts for every variant of this program, and prints what is more than the raw pass-through's.
pub(crate) fn count(
    setup: &Setup,
    requests: Requests,
    profiles: Option<&Path>,
) -> Result<(), BoxError> {
    let upstream = start_upstream()?;
    let subjects = Subject::all(setup, setup.runtime(Runtime::Current), upstream.address)?;
    let mut raw = Vec::new();
    println!("\n### Instructions a request, one connection\n");
    println!("| variant | answer | instructions | over raw | × raw |\n|---|---|--:|--:|--:|");
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
            // What starting, warming up and ending cost is the same in both and goes out.
            let few = run(&subject, kind, requests / 2, &profile)?;
            let many = run(&subject, kind, requests / 2 + requests, &profile)?;
            let each = (many as f64 - few as f64) / requests as f64;
            let base = raw.iter().find(|(known, _)| *known == kind).map(|(_, each)| *each);
            if base.is_none() {
                raw.push((kind, each));
            }
            let base = base.unwrap_or(each);
            let (name, more, ratio) = (&subject.name, each - base, each / base);
            println!("| {name} | {} | {each:.0} | {more:+.0} | {ratio:.3} |", kind.name());
        }
    }
    Ok(())
}

/// Instructions of a proxy that lives for so many requests.
fn run(subject: &Subject, kind: Kind, requests: u64, profile: &Path) -> Result<u64, BoxError> {
    let log = NamedTempFile::new()?;
    let server = subject.start_as(callgrind::command(subject.program(), log.path(), profile))?;
    let until = Until::Requests(requests);
    Load::start()?.run(Order { address: server.address, kind, connections: 1, until })?;
    server.finish()?;
    Ok(callgrind::collected(log.path())?)
}
