use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use super::{
    Counter, Durability, Engine,
    counter::{Count, Origin},
    journal::{CountChange, Lsn, Record, unix_millis},
    lease::Lease,
};
use crate::{
    error::StoreError,
    key::{DailyLimit, KeyId},
    store::{Admission, Demand, Refund, Reservation, ReserveOutcome},
};

/// How long the sync of a lease may wait that is not needed yet, so that those of many keys share one.
const LEASE_LINGER: Duration = Duration::from_millis(20);
/// How long units that are synced themselves wait for others: most upstreams take longer.
const UNIT_LINGER: Duration = Duration::from_millis(2);

impl Engine {
    /// Takes units of a counter that was loaded.
    pub(crate) fn reserve(
        self: &Arc<Self>,
        counter: Arc<Counter>,
        demand: &Demand,
    ) -> Result<ReserveOutcome, StoreError> {
        self.is_open()?;
        self.damage.check()?;
        let (taken, status) = counter.reserve(demand, &self.calendar, |count, lease| {
            self.charge(&counter, demand, count, lease)
        })?;
        let Some((origin, gate)) = taken else {
            return Ok(ReserveOutcome::Exhausted(status));
        };
        let open = OpenRequest {
            engine: self.clone(),
            counter: counter.clone(),
            origin,
            ended: false.into(),
        };
        let reservation = EngineReservation {
            engine: self.clone(),
            counter,
            limit: demand.limit,
            amount: demand.amount,
            origin,
            gate,
            state: State::Spent,
            open: Arc::new(open),
        };
        Ok(ReserveOutcome::Admitted { reservation: Box::new(reservation), status })
    }

    /// Appends the next units before their request is forwarded. Returns what its response must wait
    /// for.
    fn charge(
        &self,
        counter: &Counter,
        demand: &Demand,
        count: &Count,
        lease: &mut Lease,
    ) -> Result<(Origin, Lsn), StoreError> {
        let (origin, amount, at) = (count.origin(), demand.amount, demand.at);
        // Where units are synced themselves, or no limit could be exceeded, none is granted ahead.
        let limit = demand.limit.limited();
        let limit = limit.filter(|_| self.durability == Durability::Process);
        let is_durable = |end| self.journal.is_durable(end);
        let extension =
            limit.and_then(|limit| lease.extension(count.used, amount, limit, at, is_durable));
        let change = CountChange {
            used: change(0, amount),
            used_at: Some(unix_millis(at)),
            granted: extension.as_ref().map(|extension| extension.granted),
            open: 1,
            ..CountChange::of(origin)
        };
        let end = self.journal.append(&Record::Count { key: counter.key(), change })?;
        if let Some(extension) = extension {
            lease.extend(&extension, end);
            if !extension.is_urgent {
                self.journal.sync_within(LEASE_LINGER);
            }
        }
        let gate = match self.durability {
            Durability::Power => end,
            Durability::Process if limit.is_some() => lease.gate(count.used + amount),
            Durability::Process => Lsn::default(),
        };
        Ok((origin, gate))
    }
}

/// The change of a count when `to` units are charged instead of `from`.
fn change(from: u64, to: u64) -> i64 {
    let difference = i64::try_from(from.abs_diff(to)).unwrap_or(i64::MAX);
    if to < from { -difference } else { difference }
}

/// Units that were taken.
struct EngineReservation {
    engine: Arc<Engine>,
    counter: Arc<Counter>,
    limit: DailyLimit,
    /// Number of units that are charged.
    amount: u64,
    origin: Origin,
    /// What must be synced before the response.
    gate: Lsn,
    state: State,
    open: Arc<OpenRequest>,
}

/// What became of units.
#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    /// They are charged.
    Spent,
    /// They were given back.
    Returned,
    /// What was done with them could not be made durable: they are not charged, and their request is
    /// rejected.
    Lost,
}

impl Reservation for EngineReservation {
    fn commit(&mut self) {
        self.engine.journal.sync_to(self.gate, self.linger());
    }

