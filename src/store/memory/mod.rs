//! [`MemoryStore`], which keeps everything in memory. For tests, and for services whose quotas may
//! start again with each restart.

#[cfg(feature = "admin")]
mod admin;
mod keys;
mod quota;
mod usage;

use std::{fmt, sync::Arc};

use self::{keys::KeyTable, usage::Totals};
use super::{
    counter::{CounterKey, PeriodCounter},
    sync::{Mutex, SharedMap, lock},
};
use crate::clock::{Calendar, Clock, SystemClock};

/// Store without durability. Clones share their content.
///
/// ```
/// use tower_quota::{
///     key::{Limit, KeyId, KeyRecord, SecretKey},
///     store::memory::MemoryStore,
/// };
///
/// let store = MemoryStore::new();
/// let key = SecretKey::parse("trial-key-manual-123")?;
/// store.insert(&key, KeyRecord::new(KeyId::from("alice"), Limit::Units(200)))?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct MemoryStore(Arc<Inner>);

struct Inner {
    calendar: Calendar,
    clock: Arc<dyn Clock>,
    keys: Mutex<KeyTable>,
    counters: SharedMap<CounterKey, Arc<PeriodCounter>>,
    totals: Mutex<Totals>,
    #[cfg(feature = "admin")]
    admin: admin::Records,
}

impl MemoryStore {
    /// Creates an empty store whose days are UTC's.
    pub fn new() -> Self {
        Self::with_time(Calendar::utc(), SystemClock)
    }

    /// Creates an empty store with this calendar and clock.
    pub fn with_time(calendar: Calendar, clock: impl Clock) -> Self {
        Self(Arc::new(Inner {
            calendar,
            clock: Arc::new(clock),
            keys: Mutex::default(),
            counters: SharedMap::default(),
            totals: Mutex::default(),
            #[cfg(feature = "admin")]
            admin: admin::Records::default(),
        }))
    }
}

impl Default for MemoryStore {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for MemoryStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryStore").field("calendar", &self.0.calendar).finish_non_exhaustive()
    }
}
