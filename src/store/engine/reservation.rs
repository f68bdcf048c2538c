use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, ready},
    time::{Duration, SystemTime},
};

use super::{
    Counter, Durability, Engine,
    counter::{Count, Origin},
    journal::{CountChange, Lsn, Record, unix_millis},
    lease::Lease,
};
use crate::{
    error::StoreError,
    key::KeyId,
    store::{Admission, QuotaSubject, Refund, Reservation, ReserveOutcome},
};

/// How long the sync of a lease may wait that is not needed yet, so that those of many keys share one.
const LEASE_LINGER: Duration = Duration::from_millis(20);
/// How long a unit that is synced itself waits for others: most upstreams take longer.
const UNIT_LINGER: Duration = Duration::from_millis(2);

impl Engine {
    /// Takes a unit of a counter that was loaded.
    pub(crate) fn reserve(
        self: &Arc<Self>,
        counter: Arc<Counter>,
        subject: &QuotaSubject,
        at: SystemTime,
    ) -> Result<ReserveOutcome, StoreError> {
        self.is_open()?;
        self.damage.check()?;
        let (taken, status) = counter.reserve(subject, &self.calendar, at, |count, lease| {
            self.charge(subject, at, count, lease)
        })?;
        let Some((origin, gate)) = taken else {
            return Ok(ReserveOutcome::Exhausted(status));
        };
        let open = OpenRequest {
            engine: self.clone(),
            id: subject.id.clone(),
            origin,
            ended: false.into(),
        };
        let reservation = EngineReservation {
            engine: self.clone(),
            counter,
            subject: subject.clone(),
            origin,
            gate,
            state: State::Spent,
            open: Arc::new(open),
        };
        Ok(ReserveOutcome::Admitted { reservation: Box::new(reservation), status })
    }

    /// Writes the next unit down before its request is forwarded. Returns what its response must wait for.
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

/// A unit that was taken.
struct EngineReservation {
    engine: Arc<Engine>,
    counter: Arc<Counter>,
    subject: QuotaSubject,
    origin: Origin,
    /// What must be synced before the response.
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

impl Reservation for EngineReservation {
    fn commit(&mut self) {
        self.engine.journal.sync_to(self.gate, self.linger());
    }

    fn poll_committed(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), StoreError>> {
        if self.state == State::Lost {
            return Poll::Ready(Err(lost()));
        }
        self.commit();
        let synced = ready!(self.engine.journal.poll_durable(self.gate, cx));
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
            written = self.engine.journal.append_or_hold(&Record::daily(&self.subject.id, change));
            true
        });
        if given_back {
            self.state = State::Returned;
            if self.engine.durability == Durability::Power {
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

impl EngineReservation {
    /// How long the sync that the unit needs may wait for others.
    fn linger(&self) -> Duration {
        match self.engine.durability {
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
                self.engine.journal.hold(&Record::daily(&self.subject.id, change));
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
    engine: Arc<Engine>,
    id: KeyId,
    origin: Origin,
    ended: AtomicBool,
}

impl OpenRequest {
    /// Whether the request ends with a usage entry of this key in this store: once.
    pub(super) fn close(&self, engine: &Arc<Engine>, id: &KeyId) -> bool {
        Arc::ptr_eq(&self.engine, engine)
            && self.id == *id
            && !self.ended.swap(true, Ordering::Relaxed)
    }
}

impl Drop for OpenRequest {
    fn drop(&mut self) {
        if !*self.ended.get_mut() {
            let change = CountChange { open: -1, ..CountChange::of(self.origin) };
            self.engine.journal.append_or_hold(&Record::daily(&self.id, change));
        }
    }
}

fn lost() -> StoreError {
    StoreError::unavailable("the unit could not be made durable")
}
