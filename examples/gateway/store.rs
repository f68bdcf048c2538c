//! The store of the gateway: in a SQLite file or in a PostgreSQL database.

use std::sync::Arc;

use tokio::task::spawn_blocking;
use tower_quota::{
    admin::store::{AdminStore, ClaimStore},
    store::{
        KeyStore, QuotaStore, StoreFuture, UsageSink,
        postgres::{PostgresOptions, PostgresStore},
        sqlite::{Durability, OpenError, SqliteOptions, SqliteStore},
    },
};

/// What the gateway needs of a store, whichever it is.
pub(crate) trait Store: KeyStore + QuotaStore + UsageSink + AdminStore + ClaimStore {
    /// Flushes the store and ends its work.
    fn close(&self) -> StoreFuture<()>;

    /// Returns descriptions of the losses that were accepted when the store was opened.
    fn losses(&self) -> &[String];
}

/// A store that is shared by all services.
pub(crate) type SharedStore = Arc<dyn Store>;

impl Store for SqliteStore {
    fn close(&self) -> StoreFuture<()> {
        let store = self.clone();
        StoreFuture::pending(async move { SqliteStore::close(&store).await })
    }

    fn losses(&self) -> &[String] {
        self.losses()
    }
}

impl Store for PostgresStore {
    fn close(&self) -> StoreFuture<()> {
        let store = self.clone();
        StoreFuture::pending(async move { PostgresStore::close(&store).await })
    }

    fn losses(&self) -> &[String] {
        self.losses()
    }
}

/// Options for opening the store.
#[derive(Clone)]
pub(crate) enum StoreOptions {
    Sqlite(SqliteOptions),
    Postgres(Box<PostgresOptions>),
}

impl StoreOptions {
    /// Sets the durability of units.
    pub(crate) fn durability(self, durability: Durability) -> Self {
        match self {
            Self::Sqlite(options) => Self::Sqlite(options.durability(durability)),
            Self::Postgres(options) => Self::Postgres(Box::new(options.durability(durability))),
        }
    }

    /// Sets the number of days for which single requests are kept.
    pub(crate) fn retention_days(self, days: u32) -> Self {
        match self {
            Self::Sqlite(options) => Self::Sqlite(options.retention_days(days)),
            Self::Postgres(options) => Self::Postgres(Box::new(options.retention_days(days))),
        }
    }

    /// Opens a database from which requests or changes are provably missing anyway.
    pub(crate) fn accept_loss(self) -> Self {
        match self {
            Self::Sqlite(options) => Self::Sqlite(options.accept_loss(true)),
            Self::Postgres(options) => Self::Postgres(Box::new(options.accept_loss(true))),
        }
    }

    /// Opens the store.
    pub(crate) async fn open(self) -> Result<SharedStore, OpenError> {
        match self {
            Self::Sqlite(options) => match spawn_blocking(|| SqliteStore::open(options)).await {
                Ok(opened) => Ok(Arc::new(opened?)),
                Err(panicked) => std::panic::resume_unwind(panicked.into_panic()),
            },
            Self::Postgres(options) => Ok(Arc::new(PostgresStore::open(*options).await?)),
        }
    }
}
