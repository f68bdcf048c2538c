//! The stores that are measured.

use std::{
    fmt,
    sync::Arc,
    time::{Duration, SystemTime},
};

use clap::ValueEnum;
use tempfile::TempDir;
use tower::BoxError;
use tower_quota::{
    key::{KeyId, Limit},
    store::{
        Demand, QuotaStore, QuotaSubject, ReserveOutcome,
        memory::MemoryStore,
        sqlite::{Durability, SqliteOptions, SqliteStore},
    },
};

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Kind {
    /// In memory.
    Memory,
    /// SQLite, durability `process`.
    Process,
    /// SQLite, durability `power`.
    Power,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.to_possible_value().as_ref().map_or("", |value| value.get_name()))
    }
}

/// An open store and the subjects whose units are reserved.
pub(crate) struct Store {
    pub(crate) quota: Arc<dyn QuotaStore>,
    pub(crate) subjects: Arc<[QuotaSubject]>,
    sqlite: Option<SqliteStore>,
    _directory: TempDir,
}

impl Store {
    /// Opens a store and reserves a unit of each subject, so that their counters are in memory.
    pub(crate) async fn open(kind: Kind, keys: usize) -> Result<Self, BoxError> {
        // In the target directory, as the usual directory for temporary files may be in memory.
        let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR"))?;
        let open = |durability| {
            let path = directory.path().join("quota.db");
            SqliteStore::open(SqliteOptions::new(path).durability(durability))
        };
        let sqlite = match kind {
            Kind::Memory => None,
            Kind::Process => Some(open(Durability::Process)?),
            Kind::Power => Some(open(Durability::Power)?),
        };
        let quota: Arc<dyn QuotaStore> = match &sqlite {
            Some(store) => Arc::new(store.clone()),
            None => Arc::new(MemoryStore::new()),
        };
        let limit = Limit::Units(Limit::MAX_STORED);
        let subject = |number| QuotaSubject::new(KeyId::new(format!("key_{number:016x}")), limit);
        let subjects: Arc<[QuotaSubject]> = (0..keys).map(subject).collect();
        for subject in &*subjects {
            quota.reserve(&demand(subject)).await?;
        }
        let store = Self { quota, subjects, sqlite, _directory: directory };
        store.flush().await?;
        Ok(store)
    }

    /// Waits until all units are checkpointed.
    pub(crate) async fn flush(&self) -> Result<(), BoxError> {
        if let Some(store) = &self.sqlite {
            store.flush().await?;
        }
        Ok(())
    }

    /// Stops the writer before the files are removed.
    pub(crate) async fn close(self) -> Result<(), BoxError> {
        if let Some(store) = &self.sqlite {
            store.close().await?;
        }
        Ok(())
    }
}

fn demand(subject: &QuotaSubject) -> Demand {
    Demand::new(subject.id.clone(), subject.limit, SystemTime::now())
}

/// Reserves one unit and waits until it is durable.
pub(crate) async fn take(quota: &dyn QuotaStore, subject: &QuotaSubject) -> Result<(), BoxError> {
    match quota.reserve(&demand(subject)).await? {
        ReserveOutcome::Admitted { mut reservation, .. } => {
            Ok(std::future::poll_fn(|cx| reservation.poll_committed(cx)).await?)
        }
        _ => Err("a limit was reached that should not be".into()),
    }
}

/// Duration of one window.
pub(crate) const WINDOW: Duration = Duration::from_millis(300);
