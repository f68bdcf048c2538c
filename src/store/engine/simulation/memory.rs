//! Ledger in memory, which shows that the engine needs no more than [`Ledger`].

use std::{cell::RefCell, cmp::Ordering, collections::HashMap, error::Error, fmt, time::Duration};

use super::SimLedger;
use crate::{
    clock::Day,
    key::KeyId,
    store::{
        counter::{Count, CounterKey, Origin},
        engine::{
            Ledger, LedgerState, UnusedUnits,
            journal::{Commit, DatabaseId, Position, ReplayFrom},
            pending::{Delta, PendingBatch},
        },
    },
};

pub(crate) struct MemoryLedger {
    tables: Tables,
    commits: Box<dyn FnMut() -> bool + Send>,
    /// Number of commits that were reported as failed. Every other one was made nevertheless.
    failed: u32,
}

/// Tables in memory. A transaction works on a copy.
#[derive(Clone, Default)]
pub(crate) struct Tables(RefCell<State>);

#[derive(Clone, Default)]
struct State {
    commits: u64,
    position: Option<Position>,
    is_closed: bool,
    boot: Option<String>,
    days: HashMap<(CounterKey, Day), Count>,
    leases: HashMap<CounterKey, (Origin, u64)>,
    open_requests: i64,
    requests: u64,
}

#[derive(Debug)]
pub(crate) struct CommitFailed;

impl fmt::Display for CommitFailed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the commit has failed")
    }
}

impl Error for CommitFailed {}

impl State {
    fn add(&mut self, key: &CounterKey, origin: Origin, delta: &Delta) {
        let Origin { day, epoch } = origin;
        let new = Count { epoch, ..Count::new(day) };
        let count = self.days.entry((key.clone(), day)).or_insert(new);
        match count.epoch.cmp(&epoch) {
            Ordering::Less => *count = new,
            Ordering::Equal => {}
            // Units from before a reset no longer count.
            Ordering::Greater => return,
        }
        count.used = count.used.saturating_add_signed(delta.used);
        count.refunded = count.refunded.saturating_add_signed(delta.refunded);
    }

    fn lease(&mut self, key: &CounterKey, origin: Origin, granted: u64) {
        let order = |origin: Origin| (origin.epoch, origin.day);
        let lease = self.leases.entry(key.clone()).or_insert((origin, granted));
        if order(lease.0) <= order(origin) {
            *lease = (origin, granted);
        }
    }
}

impl SimLedger for MemoryLedger {
    fn reset(tables: &Tables, key: &CounterKey, day: Day) -> Result<u32, CommitFailed> {
        let mut state = tables.0.borrow_mut();
        let mut epoch = 0;
        for ((other, on), count) in &mut state.days {
            if other == key {
                epoch = epoch.max(count.epoch);
                if *on > day {
                    (count.used, count.refunded) = (0, 0);
                }
            }
        }
        let count = Count { epoch: epoch + 1, ..Count::new(day) };
        state.days.insert((key.clone(), day), count);
        Ok(count.epoch)
    }

    fn create(_: &[KeyId], commits: impl FnMut() -> bool + Send + 'static) -> Self {
        Self { tables: Tables::default(), commits: Box::new(commits), failed: 0 }
    }

    fn tables(&self) -> &Tables {
        &self.tables
    }

    fn load(tables: &Tables, key: &CounterKey, day: Day) -> Count {
        let state = tables.0.borrow();
        let counts =
            state.days.iter().filter(|((other, _), _)| other == key).map(|(_, count)| *count);
        let count = counts.max_by_key(|count| (count.epoch, count.day)).unwrap_or(Count::new(day));
        if count.day < day { count.on(day) } else { count }
    }

    fn requests(tables: &Tables) -> u64 {
        tables.0.borrow().requests
    }
}

impl Ledger for MemoryLedger {
    const MAX_INTERVAL: Duration = Duration::from_secs(3);

