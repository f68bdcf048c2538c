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
    key::{DailyLimit, KeyHash},
    store::engine::{Engine, queue::Queue, sync::SharedMap},
};

/// What the callers and the writer share.
pub(super) struct Core {
    pub(super) engine: Arc<Engine>,
    pub(super) queue: Arc<Queue<SqliteLedger>>,
    pub(super) default_daily_limit: DailyLimit,
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

    /// The time by the clock.
    pub(super) fn now(&self) -> SystemTime {
        self.engine.clock.now()
    }

    /// The day by the clock.
    pub(super) fn today(&self) -> Day {
        self.engine.today()
    }

    /// The number of the present state of `api_keys`, to be read before the table is.
    pub(super) fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    /// `api_keys` has changed: what was read before is no longer valid.
    pub(super) fn forget_keys(&self) {
        self.generation.fetch_add(1, Ordering::AcqRel);
        self.keys.clear();
    }

    /// A record that was read from the present state of `api_keys`.
    pub(super) fn cached(&self, hash: &KeyHash) -> Option<CachedKey> {
        let found = self.keys.get(hash)?;
        (found.generation == self.generation()).then(|| found.clone())
    }

    pub(super) fn cache(&self, hash: KeyHash, key: CachedKey) {
        self.keys.insert(hash, key);
    }
}
