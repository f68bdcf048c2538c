//! Reservations of units that a ledger shares among nodes, and the trips to it.

use std::{
    pin::pin,
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::{
    sync::Notify,
    time::{error::Elapsed, timeout, timeout_at},
};

use super::{
    Counter, Engine,
    granted::Granted,
    share::{Hearing, ReportedLease, Share, ShareRequest, ShareResponse, Step},
};
use crate::{
    clock::Day,
    error::StoreError,
    store::{
        Demand, ReserveAllOutcome, ReserveOutcome,
        counter::{Count, CounterKey, MAX_UNITS},
    },
};

/// Time after which a reservation has failed.
const TIMEOUT: Duration = Duration::from_secs(2);
/// Time after which a reservation that waits for the trip of another one looks again.
const MAX_WAIT: Duration = Duration::from_millis(250);

/// Connection to a ledger that several nodes share.
pub(crate) trait SharedLedger {
    /// Returns the number that changes when notifications may have been missed.
    fn hearing(&self) -> Hearing;

    /// Makes the trip.
    ///
    /// # Errors
    ///
    /// The ledger was not reached in time, or has rejected the node. It may have granted the units nevertheless.
    fn make(
        &self,
        key: &CounterKey,
        request: &ShareRequest,
    ) -> impl Future<Output = Result<ShareResponse, TripError>> + Send;
}

/// Error of a trip to the ledger.
#[derive(Debug)]
pub(crate) enum TripError {
    /// The period of the count is not the ledger's current one.
    OtherPeriod,
    Store(StoreError),
}

impl From<StoreError> for TripError {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

/// A trip that is under way. If this is dropped, its outcome is not known, and the next one learns it.
struct Trip<'a> {
    counter: &'a Counter,
    request: ShareRequest,
    is_complete: bool,
}

impl<'a> Trip<'a> {
    fn new(counter: &'a Counter, request: ShareRequest) -> Self {
        Self { counter, request, is_complete: false }
    }

    async fn make(mut self, ledger: &impl SharedLedger) -> Result<(), TripError> {
        let hearing = ledger.hearing();
        let response = ledger.make(self.counter.key(), &self.request).await?;
        self.is_complete = true;
        with_share_of(self.counter, self.request.origin.day, |count, share| {
            share.complete(count, &self.request, &response, Instant::now(), hearing);
        });
        Ok(())
    }
}

impl Drop for Trip<'_> {
    fn drop(&mut self) {
        if !self.is_complete {
            with_share_of(self.counter, self.request.origin.day, |_, share| share.fail());
        }
    }
}

/// A request that waits for units.
struct Waiter<'a> {
    counter: &'a Counter,
    amount: u64,
}

impl<'a> Waiter<'a> {
    fn new(counter: &'a Counter, amount: u64) -> Self {
        with_share(counter, |share| share.wait_for(amount));
        Self { counter, amount }
    }
}

impl Drop for Waiter<'_> {
    fn drop(&mut self) {
        with_share(self.counter, |share| share.leave(self.amount));
    }
}

fn changes_of(counter: &Counter) -> Arc<Notify> {
    with_share(counter, |share| share.changed()).unwrap_or_default()
}

fn with_share<T>(counter: &Counter, work: impl FnOnce(&mut Share) -> T) -> Option<T> {
    counter.with(|_, granted| match granted {
        Granted::Shared(share) => Some(work(share)),
        #[cfg(any(feature = "sqlite", test))]
        Granted::Journaled(_) => None,
    })
}

/// Runs `work` with the share, if the period that begins on this day is still counted.
fn with_share_of(counter: &Counter, day: Day, work: impl FnOnce(&mut Count, &mut Share)) {
    counter.with(|count, granted| {
        if let Granted::Shared(share) = granted
            && count.day == day
        {
            work(count, share);
        }
    });
}

impl Counter {
    /// Takes note of news.
    pub(crate) fn hear(&self, news: &News, hearing: Hearing) {
        with_share(self, |share| match *news {
            News::Free => share.hear_of_free(),
            News::UsedUp { limit } => share.hear_of_end(limit, hearing),
        });
    }

    /// Shows what all nodes have been granted in the period that begins on this day.
    pub(crate) fn refresh_share(&self, day: Day, lease: ReportedLease) {
        with_share_of(self, day, |count, share| share.refresh(count, &lease));
    }

