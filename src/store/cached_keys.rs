use std::{
    collections::HashMap,
    fmt,
    future::{Future, poll_fn},
    mem,
    pin::Pin,
    ptr,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    task::{Context, Poll, Wake, Waker, ready},
    time::{Duration, SystemTime},
};

use foldhash::fast::RandomState;

use super::{KeyStore, StoreFuture};
use crate::{
    clock::{Clock, SystemClock},
    error::{StoreError, StoreErrorKind},
    key::{KeyHash, KeyId, KeyRecord, SecretKey},
};

/// Result of a lookup: the record of a key, or `None` if the key is unknown.
type Found = Option<Arc<KeyRecord>>;

/// Cache of a [`KeyStore`] that takes long to respond, such as a database on another machine.
///
/// # Rules
///
/// - A record is used for [`time_to_live`](Self::time_to_live) from the beginning of its lookup, and a
///   key that the store does not know for [`unknown_time_to_live`](Self::unknown_time_to_live). So a change of a key takes effect within this time, or at once where
///   [`invalidate`](Self::invalidate) is called.
/// - Of all requests that wait for the same key, one looks the key up. If it is dropped, another goes on.
/// - An error of the store is never taken for an unknown key, and is not cached. A record that the
///   cache still has may be used instead ([`stale_if_error`](Self::stale_if_error)).
/// - At most [`capacity`](Self::capacity) records are kept, and as many unknown keys. Those that were
///   not used for long are dropped first; however many unknown keys are tried, they displace no
///   record.
/// - Keys are known by their hash. The cache holds no secret.
/// - If the clock is set back, keys are looked up again.
///
/// # Example
///
/// ```
/// use std::time::Duration;
/// use tower_quota::{auth::TrialKeyAuthLayer, store::{CachedKeys, KeyStore}};
///
/// fn auth(remote: impl KeyStore) -> (TrialKeyAuthLayer, CachedKeys) {
///     let keys = CachedKeys::new(remote).time_to_live(Duration::from_secs(30));
///     // The clone, which shares the entries, is for notifications of changes.
///     (TrialKeyAuthLayer::new(keys.clone()), keys)
/// }
/// ```
#[derive(Clone)]
pub struct CachedKeys {
    store: Arc<dyn KeyStore>,
    clock: Arc<dyn Clock>,
    time_to_live: Duration,
    unknown_time_to_live: Duration,
    stale_if_error: Duration,
    capacity: usize,
    table: Arc<Mutex<Table>>,
}

impl CachedKeys {
    /// Creates a cache of 10,000 records for 60 seconds, and of unknown keys for 5 seconds.
    pub fn new(store: impl KeyStore) -> Self {
        Self {
            store: Arc::new(store),
            clock: Arc::new(SystemClock),
            time_to_live: Duration::from_secs(60),
            unknown_time_to_live: Duration::from_secs(5),
            stale_if_error: Duration::ZERO,
            capacity: 10_000,
            table: Arc::default(),
        }
    }

    /// Sets for how long a record is used before it is looked up again. 60 seconds by default.
    #[must_use]
    pub fn time_to_live(self, time_to_live: Duration) -> Self {
        Self { time_to_live, ..self }
    }

    /// Sets for how long a key is taken for unknown before it is looked up again. 5 seconds by
    /// default: a key is often tried before it is issued.
    #[must_use]
    pub fn unknown_time_to_live(self, unknown_time_to_live: Duration) -> Self {
        Self { unknown_time_to_live, ..self }
    }

    /// Sets for how long after its time to live a record is still used if the store is
    /// [`Unavailable`](StoreErrorKind::Unavailable) (RFC 5861). Zero by default: the request is rejected
    /// with 503.
    #[must_use]
    pub fn stale_if_error(self, stale_if_error: Duration) -> Self {
        Self { stale_if_error, ..self }
    }

    /// Sets the maximum number of records, and of unknown keys. 10,000 by default; less than 2 is 2.
    #[must_use]
    pub fn capacity(self, capacity: usize) -> Self {
        Self { capacity, ..self }
    }

