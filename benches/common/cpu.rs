//! The CPU clock of a whole process.

use std::time::Duration;

use nix::{errno::Errno, time::clock_getcpuclockid, unistd::Pid};

/// Returns the CPU time of all threads that the process has or had, in nanosecond resolution.
///
/// The sum over `/proc/<pid>/task` would lose threads that ended, and `/proc/<pid>/stat` counts ticks.
pub(crate) fn of_process(pid: Pid) -> Result<Duration, Errno> {
    Ok(clock_getcpuclockid(pid)?.now()?.into())
}
