#[cfg(any(feature = "sqlite", test))]
use std::time::Duration;
#[cfg(feature = "postgres")]
use std::time::Instant;
use std::{
    borrow::Cow,
    ptr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, ready},
};

#[cfg(feature = "postgres")]
use super::journal::ShareUse;
#[cfg(any(feature = "sqlite", test))]
use super::lease::Extension;
use super::{
    Counter, Durability, Engine,
    granted::Granted,
    journal::{ChangeBeside, CountChange, Further, Lsn, Record},
};
use crate::{
    clock::{Period, unix_millis},
    error::StoreError,
    key::{KeyId, Limit},
    store::{
        Admission, Demand, Refund, Reservation, StoreFuture,
        counter::{Count, LockedCounters, MAX_UNITS, Origin},
        quota::{ReservedUnits, same_counter},
    },
};

#[cfg(any(feature = "sqlite", test))]
use crate::store::{ReserveAllOutcome, ReserveOutcome};

/// Extension of a lease: a share has none.
#[cfg(not(any(feature = "sqlite", test)))]
type Extension = std::convert::Infallible;

/// Maximum delay of the sync of a lease that is not urgent, so that the leases of many keys share one sync.
#[cfg(any(feature = "sqlite", test))]
const MAX_LEASE_SYNC_DELAY: Duration = Duration::from_millis(20);

impl Engine {
    /// Reserves units of a loaded counter.
    #[cfg(any(feature = "sqlite", test))]
    pub(crate) fn reserve(
        self: &Arc<Self>,
        counter: Arc<Counter>,
        demand: &Demand,
    ) -> Result<ReserveOutcome, StoreError> {
        self.check_admission()?;
        let opens = self.opens(demand);
        let (taken, status) = counter.reserve(demand, &self.calendar, |count, granted| {
            self.charge(&counter, demand, opens, count, granted)
        })?;
        Ok(match taken {
            Some(taken) => {
                let reservation = self.hold(counter, demand, opens, taken);
                ReserveOutcome::Admitted { reservation, status }
            }
            None => ReserveOutcome::Exhausted(status),
        })
    }

    /// Reserves units of loaded counters, those of all demands or none.
    #[cfg(any(feature = "sqlite", test))]
    pub(crate) fn reserve_all(
        self: &Arc<Self>,
        counters: &[Arc<Counter>],
        demands: &[Demand],
    ) -> Result<ReserveAllOutcome, StoreError> {
        self.check_admission()?;
        let mut locked = self.lock(counters, demands)?;
        let exhausted = locked.exhausted();
        if !exhausted.is_empty() {
            return Ok(ReserveAllOutcome::Exhausted(exhausted));
        }
        self.charge_all(counters, demands, &mut locked).map(ReserveAllOutcome::Admitted)
    }