    type Tables = Tables;
    type Error = CommitFailed;

    fn transaction<T>(
        &mut self,
        number: u64,
        work: impl FnOnce(&Tables) -> Result<T, CommitFailed>,
    ) -> Result<(T, Commit), CommitFailed> {
        let changed = self.tables.clone();
        let done = work(&changed)?;
        changed.0.borrow_mut().commits = number;
        if !(self.commits)() {
            self.failed += 1;
            if self.failed.is_multiple_of(2) {
                self.tables = changed;
            }
            return Err(CommitFailed);
        }
        self.tables = changed;
        Ok((done, Commit { number, checkpointed: 0 }))
    }

    fn roll_back(&mut self) -> bool {
        false
    }

    fn may_be_committed(_: &CommitFailed) -> bool {
        true
    }

    fn resume(&mut self) -> Result<LedgerState, CommitFailed> {
        Self::state(&self.tables)
    }

    fn in_savepoint<T>(
        tables: &Tables,
        work: impl FnOnce(&Tables) -> Result<Option<T>, CommitFailed>,
    ) -> Result<Option<T>, CommitFailed> {
        let before = tables.0.borrow().clone();
        let done = work(tables)?;
        if done.is_none() {
            *tables.0.borrow_mut() = before;
        }
        Ok(done)
    }

    fn state(tables: &Tables) -> Result<LedgerState, CommitFailed> {
        let state = tables.0.borrow();
        let replay_from = match state.position {
            None => ReplayFrom::Start,
            Some(position) if state.is_closed => ReplayFrom::After(position.segment),
            Some(position) => ReplayFrom::Position(position),
        };
        let (database, boot) = (DatabaseId::default(), state.boot.clone());
        Ok(LedgerState { database, commits: state.commits, replay_from, boot })
    }

    fn checkpoint(tables: &Tables, batch: &PendingBatch) -> Result<(), CommitFailed> {
        let mut state = tables.0.borrow_mut();
        for (id, subject) in batch.subjects() {
            for (quota, origin, delta) in &subject.counts {
                let key = CounterKey { quota: *quota, subject: id.clone() };
                if delta.used != 0 || delta.refunded != 0 || delta.last_used_at.is_some() {
                    state.add(&key, *origin, delta);
                }
                if let Some(granted) = delta.granted {
                    state.lease(&key, *origin, granted);
                }
            }
            state.open_requests += subject.open;
            state.requests +=
                subject.figures.iter().map(|figures| figures.figures.requests).sum::<u64>();
        }
        if batch.position.is_some() {
            (state.position, state.is_closed) = (batch.position, false);
        }
        Ok(())
    }

    fn end_leases(tables: &Tables, unused: UnusedUnits) -> Result<(), CommitFailed> {
        let mut state = tables.0.borrow_mut();
        let leases = std::mem::take(&mut state.leases);
        if unused == UnusedUnits::Spent {
            for (key, (Origin { day, epoch }, granted)) in leases {
                let new = Count { epoch, ..Count::new(day) };
                let count = state.days.entry((key, day)).or_insert(new);
                if count.epoch == epoch {
                    count.used = count.used.max(granted);
                }
            }
        }
        Ok(())
    }

    fn fail_open_requests(tables: &Tables) -> Result<(), CommitFailed> {
        let mut state = tables.0.borrow_mut();
        let open = std::mem::take(&mut state.open_requests);
        state.requests += open.unsigned_abs();
        Ok(())
    }

    fn set_boot(tables: &Tables, boot: Option<&str>) -> Result<(), CommitFailed> {
        tables.0.borrow_mut().boot = boot.map(str::to_owned);
        Ok(())
    }

    fn close_journal(tables: &Tables) -> Result<(), CommitFailed> {
        tables.0.borrow_mut().is_closed = true;
        Ok(())
    }

    fn probe(_: &Tables) -> Result<(), CommitFailed> {
        Ok(())
    }
}
