//! Counts a process's instructions with valgrind's callgrind.

use std::{ffi::OsString, fs, io, path::Path, process::Command};

/// Returns a command that runs `program` under callgrind, with further options, and writes the count to `log`
/// and the profile to `profile`.
pub(crate) fn command(program: &Path, log: &Path, profile: &Path, options: &[&str]) -> Command {
    let option = |name: &str, value: &Path| {
        let mut option = OsString::from(name);
        option.push(value);
        option
    };
    let mut command = Command::new("valgrind");
    command
        .arg("--tool=callgrind")
        .arg(option("--log-file=", log))
        .arg(option("--callgrind-out-file=", profile))
        .args(options)
        .arg(program);
    command
}

/// Returns the number of instructions that a finished process executed.
pub(crate) fn collected(log: &Path) -> io::Result<u64> {
    let text = fs::read_to_string(log)?;
    let count = text
        .lines()
        .find_map(|line| line.split_once("Collected : "))
        .and_then(|(_, count)| count.trim().parse().ok());
    count.ok_or_else(|| io::Error::other(format!("no count in callgrind's log:\n{text}")))
}