    /// Returns whether units of the share have not been used for this time.
    pub(crate) fn is_share_idle(&self, now: Instant, time: Duration) -> bool {
        with_share(self, |share| share.is_idle(now, time)).unwrap_or_default()
    }
}

/// What a node hears of a counter's units.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum News {
    /// Some may be free.
    Free,
    /// None within this limit is left.
    UsedUp { limit: u64 },
}

/// What became of several demands.
pub(crate) enum AllDemanded {
    Decided(ReserveAllOutcome),
    /// The ledger or another node may have units for the demand with this index.
    Lacking(usize),
}

/// What became of a demand.
enum Demanded {
    Decided(ReserveOutcome),
    /// A trip to the ledger is needed, and under way.
    Request(ShareRequest),
    /// Something must change before, at most until then.
    Wait(Option<Instant>),
}

impl Engine {
    /// Reserves units of a share, or returns `None` if the ledger or another node may have some.
    pub(crate) fn reserve_of_share(
        self: &Arc<Self>,
        counter: &Arc<Counter>,
        demand: &Demand,
        hearing: Hearing,
    ) -> Result<Option<ReserveOutcome>, StoreError> {
        let demanded = self.demand(counter, demand, |count, share, now| {
            share.known(count, demand, now, hearing).unwrap_or(Step::Wait(None))
        })?;
        Ok(match demanded {
            Demanded::Decided(outcome) => Some(outcome),
            Demanded::Request(_) | Demanded::Wait(_) => None,
        })
    }

    /// Reserves units of a share, and waits for those of the ledger and of other nodes.
    pub(crate) async fn reserve_shared(
        self: &Arc<Self>,
        counter: &Arc<Counter>,
        demand: &Demand,
        ledger: &impl SharedLedger,
    ) -> Result<ReserveOutcome, TripError> {
        let reserved = timeout(TIMEOUT, self.reserve_in_time(counter, demand, ledger)).await;
        reserved.map_err(late)?
    }

    async fn reserve_in_time(
        self: &Arc<Self>,
        counter: &Arc<Counter>,
        demand: &Demand,
        ledger: &impl SharedLedger,
    ) -> Result<ReserveOutcome, TripError> {
        let changed = changes_of(counter);
        let _waiter = Waiter::new(counter, demand.amount);
        loop {
            let mut is_changed = pin!(changed.notified());
            is_changed.as_mut().enable();
            let hearing = ledger.hearing();
            let demanded = self.demand(counter, demand, |count, share, now| {
                share.next(count, demand, now, hearing)
            })?;
            match demanded {
                Demanded::Decided(outcome) => return Ok(outcome),
                Demanded::Request(request) => Trip::new(counter, request).make(ledger).await?,
                Demanded::Wait(until) => wait(until, is_changed).await,
            }
        }
    }

    /// Reserves units of shares, those of all demands or none.
    pub(crate) fn reserve_all_of_shares(
        self: &Arc<Self>,
        counters: &[Arc<Counter>],
        demands: &[Demand],
        hearing: Hearing,
    ) -> Result<AllDemanded, StoreError> {
        self.check_admission()?;
        let mut locked = self.lock(counters, demands)?;
        let (mut exhausted, mut elsewhere, mut lacking) = (Vec::new(), Vec::new(), None);
        for (index, (demand, locked)) in locked.iter_mut().enumerate() {
            let step = match locked.state() {
                (count, Granted::Shared(share)) => {
                    share.known(count, demand, Instant::now(), hearing)
                }
                #[cfg(any(feature = "sqlite", test))]
                (_, Granted::Journaled(_)) => Some(Step::UsedUp),
            };
            match step {
                Some(Step::Take) => {}
                Some(Step::UsedUp) => exhausted.push(locked.status(demand, &self.calendar)),
                Some(Step::Elsewhere) => elsewhere.push(locked.status(demand, &self.calendar)),
                Some(Step::Request(_) | Step::Wait(_)) | None => {
                    lacking.get_or_insert(index);
                }
            }
        }
        Ok(AllDemanded::Decided(if !exhausted.is_empty() {
            ReserveAllOutcome::Exhausted(exhausted)
        } else if !elsewhere.is_empty() {
            ReserveAllOutcome::Elsewhere(elsewhere)
        } else if let Some(lacking) = lacking {
            return Ok(AllDemanded::Lacking(lacking));
        } else {
            ReserveAllOutcome::Admitted(self.charge_all(counters, demands, &mut locked)?)
        }))
    }

