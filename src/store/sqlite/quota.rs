use std::{
    sync::Arc,
    task::{Context, Poll, ready},
    time::{Duration, SystemTime},
};

use rusqlite::Connection;

use super::{
    Durability, SqliteStore,
    block::Block,
    core::{Core, Counter},
    rows, unavailable,
};
use crate::{
    error::StoreError,
    key::KeyId,
    store::{
        Charge, LedgerId, QuotaStore, QuotaSubject, Refund, Standing, StoreFuture, UsageEvent,
        Verdict,
        counter::{Count, Origin},
        journal::{CountChange, Lsn, Record, UsageEntry, unix_millis},
    },
};

impl QuotaStore for SqliteStore {
    fn reserve(&self, subject: &QuotaSubject, at: SystemTime) -> StoreFuture<Verdict> {
        if let Some(counter) = self.0.core.counter(&subject.id) {
            return StoreFuture::ready(reserve(&self.0.core, counter, subject, at));
        }
        let (store, subject) = (self.clone(), subject.clone());
        StoreFuture::pending(async move {
            let counter = store.load_counter(&subject.id, at).await?;
            reserve(&store.0.core, counter, &subject, at)
        })
    }

    fn standing(&self, subject: &QuotaSubject, at: SystemTime) -> StoreFuture<Standing> {
        let (store, subject) = (self.clone(), subject.clone());
        StoreFuture::pending(async move {
            let counter = store.load_counter(&subject.id, at).await?;
            Ok(counter.standing(&subject, &store.0.core.calendar, at))
        })
    }
}

impl SqliteStore {
    /// The subject's counter, read from the file the first time. It stays as long as it is in use,
    /// so nothing can have been counted between the reading and its use.
    pub(super) async fn load_counter(
        &self,
        id: &KeyId,
        at: SystemTime,
    ) -> Result<Arc<Counter>, StoreError> {
        let core = &self.0.core;
        if let Some(counter) = core.counter(id) {
            return Ok(counter);
        }
        let (key_id, day) = (id.clone(), core.calendar.window(at).day);
        let known = || core.counter(id).map(|counter| counter.count());
        let read = move |connection: &Connection| {
            rows::read_count(connection, &key_id, day).map_err(unavailable)
        };
        let count = self.look_up(known, read).await?;
        let new = || Arc::new(Counter::new(count));
        Ok(core.counters.entry(id.clone()).or_insert_with(new).clone())
    }
}

/// Takes a unit of a counter that was loaded.
pub(super) fn reserve(
    core: &Arc<Core>,
    counter: Arc<Counter>,
    subject: &QuotaSubject,
    at: SystemTime,
) -> Result<Verdict, StoreError> {
    core.is_open()?;
    core.damage.check()?;
    let (taken, standing) = counter.reserve(subject, &core.calendar, at, |count, block| {
        core.charge(subject, at, count, block)
    })?;
    let Some((origin, gate)) = taken else {
        return Ok(Verdict::Exhausted(standing));
    };
    let (core, subject, state) = (core.clone(), subject.clone(), State::Reserved);
    let charge =
        SqliteCharge { core, counter, subject, origin, at, gate, state, awaits_event: false };
    Ok(Verdict::Admitted { charge: Box::new(charge), standing })
}

/// How long a block may wait for its sync that is not needed yet, so that those of many keys share
/// one.
const BLOCK_LINGER: Duration = Duration::from_millis(20);
/// How long a unit that is synced itself waits for others: most upstreams take longer.
const UNIT_LINGER: Duration = Duration::from_millis(2);

impl Core {
    /// Writes down what the next unit needs before its answer, and says what that must wait for.
    fn charge(
        &self,
        subject: &QuotaSubject,
        at: SystemTime,
        count: &Count,
        block: &mut Block,
    ) -> Result<(Origin, Lsn), StoreError> {
        let gate = match subject.daily_limit.limited() {
            Some(limit) if self.durability == Durability::Process => {
                self.charge_ahead(subject, limit, at, count, block)?
            }
            // Each unit is written down itself, or there is no limit that a loss of power could
            // exceed.
            _ => Lsn::default(),
        };
        Ok((count.origin(), gate))
    }

    fn charge_ahead(
        &self,
        subject: &QuotaSubject,
        limit: u64,
        at: SystemTime,
        count: &Count,
        block: &mut Block,
    ) -> Result<Lsn, StoreError> {
        let is_synced = |end| self.journal.is_synced(end);
        if let Some(extension) = block.extension(count.used, limit, at, is_synced) {
            let charged = Some(extension.charged);
            let change = CountChange { charged, ..CountChange::of(count.origin()) };
            let end = self.journal.append(&counted(subject, change, None))?;
            block.extend(&extension, end);
            if !extension.is_urgent {
                self.journal.sync_within(BLOCK_LINGER);
            }
        }
        Ok(block.gate(count.used + 1))
    }
}

/// One unit of the SQLite store.
struct SqliteCharge {
    core: Arc<Core>,
    counter: Arc<Counter>,
    subject: QuotaSubject,
    origin: Origin,
    at: SystemTime,
    /// What must be synced before the answer.
    gate: Lsn,
    state: State,
    /// Whether the request's event comes by itself.
    awaits_event: bool,
}