    /// Takes the time from `clock`, which is [`SystemClock`] by default.
    #[must_use]
    pub fn clock(self, clock: impl Clock) -> Self {
        Self { clock: Arc::new(clock), ..self }
    }

    /// Drops the record of this key, and all that is known of unknown keys, as it may be one of them.
    /// Requests from now on see the key as the store has it.
    pub fn invalidate(&self, id: &KeyId) {
        let mut table = lock(&self.table);
        table.records.retain(|entry| entry.record.id != *id);
        table.unknown = Generations::default();
        table.lookups.clear();
    }

    /// Drops all entries.
    pub fn clear(&self) {
        *lock(&self.table) = Table::default();
    }

    /// Returns the result for this key if it is in the cache and is fresh.
    fn cached(&self, hash: &KeyHash, now: SystemTime) -> Option<Found> {
        let mut table = lock(&self.table);
        if let Some(entry) = table.records.get(hash, self.capacity) {
            return is_within(entry.looked_up_at, self.time_to_live, now)
                .then(|| Some(entry.record.clone()));
        }
        let looked_up_at = *table.unknown.get(hash, self.capacity)?;
        is_within(looked_up_at, self.unknown_time_to_live, now).then_some(None)
    }

    /// Returns the lookup that requests with this key wait for.
    fn lookup(&self, key: &SecretKey, hash: KeyHash, now: SystemTime) -> Arc<Lookup> {
        let mut table = lock(&self.table);
        if let Some(lookup) = table.lookups.get(&hash).and_then(Weak::upgrade) {
            return lookup;
        }
        let (store, key) = (self.store.clone(), key.clone());
        let future = StoreFuture::pending(async move { store.find(&key).await });
        let lookup = Arc::new(Lookup {
            hash,
            looked_up_at: now,
            cache: self.clone(),
            state: Mutex::new(LookupState::Running(future)),
            waiting: Arc::default(),
        });
        table.lookups.insert(hash, Arc::downgrade(&lookup));
        lookup
    }

    /// Stores the result of a lookup, and returns what requests get.
    fn finish(
        &self,
        lookup: &Lookup,
        result: Result<Found, StoreError>,
    ) -> Result<Found, StoreError> {
        let mut table = lock(&self.table);
        // A lookup that began before an invalidation may be outdated.
        if !table.remove_lookup(lookup) {
            return result;
        }
        let Lookup { hash, looked_up_at, .. } = *lookup;
        match &result {
            Ok(Some(record)) => {
                table.unknown.remove(&hash);
                let entry = Entry { record: record.clone(), looked_up_at };
                table.records.insert(hash, entry, self.capacity);
            }
            Ok(None) => {
                table.records.remove(&hash);
                table.unknown.insert(hash, looked_up_at, self.capacity);
            }
            Err(error) if error.kind() == StoreErrorKind::Unavailable => {
                let usable = self.time_to_live.saturating_add(self.stale_if_error);
                let entry = table.records.get(&hash, self.capacity);
                if let Some(stale) =
                    entry.filter(|entry| is_within(entry.looked_up_at, usable, self.clock.now()))
                {
                    tracing::warn!(source = ?error, "key lookup failed: using the cached record");
                    return Ok(Some(stale.record.clone()));
                }
            }
            Err(_) => {}
        }
        result
    }
}

impl KeyStore for CachedKeys {
    fn find(&self, key: &SecretKey) -> StoreFuture<Found> {
        let (hash, now) = (key.hash(), self.clock.now());
        if let Some(found) = self.cached(&hash, now) {
            return StoreFuture::ready(Ok(found));
        }
        let lookup = self.lookup(key, hash, now);
        StoreFuture::pending(poll_fn(move |cx| lookup.poll(cx)))
    }
}

/// Shows the settings alone.
impl fmt::Debug for CachedKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CachedKeys")
            .field("time_to_live", &self.time_to_live)
            .field("unknown_time_to_live", &self.unknown_time_to_live)
            .field("stale_if_error", &self.stale_if_error)
            .field("capacity", &self.capacity)
            .finish_non_exhaustive()
    }
}

