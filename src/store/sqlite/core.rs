use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use dashmap::DashMap;

use super::{SqliteOptions, keys::CachedKey, queue::Queue};
use crate::{
    clock::{Calendar, Clock, Day},
    key::{DailyLimit, KeyHash, KeyId},
    store::counter::DayCounter,
};

/// What the callers and the writer thread share.
pub(super) struct Core {
    pub(super) calendar: Calendar,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) default_daily_limit: DailyLimit,
    pub(super) queue: Queue,
    pub(super) counters: DashMap<KeyId, Arc<DayCounter>>,
    keys: DashMap<KeyHash, CachedKey>,
    generation: AtomicU64,
}

impl Core {
    pub(super) fn new(options: &SqliteOptions) -> Self {
        Self {
            calendar: options.calendar.clone(),
            clock: options.clock.clone(),
            default_daily_limit: options.default_daily_limit,
            queue: Queue::new(),
            counters: DashMap::new(),
            keys: DashMap::new(),
            generation: AtomicU64::new(0),
        }
    }

    pub(super) fn today(&self) -> Day {
        self.calendar.window(self.clock.now()).day
    }

    /// The subject's counter, if it was loaded.
    pub(super) fn counter(&self, id: &KeyId) -> Option<Arc<DayCounter>> {
        self.counters.get(id).map(|counter| counter.clone())
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
