use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::SystemTime,
};

use super::{SqliteOptions, keys::CachedKey, ledger::SqliteLedger};
use crate::{
    clock::Day,
    key::{KeyHash, Limit},
    store::{
        engine::{Engine, queue::Queue},
        sync::SharedMap,
    },
};

/// State shared by callers and the writer.
pub(super) struct Core {
    pub(super) engine: Arc<Engine>,
    pub(super) queue: Arc<Queue<SqliteLedger>>,
    pub(super) default_daily_limit: Limit,
    keys: SharedMap<KeyHash, CachedKey>,
    generation: AtomicU64,
}

impl Core {
    pub(super) fn new(options: &SqliteOptions, engine: Engine) -> Self {
        Self {
            queue: Arc::new(engine.queue()),
            engine: Arc::new(engine),
            default_daily_limit: options.default_daily_limit,
            keys: SharedMap::default(),
            generation: AtomicU64::new(0),
        }
    }

    /// Returns the current time.
    pub(super) fn now(&self) -> SystemTime {
        self.engine.clock.now()
    }

    /// Returns the current day.
    pub(super) fn today(&self) -> Day {
        self.engine.today()
    }

    /// Returns the generation of `api_keys`; read it before the table.
    pub(super) fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    /// Starts a new generation of `api_keys`, and clears the cache.
    pub(super) fn forget_keys(&self) {
        self.generation.fetch_add(1, Ordering::AcqRel);
        self.keys.clear();
    }

    /// Returns the cached record, if it is of the current generation of `api_keys`.
    pub(super) fn cached(&self, hash: &KeyHash) -> Option<CachedKey> {
        let found = self.keys.get(hash)?;
        (found.generation == self.generation()).then(|| found.clone())
    }

    pub(super) fn cache(&self, hash: KeyHash, key: CachedKey) {
        self.keys.insert(hash, key);
    }
}