    /// Locks the counters of demands.
    pub(super) fn lock<'a>(
        &'a self,
        counters: &'a [Arc<Counter>],
        demands: &'a [Demand],
    ) -> Result<LockedCounters<'a, Granted>, StoreError> {
        let locked = LockedCounters::lock(counters, demands, &self.calendar);
        locked.ok_or_else(same_counter)
    }

    /// Charges the units of all demands, for which there are enough.
    pub(super) fn charge_all(
        self: &Arc<Self>,
        counters: &[Arc<Counter>],
        demands: &[Demand],
        locked: &mut LockedCounters<'_, Granted>,
    ) -> Result<Vec<ReservedUnits>, StoreError> {
        // The first demand opens the request, and its change has the others beside it, so that a record is of all or none.
        let opens = demands.first().is_some_and(|demand| self.opens(demand));
        let begins = |index| opens && index == 0;
        let (mut first, mut extensions) = (None, Vec::with_capacity(demands.len()));
        for (index, (demand, locked)) in locked.iter_mut().enumerate() {
            let key = locked.key();
            let (count, granted) = locked.state();
            let (change, extension) = self.change(demand, begins(index), count, granted);
            extensions.push(extension);
            match &mut first {
                None => first = Some((key, change)),
                Some((_, CountChange { further, .. })) => {
                    further.beside.push(ChangeBeside { key: Cow::Owned(key.clone()), change });
                }
            }
        }
        let Some((key, change)) = first else { return Ok(Vec::new()) };
        let end = self.journal.append(Record::count(key, change))?;
        let charged = locked.iter_mut().zip(extensions).map(|((demand, locked), extension)| {
            let (count, granted) = locked.state();
            (count.origin(), self.apply(demand, count, granted, extension, end))
        });
        let charged: Vec<_> = charged.collect();
        let statuses = locked.charge();
        let admitted = counters.iter().zip(demands).zip(charged).zip(statuses).enumerate();
        Ok(admitted
            .map(|(index, (((counter, demand), taken), status))| {
                (self.hold(counter.clone(), demand, begins(index), taken), status)
            })
            .collect())
    }

    /// Returns an error if nothing may be admitted.
    pub(super) fn check_admission(&self) -> Result<(), StoreError> {
        self.is_open()?;
        self.damage.check()
    }

    /// Returns whether the units open a request. Those of a request that is open already end with it.
    pub(super) fn opens(&self, demand: &Demand) -> bool {
        self.expects_events() && !self.is_open_request(demand)
    }

    /// Returns the reservation of units that were charged.
    pub(super) fn hold(
        self: &Arc<Self>,
        counter: Arc<Counter>,
        demand: &Demand,
        opens: bool,
        (origin, gate): (Origin, Lsn),
    ) -> Box<dyn Reservation> {
        let open = opens.then(|| {
            let (engine, counter) = (self.clone(), counter.clone());
            Arc::new(OpenRequest { engine, counter, origin, ended: false.into() })
        });
        Box::new(EngineReservation {
            engine: self.clone(),
            counter,
            origin,
            open,
            limit: demand.limit,
            amount: demand.amount,
            gate,
            state: State::Spent,
        })
    }

    /// Returns whether the units are needed by a request of the same subject that is on record.
    fn is_open_request(&self, demand: &Demand) -> bool {
        let admission = demand.admission.as_ref();
        let open = admission.and_then(|admission| admission.downcast_ref::<OpenRequest>());
        open.is_some_and(|open| {
            ptr::eq(&*open.engine, self) && open.counter.key().subject == demand.subject
        })
    }

    /// Appends the use of the units before their request is forwarded, which they may open. Returns their origin and the LSN
    /// that must be durable before the response.
    pub(super) fn charge(
        &self,
        counter: &Counter,
        demand: &Demand,
        opens: bool,
        count: &Count,
        granted: &mut Granted,
    ) -> Result<(Origin, Lsn), StoreError> {
        let (change, extension) = self.change(demand, opens, count, granted);
        let end = self.journal.append(Record::count(counter.key(), change))?;
        Ok((count.origin(), self.apply(demand, count, granted, extension, end)))
    }

    /// Returns the change of the count, and the extension of the lease if one is due.
    fn change(
        &self,
        demand: &Demand,
        opens: bool,
        count: &Count,
        granted: &mut Granted,
    ) -> (CountChange, Option<Extension>) {
        let opened_on = (opens && demand.quota.period() != Period::Day)
            .then(|| self.calendar.window(demand.at).day);
        let mut change = CountChange {
            used: change(0, demand.amount),
            used_at: Some(unix_millis(demand.at)),
            open: opens.into(),
            further: Further { opened_on, ..Further::default() },
            ..CountChange::of(count.origin())
        };
        let extension = match granted {
            #[cfg(any(feature = "sqlite", test))]
            Granted::Journaled(lease) => {
                let is_durable = |end| self.journal.is_durable(end);
                let (amount, at) = (demand.amount, demand.at);
                let extension = self
                    .lease_limit(demand)
                    .and_then(|limit| lease.extension(count.used, amount, limit, at, is_durable));
                let recorded = extension.as_ref().filter(|extension| extension.is_recorded);
                change.granted = recorded.map(|extension| extension.granted);
                extension
            }
            #[cfg(feature = "postgres")]
            Granted::Shared(share) => {
                let spent = share.spent().saturating_add(demand.amount).min(MAX_UNITS);
                change.further.share = Some(ShareUse { spent, returned: 0 });
                None
            }
        };
        (change, extension)
    }

    /// Applies a change that was appended and is durable from `end` on. Returns the LSN that must be durable before the
    /// response.
    #[cfg_attr(
        not(any(feature = "sqlite", test)),
        expect(unused_variables, reason = "a share depends on no count, and has no extension")
    )]
    fn apply(
        &self,
        demand: &Demand,
        count: &Count,
        granted: &mut Granted,
        extension: Option<Extension>,
        end: Lsn,
    ) -> Lsn {
        let gate = match granted {
            #[cfg(any(feature = "sqlite", test))]
            Granted::Journaled(lease) => {
                if let Some(extension) = extension {
                    lease.extend(&extension, end);
                    if !extension.is_urgent {
                        self.journal.sync_within(MAX_LEASE_SYNC_DELAY);
                    }
                }
                self.lease_limit(demand).map(|_| lease.gate(count.used + demand.amount))
            }
            // After a power failure all units of the share count as used.
            #[cfg(feature = "postgres")]
            Granted::Shared(share) => {
                share.spend(demand.amount, Instant::now());
                None
            }
        };
        match self.durability {
            Durability::Power => end,
            Durability::Process => gate.unwrap_or_default(),
        }
    }

    /// Returns the limit of a demand that needs a lease: it does not if each unit is synced, or without a limit.
    #[cfg(any(feature = "sqlite", test))]
    fn lease_limit(&self, demand: &Demand) -> Option<u64> {
        let limit = demand.limit.units().map(|limit| limit.min(MAX_UNITS));
        limit.filter(|_| self.durability == Durability::Process)
    }
}

/// Returns the change of the count when `to` units are charged instead of `from`.
fn change(from: u64, to: u64) -> i64 {
    let difference = i64::try_from(from.abs_diff(to)).unwrap_or(i64::MAX);
    if to < from { -difference } else { difference }
}

