//! What is put around the application.

use std::hint::black_box;

use axum::Router;
use clap::ValueEnum;
use sha2::{Digest, Sha256};
use tower::{BoxError, ServiceBuilder, layer::util::Identity};
use tower_quota::{
    admin::store::{Actor, AdminStore, NewKey},
    auth::TrialKeyAuthLayer,
    key::{KeyId, KeyRecord, Limit, SecretKey},
    quota::DailyQuotaLayer,
    store::{
        KeyStore, QuotaStore,
        memory::MemoryStore,
        sqlite::{SqliteOptions, SqliteStore},
    },
};

use crate::calls::{self, KEYS, application, key};

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Variant {
    /// axum alone.
    Axum,
    /// axum with a layer that does nothing: axum boxes each layer's service, future and body.
    Identity,
    /// axum, auth and quota in memory.
    Memory,
    /// axum, auth and quota in SQLite.
    Sqlite,
    /// The SHA-256 of a key, without axum.
    Sha256,
}

impl Variant {
    /// Repeats what is measured this number of times.
    pub(crate) async fn repeat(self, calls: usize) -> Result<(), BoxError> {
        match self {
            Self::Axum => calls::repeat(application(), calls).await,
            Self::Identity => {
                calls::repeat(application().route_layer(Identity::new()), calls).await
            }
            Self::Memory => calls::repeat(limited(MemoryStore::new()).await?, calls).await,
            Self::Sqlite => {
                // In the target directory, as the usual directory for temporary files may be in memory.
                let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR"))?;
                let path = directory.path().join("quota.db");
                let store = SqliteStore::open(SqliteOptions::new(path))?;
                calls::repeat(limited(store.clone()).await?, calls).await?;
                Ok(store.close().await?)
            }
            Self::Sha256 => {
                let keys: Vec<String> = (0..KEYS).map(key).collect();
                for key in keys.iter().cycle().take(calls) {
                    black_box(Sha256::digest(black_box(key)));
                }
                Ok(())
            }
        }
    }
}

/// Returns the application with a quota for each key, which it does not reach.
async fn limited<S>(store: S) -> Result<Router, BoxError>
where
    S: AdminStore + KeyStore + QuotaStore + Clone,
{
    let keys = (0..KEYS).map(|number| {
        let secret = SecretKey::parse(&key(number))?;
        let record = KeyRecord::new(KeyId::generate(), Limit::Units(Limit::MAX_STORED));
        Ok(NewKey::new(secret, record)?)
    });
    store.create(keys.collect::<Result<_, BoxError>>()?, Actor::default()).await?;
    let quota = ServiceBuilder::new()
        .layer(TrialKeyAuthLayer::new(store.clone()))
        .layer(DailyQuotaLayer::new(store));
    Ok(application().route_layer(quota))
}
