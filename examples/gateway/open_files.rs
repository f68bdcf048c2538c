//! How many files the process may have open.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Files beside connections: the database, the journal, the readers, the log.
const OWN: u64 = 64;
/// Where there is no limit.
const MANY: u64 = 100_000;

/// Raises the limit of open files as far as the process may.
pub(crate) fn raise_limit() {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, ..limit };
    if let Err(error) = setrlimit(Resource::Nofile, raised) {
        tracing::debug!(%error, "the limit of open files stays");
    }
}

/// How many connections leave enough files for as many to the upstream.
pub(crate) fn connections() -> usize {
    let files = getrlimit(Resource::Nofile).current.unwrap_or(MANY).min(MANY);
    usize::try_from(files.saturating_sub(OWN) / 2).unwrap_or(usize::MAX).max(1)
}