    /// Reserves units of shares, those of all demands or none, and waits for those of the ledger and of other nodes.
    /// Nothing is reserved meanwhile.
    pub(crate) async fn reserve_all_shared(
        self: &Arc<Self>,
        counters: &[Arc<Counter>],
        demands: &[Demand],
        ledger: &impl SharedLedger,
    ) -> Result<ReserveAllOutcome, TripError> {
        let reserving = async {
            loop {
                match self.reserve_all_of_shares(counters, demands, ledger.hearing())? {
                    AllDemanded::Decided(outcome) => return Ok(outcome),
                    AllDemanded::Lacking(lacking) => {
                        self.obtain(&counters[lacking], &demands[lacking], ledger).await?;
                    }
                }
            }
        };
        timeout(TIMEOUT, reserving).await.map_err(late)?
    }

    /// Waits until a share has the units of a demand, or it is known that none are left.
    async fn obtain(
        self: &Arc<Self>,
        counter: &Arc<Counter>,
        demand: &Demand,
        ledger: &impl SharedLedger,
    ) -> Result<(), TripError> {
        let changed = changes_of(counter);
        let _waiter = Waiter::new(counter, demand.amount);
        loop {
            let mut is_changed = pin!(changed.notified());
            is_changed.as_mut().enable();
            let hearing = ledger.hearing();
            let (step, _) =
                counter.with_current(demand, &self.calendar, |count, granted| match granted {
                    Granted::Shared(share) => share.next(count, demand, Instant::now(), hearing),
                    #[cfg(any(feature = "sqlite", test))]
                    Granted::Journaled(_) => Step::UsedUp,
                });
            match step {
                Step::Take | Step::UsedUp | Step::Elsewhere => return Ok(()),
                Step::Request(request) => Trip::new(counter, request).make(ledger).await?,
                Step::Wait(until) => wait(until, is_changed).await,
            }
        }
    }

    /// Reserves units if `next` says so.
    fn demand(
        self: &Arc<Self>,
        counter: &Arc<Counter>,
        demand: &Demand,
        next: impl FnOnce(&Count, &mut Share, Instant) -> Step,
    ) -> Result<Demanded, StoreError> {
        self.check_admission()?;
        let opens = self.opens(demand);
        let (step, status) = counter.with_current(demand, &self.calendar, |count, granted| {
            let step = match granted {
                Granted::Shared(share) => next(count, share, Instant::now()),
                #[cfg(any(feature = "sqlite", test))]
                Granted::Journaled(_) => Step::UsedUp,
            };
            let Step::Take = step else { return Ok((step, None)) };
            let taken = self.charge(counter, demand, opens, count, granted)?;
            count.used = count.used.saturating_add(demand.amount).min(MAX_UNITS);
            Ok::<_, StoreError>((Step::Take, Some(taken)))
        });
        Ok(match step? {
            (_, Some(taken)) => {
                let reservation = self.hold(counter.clone(), demand, opens, taken);
                Demanded::Decided(ReserveOutcome::Admitted { reservation, status })
            }
            (Step::Request(request), _) => Demanded::Request(request),
            (Step::Wait(until), _) => Demanded::Wait(until),
            (Step::Elsewhere, _) => Demanded::Decided(ReserveOutcome::Elsewhere(status)),
            (Step::UsedUp | Step::Take, _) => Demanded::Decided(ReserveOutcome::Exhausted(status)),
        })
    }

    /// Gives back the units of a share that are not used.
    pub(crate) async fn give_back(
        counter: &Counter,
        ledger: &impl SharedLedger,
    ) -> Result<(), TripError> {
        let changed = changes_of(counter);
        loop {
            let mut is_changed = pin!(changed.notified());
            is_changed.as_mut().enable();
            let request = counter.with(|count, granted| match granted {
                Granted::Shared(share) => share.give_up_unused(count.origin()),
                #[cfg(any(feature = "sqlite", test))]
                Granted::Journaled(_) => None,
            });
            match request {
                Some(request) => return Trip::new(counter, request).make(ledger).await,
                None => is_changed.await,
            }
        }
    }
}

/// Waits for a change of a share, at most until then. What follows depends on the share, whether there was one or not.
async fn wait(until: Option<Instant>, is_changed: impl Future) {
    let until = until.unwrap_or_else(|| Instant::now() + MAX_WAIT);
    let _ = timeout_at(until.into(), is_changed).await;
}

fn late(_: Elapsed) -> StoreError {
    StoreError::unavailable("no units were granted in time")
}
