use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant, SystemTime},
};

#[cfg(any(feature = "sqlite", test))]
use super::lease::Lease;
#[cfg(feature = "postgres")]
use super::share::Share;
use super::{
    Ledger,
    damage::Damage,
    granted::Granted,
    journal::{Journal, Record, UsageEntry},
    meter::Meter,
    queue::{self, Queue},
    reservation::OpenRequest,
};
use crate::{
    clock::{Calendar, Clock, Day},
    error::StoreError,
    limit::Gcra,
    store::{
        Admission, RequestOutcome, Tokens, UsageEvent,
        counter::{Count, CounterKey, PeriodCounter},
        sync::{Mutex, SharedMap, lock},
    },
};

/// Number of slots of the rate limit for rows of rejected requests, independent of the number of keys.
const ROW_SLOTS: usize = 4096;
/// Maximum number of rejected requests of a key that are kept as rows in a burst.
const ROW_BURST: u64 = 20;
/// Interval after which one more rejected request of a key is kept as a row.
const ROW_INTERVAL: Duration = Duration::from_secs(3);

/// Time after the end of its period for which a counter stays in memory.
const EVICTION_DELAY: Duration = Duration::from_secs(24 * 3600);

/// Counter of a subject with its granted units.
pub(crate) type Counter = PeriodCounter<Granted>;

/// Durability of a unit at the time at which the response of its request is sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Durability {
    /// Counts are exact after the end of the process, including `kill -9`. After a power failure
    /// they never exceed the limit, but up to 512 units of each counter (and a sixteenth of those left in
    /// its period) may count as used that were not.
    #[default]
    Process,
    /// Counts are exact after the end of the process and after a power failure, because each unit
    /// is synced to disk.
    Power,
}

/// Options of an engine.
pub(crate) struct EngineOptions {
    pub(crate) calendar: Calendar,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) durability: Durability,
    /// Number of days for which rows of single requests are kept; 0 keeps none.
    pub(crate) retention_days: u32,
}

/// State shared by callers, the writer and the other threads.
pub(crate) struct Engine {
    pub(crate) calendar: Calendar,
    pub(crate) clock: Arc<dyn Clock>,
    pub(super) durability: Durability,
    /// Time for which rows of single requests are kept, if any are.
    retention: Option<Duration>,
    /// Whether usage events end the requests. If not, none is on record as open.
    expects_events: AtomicBool,
    /// Rate limit of the rejected requests of a key that are kept as rows.
    rejected_rows: Gcra,
    pub(crate) journal: Arc<Journal>,
    /// Whether the ledger can be written. Set and cleared by the queue.
    open: Arc<AtomicBool>,
    counters: SharedMap<CounterKey, Arc<Counter>>,
    last_commit: Mutex<Option<Instant>>,
    pub(crate) damage: Damage,
    pub(super) meter: Meter,
    /// Starts a checkpoint at once.
    #[cfg(feature = "postgres")]
    hurry: std::sync::OnceLock<Box<dyn Fn() + Send + Sync>>,
}

impl Engine {
    pub(crate) fn new(options: EngineOptions, journal: Journal) -> Self {
        let EngineOptions { calendar, clock, durability, retention_days } = options;
        let seconds = u64::from(retention_days) * 24 * 60 * 60;
        Self {
            calendar,
            clock,
            durability,
            retention: (seconds > 0).then(|| Duration::from_secs(seconds)),
            expects_events: AtomicBool::new(false),
            rejected_rows: Gcra::new(ROW_SLOTS, ROW_BURST, ROW_INTERVAL),
            journal: Arc::new(journal),
            open: Arc::new(AtomicBool::new(true)),
            counters: SharedMap::default(),
            last_commit: Mutex::new(None),
            damage: Damage::new(),
            meter: Meter::new(),
            #[cfg(feature = "postgres")]
            hurry: std::sync::OnceLock::new(),
        }
    }

    /// Sets what starts a checkpoint when other nodes wait for units that are given back here.
    #[cfg(feature = "postgres")]
    pub(crate) fn set_hurry(&self, hurry: impl Fn() + Send + Sync + 'static) {
        let _ = self.hurry.set(Box::new(hurry));
    }

    #[cfg(feature = "postgres")]
    pub(super) fn hurry(&self) {
        self.hurry.get().into_iter().for_each(|hurry| hurry());
    }

    /// Creates the queue for the ledger's jobs, which opens and closes the engine.
    pub(crate) fn queue<L: Ledger>(&self) -> Queue<L> {
        Queue::new(self.open.clone())
    }

    /// Returns an error if nothing is admitted because the journal or the ledger cannot be written.
    pub(crate) fn is_open(&self) -> Result<(), StoreError> {
        if self.open.load(Ordering::Acquire) && !self.journal.has_failed() {
            return Ok(());
        }
        Err(queue::closed())
    }

