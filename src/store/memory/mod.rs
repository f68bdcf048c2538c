//! [`MemoryStore`], which keeps everything in memory. For tests, and for services whose quotas may
//! start again with each restart.

#[cfg(feature = "admin")]
mod admin;
mod eviction;
mod keys;
mod quota;
mod usage;

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use self::{eviction::Eviction, keys::KeyTable, usage::Totals};
use super::{
    counter::{CounterKey, PeriodCounter},
    sync::{Mutex, SharedMap, lock},
};
use crate::clock::{Calendar, Clock, SystemClock};

/// Store without durability. Clones share their content.
///
/// Of an issued key it keeps the units and figures of today and the 30 days before, and the sum of all units.
/// Of other subjects it keeps those of today and yesterday, and their counters until a day after the end of
/// their period, so its memory does not grow with the subjects of past days.
/// [`max_subjects`](Self::max_subjects) limits those of one period.
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
    /// Maximum number of counters.
    max_subjects: AtomicUsize,
    eviction: Mutex<Eviction>,
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
            max_subjects: AtomicUsize::new(usize::MAX),
            eviction: Mutex::default(),
            totals: Mutex::default(),
            #[cfg(feature = "admin")]
            admin: admin::Records::default(),
        }))
    }
}

impl MemoryStore {
    /// Sets the maximum number of subjects that are counted in one period; a subject counts once for each
    /// of its quotas. There is none by default.
    ///
    /// At the maximum, those of past periods make room. If there are none, the reservation of another
    /// subject fails with `Unavailable`, which is 503 at the layer; no subject of the period is forgotten.
    /// Set it where clients can make up subjects, such as addresses.
    #[must_use]
    pub fn max_subjects(self, subjects: usize) -> Self {
        self.0.max_subjects.store(subjects, Ordering::Relaxed);
        self
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