    fn poll_committed(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), StoreError>> {
        if self.state == State::Lost {
            return Poll::Ready(Err(lost()));
        }
        self.commit();
        let durable = ready!(self.engine.journal.poll_durable(self.gate, cx));
        Poll::Ready(durable.inspect_err(|_| self.lose()))
    }

    fn settle(&mut self, actual: u64) {
        if self.state != State::Spent || actual == self.amount {
            return;
        }
        let used = change(self.amount, actual);
        let mut written = None;
        let is_current = self.counter.settle(self.origin, self.amount, actual, |left, lease| {
            written = self.append(CountChange { used, ..self.return_surplus(left, lease) });
        });
        if !is_current {
            written = self.append(CountChange { used, ..CountChange::of(self.origin) });
        }
        self.amount = actual;
        if self.engine.durability == Durability::Power {
            self.gate = written.unwrap_or(self.gate);
        }
    }

    fn refund(&mut self, refund: Refund) -> bool {
        if self.state != State::Spent {
            return false;
        }
        let (amount, mut written) = (self.amount, None);
        let refunded =
            self.counter.refund(self.origin, amount, self.limit, refund, |left, lease| {
                written = self.append(CountChange {
                    used: change(amount, 0),
                    refunded: if refund == Refund::UpToLimit { amount } else { 0 },
                    ..self.return_surplus(left, lease)
                });
                true
            });
        if refunded {
            self.state = State::Returned;
            if self.engine.durability == Durability::Power {
                match written {
                    Some(end) => self.gate = end,
                    None => self.state = State::Lost,
                }
            }
        }
        refunded
    }

    fn admission(&self) -> Option<Admission> {
        Some(Admission::new(self.open.clone()))
    }
}

impl EngineReservation {
    /// How long the sync that the units need may wait for others.
    fn linger(&self) -> Duration {
        match self.engine.durability {
            Durability::Power => UNIT_LINGER,
            Durability::Process => Duration::ZERO,
        }
    }

    fn append(&self, change: CountChange) -> Option<Lsn> {
        let record = Record::Count { key: self.counter.key(), change };
        self.engine.journal.append_or_hold(&record)
    }

    /// A change by which the day stays granted no further than it may be when `left` units are used.
    /// Without a limit that is what was granted before the limit was lifted.
    fn return_surplus(&self, left: u64, lease: &mut Lease) -> CountChange {
        let granted = lease.surplus(left, self.limit.limited().unwrap_or_default());
        granted.into_iter().for_each(|granted| lease.lower(granted));
        CountChange { granted, ..CountChange::of(self.origin) }
    }

    /// The units could not be made durable: they are not charged.
    fn lose(&mut self) {
        if self.state == State::Spent {
            let used = change(self.amount, 0);
            let hold = |change: CountChange| {
                let change = CountChange { used, ..change };
                self.engine.journal.hold(&Record::Count { key: self.counter.key(), change });
            };
            let is_current = self.counter.settle(self.origin, self.amount, 0, |left, lease| {
                hold(self.return_surplus(left, lease));
            });
            if !is_current {
                hold(CountChange::of(self.origin));
            }
        }
        self.state = State::Lost;
    }
}

/// A request that is on record as admitted, until its usage entry or, if there is none, this is
/// dropped. What the end of the process leaves open has failed.
pub(super) struct OpenRequest {
    engine: Arc<Engine>,
    counter: Arc<Counter>,
    origin: Origin,
    ended: AtomicBool,
}

impl OpenRequest {
    /// Whether the request ends with a usage entry of this key in this store: once.
    pub(super) fn close(&self, engine: &Arc<Engine>, id: &KeyId) -> bool {
        Arc::ptr_eq(&self.engine, engine)
            && self.counter.key().subject == *id
            && !self.ended.swap(true, Ordering::Relaxed)
    }
}

impl Drop for OpenRequest {
    fn drop(&mut self) {
        if !*self.ended.get_mut() {
            let change = CountChange { open: -1, ..CountChange::of(self.origin) };
            let record = Record::Count { key: self.counter.key(), change };
            self.engine.journal.append_or_hold(&record);
        }
    }
}

fn lost() -> StoreError {
    StoreError::unavailable("the units could not be made durable")
}
