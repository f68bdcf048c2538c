use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant, SystemTime},
};

use super::{
    Durability, SqliteOptions, cached_key::CachedKey, damage::Damage, queue, queue::Queue,
    quota::OpenRequest,
};
use crate::{
    clock::{Calendar, Clock, Day},
    error::StoreError,
    key::{DailyLimit, KeyHash, KeyId},
    store::{
        Admission, RequestOutcome, UsageEvent,
        engine::allowance::Allowance,
        engine::counter::DayCounter,
        engine::journal::{Journal, Record, UsageEntry},
        engine::lease::Lease,
        engine::sync::{Mutex, SharedMap, lock},
    },
};

/// A subject's count, and how far it is charged ahead.
pub(super) type Counter = DayCounter<Lease>;

/// What the callers and the writer thread share.
pub(super) struct Core {
    pub(super) calendar: Calendar,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) durability: Durability,
    pub(super) default_daily_limit: DailyLimit,
    /// How long single requests are kept beside the sums, if they are.
    keep_requests: Option<Duration>,
    /// Which refused requests are kept one by one.
    refused_rows: Allowance,
    pub(super) journal: Arc<Journal>,
    pub(super) queue: Queue,
    pub(super) counters: SharedMap<KeyId, Arc<Counter>>,
    keys: SharedMap<KeyHash, CachedKey>,
    generation: AtomicU64,
    /// When the file was last written.
    written: Mutex<Option<Instant>>,
    pub(super) damage: Damage,
}

impl Core {
    pub(super) fn new(options: &SqliteOptions, journal: Journal) -> Self {
        Self {
            calendar: options.calendar.clone(),
            clock: options.clock.clone(),
            durability: options.durability,
            default_daily_limit: options.default_daily_limit,
            keep_requests: options.retention(),
            refused_rows: Allowance::new(),
            journal: Arc::new(journal),
            queue: Queue::new(),
            counters: SharedMap::default(),
            keys: SharedMap::default(),
            generation: AtomicU64::new(0),
            written: Mutex::new(None),
            damage: Damage::new(),
        }
    }

    /// Whether units are admitted: not after the journal or the file could not be written.
    pub(super) fn is_open(&self) -> Result<(), StoreError> {
        if self.queue.is_open() && !self.journal.has_failed() {
            return Ok(());
        }
        Err(queue::closed())
    }

    /// A transaction was committed.
    pub(super) fn note_written(&self) {
        *lock(&self.written) = Some(Instant::now());
    }

    pub(super) fn was_written_within(&self, time: Duration) -> bool {
        lock(&self.written).is_some_and(|at| at.elapsed() < time)
    }

    pub(super) fn today(&self) -> Day {
        self.calendar.window(self.clock.now()).day
    }

    /// What the journal keeps of an event.
    fn entry<'a>(&self, event: &'a UsageEvent, closes: bool) -> UsageEntry<'a> {
        let day = self.calendar.window(event.at).day;
        let entry = UsageEntry::new(event, day, closes);
        if self.keep_requests.is_some() { entry.with_details(event) } else { entry }
    }

    /// Since when single requests are kept; of none, if they are not kept any more.
    pub(super) fn retention_cutoff(&self) -> Option<SystemTime> {
        let now = self.clock.now();
        match self.keep_requests {
            Some(time) => now.checked_sub(time),
            // Also those of a clock that was ahead.
            None => now.checked_add(Duration::from_secs(u32::MAX.into())),
        }
    }

    /// Writes an event down, if it tells of a key.
    pub(super) fn record(self: &Arc<Self>, event: &UsageEvent) {
        if let Some(id) = &event.key_id {
            let open = event.admission.as_ref().and_then(Admission::downcast_ref::<OpenRequest>);
            let closes = open.is_some_and(|open| open.close(self, id));
            let is_refused = matches!(event.outcome, RequestOutcome::Rejected);
            // While nothing is folded neither the journal nor memory may grow by what is refused.
            let only_summed = is_refused && self.is_open().is_err();
            let keeps_row = !is_refused || !only_summed && self.refused_rows.spend(id);
            let entry = self.entry(event, closes);
            let entry = if keeps_row { entry } else { entry.without_details() };
            let record = Record::Usage { key: id, entry };
            if only_summed {
                self.journal.hold(&record);
            } else {
                self.journal.append_or_hold(&record);
            }
        }
    }

    /// The subject's counter, if it was loaded.
    pub(super) fn counter(&self, id: &KeyId) -> Option<Arc<Counter>> {
        self.counters.get(id).map(|counter| counter.clone())
    }

    /// Forgets counters that were last used before yesterday: all that they counted was folded
    /// long ago.
    pub(super) fn forget_idle_counters(&self) {
        let yesterday = self.today().minus(1);
        self.counters.retain(|_, counter| {
            Arc::strong_count(counter) > 1 || counter.count().day >= yesterday
        });
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