    /// Runs `work` in one transaction of the ledger, with the next commit number, and records the commit in
    /// the journal.
    pub(crate) fn transaction<L: Ledger, T>(
        &self,
        ledger: &mut L,
        work: impl FnOnce(&L::Tables) -> Result<T, L::Error>,
    ) -> Result<T, L::Error> {
        let _timer = self.meter.time();
        let (done, commit) = ledger.transaction(self.journal.next_commit(), work)?;
        self.journal.note_commit(commit);
        Ok(done)
    }

    pub(super) fn note_checkpoint(&self) {
        *lock(&self.last_commit) = Some(Instant::now());
    }

    /// Returns whether a checkpoint was committed within this time.
    pub(crate) fn was_written_within(&self, time: Duration) -> bool {
        lock(&self.last_commit).is_some_and(|at| at.elapsed() < time)
    }

    /// Returns the current day.
    pub(crate) fn today(&self) -> Day {
        self.calendar.window(self.clock.now()).day
    }

    /// Returns the time before which rows of single requests are deleted; if none are kept, all are.
    pub(crate) fn retention_cutoff(&self) -> Option<SystemTime> {
        let now = self.clock.now();
        match self.retention {
            Some(time) => now.checked_sub(time),
            // A time in the future also covers rows that were written while the clock was ahead.
            None => now.checked_add(Duration::from_secs(u32::MAX.into())),
        }
    }

    /// Keeps a record of each request from now on until its event.
    pub(crate) fn expect_events(&self) {
        // Not stored with each event, as every request reads what is beside it.
        if !self.expects_events() {
            self.expects_events.store(true, Ordering::Relaxed);
        }
    }

    pub(super) fn expects_events(&self) -> bool {
        self.expects_events.load(Ordering::Relaxed)
    }

    /// Appends an event to the journal, if it belongs to a key.
    pub(crate) fn record(self: &Arc<Self>, mut event: UsageEvent) {
        self.expect_events();
        // Dropped at the end, as that may append a record.
        let admission = event.admission.take();
        event.tokens = event.tokens.map(Tokens::bounded);
        let Some(id) = &event.key_id else { return };
        let open = admission.as_ref().and_then(Admission::downcast_ref::<OpenRequest>);
        let closes = open.is_some_and(|open| open.close(self, id));
        let is_rejected = matches!(event.outcome, RequestOutcome::Rejected);
        // Without checkpoints, rejected requests must not let the journal or the memory grow.
        let only_summed = is_rejected && self.is_open().is_err();
        let keeps_row = self.retention.is_some()
            && (!is_rejected || !only_summed && self.rejected_rows.admit(id));
        let day = self.calendar.window(event.at).day;
        let record = Record::Usage(Box::new(UsageEntry::new(event, day, closes, keeps_row)));
        if only_summed {
            self.journal.hold(record);
        } else {
            self.journal.append_or_hold(record);
        }
    }

    /// Returns the counter, if it is loaded.
    pub(crate) fn counter(&self, key: &CounterKey) -> Option<Arc<Counter>> {
        self.counters.get(key).map(|counter| counter.clone())
    }

    /// Returns the counters of which this is true.
    #[cfg(feature = "postgres")]
    pub(crate) fn counters_where(&self, is: impl Fn(&Counter) -> bool) -> Vec<Arc<Counter>> {
        let counters = self.counters.iter().filter(|counter| is(counter));
        counters.map(|counter| counter.clone()).collect()
    }

    /// Inserts a loaded count, unless the counter exists. A counter in use is never evicted, so an existing
    /// one is newer than `count`.
    #[cfg(any(feature = "sqlite", test))]
    pub(crate) fn insert_counter(&self, key: CounterKey, count: Count) -> Arc<Counter> {
        self.insert(key, count, Granted::Journaled(Lease::default()))
    }

    /// Inserts a loaded count and the share of this node, unless the counter exists.
    #[cfg(feature = "postgres")]
    pub(crate) fn insert_shared_counter(
        &self,
        key: CounterKey,
        count: Count,
        share: Share,
    ) -> Arc<Counter> {
        self.insert(key, count, Granted::Shared(share))
    }

    fn insert(&self, key: CounterKey, count: Count, granted: Granted) -> Arc<Counter> {
        let new = || Arc::new(Counter::beside(key.clone(), count, granted));
        self.counters.entry(key.clone()).or_insert_with(new).clone()
    }

    /// Removes unused counters of past periods, unless units wait for a checkpoint: a counter that is loaded
    /// again must find them in the ledger. Called after a checkpoint.
    pub(super) fn evict_idle_counters(&self) {
        let at = self.clock.now().checked_sub(EVICTION_DELAY).unwrap_or(SystemTime::UNIX_EPOCH);
        self.counters.retain(|key, counter| {
            Arc::strong_count(counter) > 1
                || counter.count().day >= key.first_day(&self.calendar, at)
                || self.journal.is_pending(&key.subject)
        });
    }
}