/// What became of a unit.
#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    /// It is taken in memory.
    Reserved,
    /// It is in the journal, too.
    Spent,
    /// It was given back.
    Returned,
    /// It could not be written down, so it is not charged.
    Lost,
}

impl Charge for SqliteCharge {
    fn commit(&mut self) {
        if self.core.durability == Durability::Power && self.state == State::Reserved {
            match self.core.journal.append(&self.spent(None)) {
                Ok(end) => (self.state, self.gate) = (State::Spent, end),
                Err(_) => self.lose(),
            }
        }
        self.core.journal.sync_to(self.gate, self.linger());
    }

    fn poll_committed(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), StoreError>> {
        self.commit();
        if self.state == State::Lost {
            return Poll::Ready(Err(lost()));
        }
        let synced = ready!(self.core.journal.poll_synced(self.gate, cx));
        Poll::Ready(synced.inspect_err(|_| self.lose()))
    }

    fn refund(&mut self, refund: Refund) -> bool {
        let was_spent = self.state == State::Spent;
        if !was_spent && self.state != State::Reserved {
            return false;
        }
        let refunded = refund == Refund::UpToLimit;
        let mut gate = self.gate;
        let given_back = self.counter.refund(self.origin, &self.subject, refund, |left, block| {
            let charged = self.surplus(left, block);
            if !was_spent && !refunded && charged.is_none() {
                return true;
            }
            let used = -i8::from(was_spent);
            let change = CountChange { used, refunded, charged, ..self.change() };
            let appended = self.core.journal.append(&counted(&self.subject, change, None));
            if appended.is_ok() {
                charged.into_iter().for_each(|charged| block.lower(charged));
            }
            appended.map(|end| gate = end).is_ok()
        });
        if given_back {
            self.state = State::Returned;
            if self.core.durability == Durability::Power {
                self.gate = gate;
            }
        }
        given_back
    }

    fn settle(&mut self, event: Option<&UsageEvent>) -> Result<(), StoreError> {
        // Another quota's subject is not whom the event is told of.
        let of_subject = event.filter(|event| event.key_id.as_ref() == Some(&self.subject.id));
        let usage = of_subject.map(|event| self.core.entry(event));
        let written = match self.state {
            State::Lost => return Err(lost()),
            State::Reserved => self.core.journal.append(&self.spent(usage)),
            State::Spent | State::Returned if usage.is_none() => Ok(Lsn::default()),
            State::Spent | State::Returned => {
                self.core.journal.append(&Record { id: &self.subject.id, count: None, usage })
            }
        };
        written.inspect_err(|_| self.lose())?;
        if self.state == State::Reserved {
            self.state = State::Spent;
        }
        if let Some(event) = event.filter(|_| of_subject.is_none()) {
            self.core.record(event);
        }
        Ok(())
    }

    fn await_event(&mut self) {
        self.awaits_event = true;
    }

    fn ledger(&self) -> Option<LedgerId> {
        Some(LedgerId::of(&self.core))
    }
}

impl SqliteCharge {
    /// How long the sync that the unit needs may wait for others.
    fn linger(&self) -> Duration {
        match self.core.durability {
            Durability::Power => UNIT_LINGER,
            Durability::Process => Duration::ZERO,
        }
    }

    /// How far the day may stay charged, if that is less than it is. Without a limit that is what
    /// was charged before the limit was lifted.
    fn surplus(&self, left: u64, block: &Block) -> Option<u64> {
        block.surplus(left, self.subject.daily_limit.limited().unwrap_or_default())
    }

    /// A change of the day that the unit is of.
    fn change(&self) -> CountChange {
        CountChange { awaits_event: self.awaits_event, ..CountChange::of(self.origin) }
    }

    /// The unit as used.
    fn spent<'a>(&'a self, usage: Option<UsageEntry<'a>>) -> Record<'a> {
        let used_at = Some(unix_millis(self.at));
        counted(&self.subject, CountChange { used: 1, used_at, ..self.change() }, usage)
    }

    /// The unit was not written down: it is not charged.
    fn lose(&mut self) {
        let hold = |change| self.core.journal.hold(&counted(&self.subject, change, None));
        if self.state == State::Spent {
            hold(CountChange { used: -1, ..self.change() });
        }
        if self.state != State::Returned {
            self.counter.undo(self.origin, |left, block| {
                if let Some(charged) = self.surplus(left, block) {
                    hold(CountChange { charged: Some(charged), ..CountChange::of(self.origin) });
                    block.lower(charged);
                }
            });
        }
        self.state = State::Lost;
    }
}

impl Drop for SqliteCharge {
    fn drop(&mut self) {
        if self.state == State::Reserved {
            self.core.journal.append_or_hold(&self.spent(None));
        }
    }
}

fn lost() -> StoreError {
    StoreError::unavailable("the unit could not be written down")
}

fn counted<'a>(
    subject: &'a QuotaSubject,
    change: CountChange,
    usage: Option<UsageEntry<'a>>,
) -> Record<'a> {
    Record { id: &subject.id, count: Some(change), usage }
}
