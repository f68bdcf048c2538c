use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, ready},
    time::{Duration, SystemTime},
};

use rusqlite::Connection;

use super::{
    Durability, SqliteStore,
    core::{Core, Counter},
    rows, unavailable,
};
use crate::{
    error::StoreError,
    key::KeyId,
    store::{
        Admission, QuotaStatus, QuotaStore, QuotaSubject, Refund, Reservation, ReserveOutcome,
        StoreFuture,
        engine::counter::{Count, Origin},
        engine::journal::{CountChange, Lsn, Record, unix_millis},
        engine::lease::Lease,
    },
};

impl QuotaStore for SqliteStore {
    fn reserve(&self, subject: &QuotaSubject, at: SystemTime) -> StoreFuture<ReserveOutcome> {
        if let Some(counter) = self.0.core.counter(&subject.id) {
            return StoreFuture::ready(reserve(&self.0.core, counter, subject, at));
        }
        let (store, subject) = (self.clone(), subject.clone());
        StoreFuture::pending(async move {
            let counter = store.load_counter(&subject.id, at).await?;
            reserve(&store.0.core, counter, &subject, at)
        })
    }

    fn status(&self, subject: &QuotaSubject, at: SystemTime) -> StoreFuture<QuotaStatus> {
        let (store, subject) = (self.clone(), subject.clone());
        StoreFuture::pending(async move {
            let counter = store.load_counter(&subject.id, at).await?;
            Ok(counter.status(&subject, &store.0.core.calendar, at))
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
) -> Result<ReserveOutcome, StoreError> {
    core.is_open()?;
    core.damage.check()?;
    let (taken, status) = counter.reserve(subject, &core.calendar, at, |count, lease| {
        core.charge(subject, at, count, lease)
    })?;
    let Some((origin, gate)) = taken else {
        return Ok(ReserveOutcome::Exhausted(status));
    };
    let open =
        OpenRequest { core: core.clone(), id: subject.id.clone(), origin, ended: false.into() };
    let charge = SqliteReservation {
        core: core.clone(),
        counter,
        subject: subject.clone(),
        origin,
        gate,
        state: State::Spent,
        open: Arc::new(open),
    };
    Ok(ReserveOutcome::Admitted { reservation: Box::new(charge), status })
}

/// How long a lease may wait for its sync that is not needed yet, so that those of many keys share
/// one.
const LEASE_LINGER: Duration = Duration::from_millis(20);
/// How long a unit that is synced itself waits for others: most upstreams take longer.
const UNIT_LINGER: Duration = Duration::from_millis(2);

impl Core {
    /// Writes the next unit down before its request goes on, and says what its answer must wait for.
    fn charge(
        &self,
        subject: &QuotaSubject,
        at: SystemTime,
        count: &Count,
        lease: &mut Lease,
    ) -> Result<(Origin, Lsn), StoreError> {
        let origin = count.origin();
        // Where each unit is synced itself, or no limit could be exceeded, none is granted ahead.
        let limit = subject.daily_limit.limited();
        let limit = limit.filter(|_| self.durability == Durability::Process);
        let is_durable = |end| self.journal.is_durable(end);
        let extension = limit.and_then(|limit| lease.extension(count.used, limit, at, is_durable));
        let end = self.journal.append(&Record::daily(
            &subject.id,
            CountChange {
                used: 1,
                used_at: Some(unix_millis(at)),
                granted: extension.as_ref().map(|extension| extension.granted),
                open: 1,
                ..CountChange::of(origin)
            },
        ))?;
        if let Some(extension) = extension {
            lease.extend(&extension, end);
            if !extension.is_urgent {
                self.journal.sync_within(LEASE_LINGER);
            }
        }
        let gate = match self.durability {
            Durability::Power => end,
            Durability::Process if limit.is_some() => lease.gate(count.used + 1),
            Durability::Process => Lsn::default(),
        };
        Ok((origin, gate))
    }
}

/// One unit of the SQLite store.
struct SqliteReservation {
    core: Arc<Core>,
    counter: Arc<Counter>,
    subject: QuotaSubject,
    origin: Origin,
    /// What must be synced before the answer.
    gate: Lsn,
    state: State,
    open: Arc<OpenRequest>,
}

/// What became of a unit.
#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    /// It is granted.
    Spent,
    /// It was given back.
    Returned,
    /// What was done with it could not be made durable: it is not granted, and its request is refused.
    Lost,
}

impl Reservation for SqliteReservation {
    fn commit(&mut self) {
        self.core.journal.sync_to(self.gate, self.linger());
    }

    fn poll_committed(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), StoreError>> {
        if self.state == State::Lost {
            return Poll::Ready(Err(lost()));
        }
        self.commit();
        let synced = ready!(self.core.journal.poll_durable(self.gate, cx));
        Poll::Ready(synced.inspect_err(|_| self.lose()))
    }

    fn refund(&mut self, refund: Refund) -> bool {
        if self.state != State::Spent {
            return false;
        }
        let mut written = None;
        let given_back = self.counter.refund(self.origin, &self.subject, refund, |left, lease| {
            let change = CountChange {
                used: -1,
                refunded: (refund == Refund::UpToLimit).into(),
                ..self.return_surplus(left, lease)
            };
            written = self.core.journal.append_or_hold(&Record::daily(&self.subject.id, change));
            true
        });
        if given_back {
            self.state = State::Returned;
            if self.core.durability == Durability::Power {
                match written {
                    Some(end) => self.gate = end,
                    None => self.state = State::Lost,
                }
            }
        }
        given_back
    }

    fn admission(&self) -> Option<Admission> {
        Some(Admission::new(self.open.clone()))
    }
}

impl SqliteReservation {
    /// How long the sync that the unit needs may wait for others.
    fn linger(&self) -> Duration {
        match self.core.durability {
            Durability::Power => UNIT_LINGER,
            Durability::Process => Duration::ZERO,
        }
    }

    /// A change by which the day stays granted ahead no further than it may be when `left` units are
    /// used. Without a limit that is what was granted before the limit was lifted.
    fn return_surplus(&self, left: u64, lease: &mut Lease) -> CountChange {
        let granted = lease.surplus(left, self.subject.daily_limit.limited().unwrap_or_default());
        granted.into_iter().for_each(|granted| lease.lower(granted));
        CountChange { granted, ..CountChange::of(self.origin) }
    }

    /// The unit could not be made durable: it is not granted.
    fn lose(&mut self) {
        if self.state == State::Spent {
            let hold = |change: CountChange| {
                let change = CountChange { used: -1, ..change };
                self.core.journal.hold(&Record::daily(&self.subject.id, change));
            };
            let undone = self
                .counter
                .undo(self.origin, |left, lease| hold(self.return_surplus(left, lease)));
            if !undone {
                hold(CountChange::of(self.origin));
            }
        }
        self.state = State::Lost;
    }
}

/// A request that is on record as admitted, until its usage entry or, if there is none, this is
/// dropped. What the end of the process leaves open has failed.
pub(super) struct OpenRequest {
    core: Arc<Core>,
    id: KeyId,
    origin: Origin,
    ended: AtomicBool,
}

impl OpenRequest {
    /// Whether the request ends with a usage entry of this key in this store: once.
    pub(super) fn close(&self, core: &Arc<Core>, id: &KeyId) -> bool {
        Arc::ptr_eq(&self.core, core) && self.id == *id && !self.ended.swap(true, Ordering::Relaxed)
    }
}

impl Drop for OpenRequest {
    fn drop(&mut self) {
        if !*self.ended.get_mut() {
            let change = CountChange { open: -1, ..CountChange::of(self.origin) };
            self.core.journal.append_or_hold(&Record::daily(&self.id, change));
        }
    }
}

fn lost() -> StoreError {
    StoreError::unavailable("the unit could not be made durable")
}
