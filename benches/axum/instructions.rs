//! Instructions per request, counted by callgrind, under which this program runs itself.

use std::{
    env,
    path::{Path, PathBuf},
    process::Command,
};

use clap::ValueEnum;
use tempfile::NamedTempFile;
use tower::BoxError;

use crate::{callgrind, variant::Variant};

/// The cost of start and end is the same for both numbers of requests, and cancels out.
const CALLS: [usize; 2] = [2_000, 12_000];

/// Prints the instructions of each variant.
pub(crate) fn count(profiles: Option<&Path>) -> Result<(), BoxError> {
    let this = env::current_exe()?;
    let run = |variant: Variant| {
        let value = variant.to_possible_value().ok_or("a variant without a name")?;
        let arguments = ["repeat", value.get_name()];
        let profile = profiles.map(|directory| directory.join(value.get_name()));
        each(&this, &arguments, profile.as_deref())
    };
    let hash = run(Variant::Sha256)?;
    let axum = run(Variant::Axum)?;
    println!("| instructions per request | all | over axum | without SHA-256 |\n|---|--:|--:|--:|");
    println!("| axum | {axum} | | |");
    let identity = run(Variant::Identity)?;
    println!("| axum, a layer that does nothing | {identity} | {} | |", identity - axum);
    for (variant, name) in [
        (Variant::Memory, "axum, auth and quota (memory)"),
        (Variant::Sqlite, "axum, auth and quota (SQLite)"),
    ] {
        let all = run(variant)?;
        println!("| {name} | {all} | {} | {} |", all - axum, all - axum - hash);
    }
    let governor = each(&governor()?, &[], None)?;
    println!("| axum, tower_governor (rate only) | {governor} | {} | |", governor - axum);
    println!("| SHA-256 of a key | {hash} | | |");
    Ok(())
}

/// Returns the instructions of one call by `program`, whose last argument is their number.
fn each(program: &Path, arguments: &[&str], profile: Option<&Path>) -> Result<i64, BoxError> {
    let run = |calls: usize| {
        let log = NamedTempFile::new()?;
        let profile = profile.unwrap_or(Path::new("/dev/null"));
        let mut command = callgrind::command(program, log.path(), profile, &[]);
        let status = command.args(arguments).arg(calls.to_string()).status()?;
        if !status.success() {
            return Err(BoxError::from(format!("{command:?}: {status}")));
        }
        Ok(callgrind::collected(log.path())?)
    };
    let [few, many] = CALLS;
    let (few_collected, many_collected) = (run(few)?, run(many)?);
    let more = many_collected.cast_signed() - few_collected.cast_signed();
    Ok(more / i64::try_from(many - few)?)
}

/// Builds tower_governor's program, a crate of its own so that no test of this one compiles it.
fn governor() -> Result<PathBuf, BoxError> {
    let manifest = concat!(env!("CARGO_MANIFEST_DIR"), "/benches/axum/governor/Cargo.toml");
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).join("governor");
    let mut cargo = Command::new(env!("CARGO"));
    cargo.args(["build", "--release", "--locked", "--quiet", "--manifest-path", manifest]);
    let status = cargo.arg("--target-dir").arg(&target).status()?;
    if !status.success() {
        return Err(format!("{cargo:?}: {status}").into());
    }
    Ok(target.join("release/governor"))
}