/// Whether less than `duration` has passed since `start`.
fn is_within(start: SystemTime, duration: Duration, now: SystemTime) -> bool {
    now.duration_since(start).is_ok_and(|age| age < duration)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[derive(Default)]
struct Table {
    records: Generations<Entry>,
    /// Beginning of the last lookup of each key that the store does not know.
    unknown: Generations<SystemTime>,
    /// The lookups that requests wait for.
    lookups: HashMap<KeyHash, Weak<Lookup>, RandomState>,
}

struct Entry {
    record: Arc<KeyRecord>,
    looked_up_at: SystemTime,
}

impl Table {
    /// Removes this lookup. Returns `false` if another one, or none, has taken its place.
    fn remove_lookup(&mut self, lookup: &Lookup) -> bool {
        let current = self.lookups.get(&lookup.hash);
        let is_current = current.is_some_and(|current| ptr::eq(current.as_ptr(), lookup));
        if is_current {
            self.lookups.remove(&lookup.hash);
        }
        is_current
    }
}

/// Map with a maximum number of entries. When the younger half is full, it becomes the older one, whose
/// entries are dropped, except those that were used since.
struct Generations<V> {
    young: HashMap<KeyHash, V, RandomState>,
    old: HashMap<KeyHash, V, RandomState>,
}

impl<V> Default for Generations<V> {
    fn default() -> Self {
        Self { young: HashMap::default(), old: HashMap::default() }
    }
}

impl<V> Generations<V> {
    fn get(&mut self, hash: &KeyHash, capacity: usize) -> Option<&V> {
        if let Some(value) = self.old.remove(hash) {
            self.insert(*hash, value, capacity);
        }
        self.young.get(hash)
    }

    fn insert(&mut self, hash: KeyHash, value: V, capacity: usize) {
        self.old.remove(&hash);
        if self.young.len() >= (capacity / 2).max(1) && !self.young.contains_key(&hash) {
            mem::swap(&mut self.young, &mut self.old);
            self.young.clear();
        }
        self.young.insert(hash, value);
    }

    fn remove(&mut self, hash: &KeyHash) {
        self.young.remove(hash);
        self.old.remove(hash);
    }

    fn retain(&mut self, keep: impl Fn(&V) -> bool) {
        self.young.retain(|_, value| keep(value));
        self.old.retain(|_, value| keep(value));
    }
}

/// A lookup in the store, for which all requests with the key wait. Whichever of them is polled
/// drives it, so that none depends on another.
struct Lookup {
    hash: KeyHash,
    looked_up_at: SystemTime,
    cache: CachedKeys,
    state: Mutex<LookupState>,
    waiting: Arc<Waiting>,
}

enum LookupState {
    Running(StoreFuture<Found>),
    Done(Result<Found, StoreError>),
}

impl Lookup {
    fn poll(&self, cx: &Context<'_>) -> Poll<Result<Found, StoreError>> {
        self.waiting.add(cx.waker());
        let mut state = lock(&self.state);
        let future = match &mut *state {
            LookupState::Running(future) => future,
            LookupState::Done(result) => return Poll::Ready(result.clone()),
        };
        let waker = Waker::from(self.waiting.clone());
        let result = ready!(Pin::new(future).poll(&mut Context::from_waker(&waker)));
        let result = self.cache.finish(self, result);
        *state = LookupState::Done(result.clone());
        drop(state);
        self.waiting.wake_by_ref();
        Poll::Ready(result)
    }
}

/// No request waits any longer.
impl Drop for Lookup {
    fn drop(&mut self) {
        lock(&self.cache.table).remove_lookup(self);
    }
}

/// The tasks that wait for a lookup.
#[derive(Default)]
struct Waiting(Mutex<Vec<Waker>>);

impl Waiting {
    fn add(&self, waker: &Waker) {
        let mut wakers = lock(&self.0);
        if !wakers.iter().any(|known| known.will_wake(waker)) {
            wakers.push(waker.clone());
        }
    }
}

impl Wake for Waiting {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        let wakers = mem::take(&mut *lock(&self.0));
        wakers.into_iter().for_each(Waker::wake);
    }
}
