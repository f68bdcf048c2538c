//! Counts a process's instructions with valgrind's callgrind.

use std::{
    ffi::{OsStr, OsString},
    fs, io,
    path::Path,
    process::Command,
};

/// A command that runs `program` under callgrind and leaves the count in `log`.
pub(crate) fn command(program: &Path, log: &Path) -> Command {
    let mut log_file = OsString::from("--log-file=");
    log_file.push(log);
    let mut command = Command::new("valgrind");
    command
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"].map(OsStr::new))
        .arg(log_file)
        .arg(program);
    command
}

/// The number of instructions that a finished process executed.
pub(crate) fn collected(log: &Path) -> io::Result<u64> {
    let text = fs::read_to_string(log)?;
    let count = text
        .lines()
        .find_map(|line| line.split_once("Collected : "))
        .and_then(|(_, count)| count.trim().parse().ok());
    count.ok_or_else(|| io::Error::other(format!("callgrind told no count:\n{text}")))
}