/// Reserved units of one request.
struct EngineReservation {
    engine: Arc<Engine>,
    counter: Arc<Counter>,
    /// Period from which the units were taken.
    origin: Origin,
    /// Record of the request that the units have opened.
    open: Option<Arc<OpenRequest>>,
    limit: Limit,
    /// Number of charged units.
    amount: u64,
    /// LSN that must be durable before the response.
    gate: Lsn,
    state: State,
}

/// State of a reservation.
#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    /// The units are charged.
    Spent,
    /// The units were refunded.
    Returned,
    /// The reservation could not be made durable: the units are not charged, and the request is rejected.
    Discarded,
}

impl Reservation for EngineReservation {
    fn commit(&mut self) {
        self.engine.journal.sync_to(self.gate);
    }

    fn poll_committed(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), StoreError>> {
        if self.state == State::Discarded {
            return Poll::Ready(Err(not_durable()));
        }
        self.commit();
        let durable = ready!(self.engine.journal.poll_durable(self.gate, cx));
        Poll::Ready(durable.inspect_err(|_| self.discard()))
    }

    fn settle(&mut self, actual: u64) -> StoreFuture<()> {
        self.charge_actual(actual);
        StoreFuture::ready(Ok(()))
    }

    fn refund(&mut self, refund: Refund) -> StoreFuture<bool> {
        StoreFuture::ready(Ok(self.return_units(refund)))
    }

    fn admission(&self) -> Option<Admission> {
        self.open.clone().map(Admission::new)
    }
}

impl EngineReservation {
    fn append(&self, change: CountChange) -> Option<Lsn> {
        self.engine.journal.append_or_hold(Record::count(self.counter.key(), change))
    }

    fn charge_actual(&mut self, actual: u64) {
        let actual = actual.min(MAX_UNITS);
        if self.state != State::Spent || actual == self.amount {
            return;
        }
        let (from, mut written) = (self.amount, None);
        let is_current = self.counter.settle(self.origin, from, actual, |left, granted| {
            written = self.append(self.regrant(from, actual, left, granted));
        });
        if !is_current {
            let used = change(from, actual);
            written = self.append(CountChange { used, ..CountChange::of(self.origin) });
        }
        self.amount = actual;
        if self.engine.durability == Durability::Power {
            self.gate = written.unwrap_or(self.gate);
        }
    }

    fn return_units(&mut self, refund: Refund) -> bool {
        if self.state != State::Spent {
            return false;
        }
        let (amount, mut written) = (self.amount, None);
        let refunded =
            self.counter.refund(self.origin, amount, self.limit, refund, |left, granted| {
                written = self.append(CountChange {
                    refunded: if refund == Refund::UpToLimit { amount } else { 0 },
                    ..self.regrant(amount, 0, left, granted)
                });
                true
            });
        if refunded {
            self.state = State::Returned;
            if self.engine.durability == Durability::Power {
                match written {
                    Some(end) => self.gate = end,
                    None => self.state = State::Discarded,
                }
            }
        }
        refunded
    }

    /// Returns the change of what is granted when `to` units are charged instead of `from`, and `left` are used in all.
    #[cfg_attr(
        not(any(feature = "sqlite", test)),
        expect(unused_variables, reason = "a share does not depend on the count")
    )]
    fn regrant(&self, from: u64, to: u64, left: u64, granted: &mut Granted) -> CountChange {
        let mut change = CountChange { used: change(from, to), ..CountChange::of(self.origin) };
        match granted {
            // Without a limit, this ends a lease from before the limit was removed.
            #[cfg(any(feature = "sqlite", test))]
            Granted::Journaled(lease) => {
                lease.reduce(left, self.limit.units().unwrap_or_default());
                change.granted = lease.to_record(left);
            }
            #[cfg(feature = "postgres")]
            Granted::Shared(share) => {
                let returned = from.saturating_sub(to);
                if returned == 0 {
                    share.spend(to - from, Instant::now());
                } else if share.give_back(returned) {
                    self.engine.hurry();
                }
                change.further.share = Some(ShareUse { spent: share.spent(), returned });
            }
        }
        change
    }

    /// Removes the charge of units that could not be made durable.
    fn discard(&mut self) {
        if self.state == State::Spent {
            let hold = |change| {
                self.engine.journal.hold(Record::count(self.counter.key(), change));
            };
            let amount = self.amount;
            let is_current = self.counter.settle(self.origin, amount, 0, |left, granted| {
                hold(self.regrant(amount, 0, left, granted));
            });
            if !is_current {
                hold(CountChange { used: change(amount, 0), ..CountChange::of(self.origin) });
            }
        }
        self.state = State::Discarded;
    }
}

/// An admitted request in the journal. It ends with its usage entry or, without one, when this is
/// dropped. Requests still open at the end of the process count as failed.
pub(super) struct OpenRequest {
    engine: Arc<Engine>,
    counter: Arc<Counter>,
    origin: Origin,
    ended: AtomicBool,
}

impl OpenRequest {
    /// Ends the request with a usage entry. Returns `true` once, if the engine and the key are those of the
    /// request.
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
            self.engine.journal.append_or_hold(Record::count(self.counter.key(), change));
        }
    }
}

fn not_durable() -> StoreError {
    StoreError::unavailable("the units could not be made durable")
}
