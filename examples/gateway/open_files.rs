//! The limit of open files.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Number of files other than connections: the database, the journal, the readers, the log.
const RESERVED_FILES: u64 = 64;
/// Number of files that are assumed where there is no limit.
const MAX_FILES: u64 = 100_000;

/// Raises the soft limit of open files to the hard limit.
pub(crate) fn raise_limit() {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, ..limit };
    if let Err(error) = setrlimit(Resource::Nofile, raised) {
        tracing::debug!(%error, "raising the limit of open files failed: keeping the current one");
    }
}

/// Returns how many connections the limit allows, with as many to the upstream.
pub(crate) fn max_connections() -> usize {
    let files = getrlimit(Resource::Nofile).current.unwrap_or(MAX_FILES).min(MAX_FILES);
    usize::try_from(files.saturating_sub(RESERVED_FILES) / 2).unwrap_or(usize::MAX).max(1)
}
