//! Instructions per unit, counted by callgrind, under which this program runs itself.

use std::path::Path;

use clap::ValueEnum;
use tempfile::NamedTempFile;
use tower::BoxError;
use tower_quota::{
    key::{KeyId, KeyRecord, Limit, SecretKey},
    store::{KeyStore, memory::MemoryStore},
};

use crate::{
    callgrind,
    stores::{self, Kind, Store},
};

/// Operation that is repeated.
#[derive(Clone, Copy, ValueEnum)]
pub(crate) enum Work {
    /// Finding a key's record in memory.
    Find,
    /// Reserving a unit in memory.
    Memory,
    /// Reserving a unit in SQLite, durability `process`, one at a time.
    Process,
    /// Reserving a unit in SQLite, durability `power`, one at a time.
    Power,
}

/// Prints the instructions of each kind of work.
pub(crate) fn count() -> Result<(), BoxError> {
    println!("| work | instructions |\n|---|--:|");
    for work in Work::value_variants() {
        let value = work.to_possible_value().ok_or("work without a name")?;
        // The cost of start and end is the same in both and cancels out.
        let (few, many) = (1_000, 6_000);
        let each = (run(value.get_name(), many)? - run(value.get_name(), few)?) / (many - few);
        println!("| {} | {each} |", value.get_help().map(ToString::to_string).unwrap_or_default());
    }
    Ok(())
}

fn run(work: &str, times: u64) -> Result<u64, BoxError> {
    let log = NamedTempFile::new()?;
    let mut command =
        callgrind::command(&std::env::current_exe()?, log.path(), Path::new("/dev/null"), &[]);
    let status = command.args(["repeat", work, &times.to_string()]).status()?;
    if !status.success() {
        return Err(format!("{command:?}: {status}").into());
    }
    Ok(callgrind::collected(log.path())?)
}

/// Repeats the operation this number of times.
pub(crate) async fn repeat(work: Work, times: u64) -> Result<(), BoxError> {
    let kind = match work {
        Work::Find => return find(times).await,
        Work::Memory => Kind::Memory,
        Work::Process => Kind::Process,
        Work::Power => Kind::Power,
    };
    let store = Store::open(kind, 16).await?;
    for subject in store.subjects.iter().cycle().take(times.try_into()?) {
        stores::take(&*store.quota, subject).await?;
    }
    store.close().await
}

async fn find(times: u64) -> Result<(), BoxError> {
    let store = MemoryStore::new();
    let key = SecretKey::parse("trial-bench-20261122-0123456789012345678901")?;
    let limit = Limit::Units(Limit::MAX_STORED);
    store.insert(&key, KeyRecord::new(KeyId::generate(), limit))?;
    for _ in 0..times {
        store.find(&key).await?.ok_or("the key is not found")?;
    }
    Ok(())
}
