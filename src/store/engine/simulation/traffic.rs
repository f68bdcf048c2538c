//! Requests of the holders of keys, and their outcomes.

use std::{
    mem,
    sync::Arc,
    task::{Context, Poll, Waker},
};

use super::{
    COUNTERS, Random, SimClock,
    disk::Faults,
    key,
    oracle::{Oracle, Period, UNLIMITED},
    world::Death,
};
use crate::{
    clock::Clock,
    key::Limit,
    store::{
        Admission, Demand, QuotaStatus, Refund, RequestOutcome, Reservation, ReserveAllOutcome,
        ReserveOutcome, StoreFuture, UsageEvent,
        counter::CounterKey,
        engine::{Counter, Durability, Engine},
    },
};

const LARGEST_LIMIT: u64 = 400;
/// Exclusive upper bound for the units of a reservation.
const LARGEST_AMOUNT: u64 = 40;
/// Exclusive upper bound for the requests of a crowd: more than several leases of the largest limit.
const LARGEST_CROWD: u64 = 90;

/// Request that has reached the upstream.
struct Request {
    reservation: Box<dyn Reservation>,
    period: Period,
    /// Whether the upstream has responded.
    has_response: bool,
    is_returned: bool,
    /// Whether these are further units of a request.
    is_more: bool,
    /// Number of charged units.
    amount: u64,
}

/// Expected numbers of usage entries at the end: minimum, maximum, and those that survive a power failure.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Events {
    pub(super) least: u64,
    pub(super) most: u64,
    pub(super) synced: u64,
    /// Requests that ended without an entry. If their end is lost, they count as failed.
    without: u64,
}

pub(super) struct Traffic {
    pub(super) random: Random,
    clock: SimClock,
    pub(super) faults: Faults,
    durability: Durability,
    /// Engine of the current process.
    engine: Option<Arc<Engine>>,
    /// Whether usage events are recorded. If not, no request is in the sums.
    pub(super) has_recorder: bool,
    limits: [Limit; COUNTERS],
    requests: Vec<Request>,
    pub(super) oracle: Oracle,
    pub(super) events: Events,
    /// How the process ends instead of its next commit, if it does.
    pub(super) death: Option<Death>,
}

/// Returns a random limit; one in six is unlimited.
fn large_limit(random: &mut Random) -> Limit {
    match random.below(6) {
        0 => Limit::Unlimited,
        _ => Limit::Units(1 + random.below(LARGEST_LIMIT)),
    }
}

impl Events {
    /// Ends the process, which may lose the ends of requests without an entry.
    pub(super) fn lose_ends(&mut self) {
        self.most += mem::take(&mut self.without);
    }
}

impl Traffic {
    pub(super) fn new(
        mut random: Random,
        clock: SimClock,
        faults: Faults,
        durability: Durability,
    ) -> Self {
        let small_limit = Limit::Units(1 + random.below(7));
        let limits = [Limit::Units(1), small_limit, large_limit(&mut random)];
        let has_recorder = random.below(8) > 0;
        Self {
            random,
            clock,
            faults,
            durability,
            engine: None,
            has_recorder,
            limits,
            requests: Vec::new(),
            oracle: Oracle::new(durability == Durability::Process),
            events: Events::default(),
            death: None,
        }
    }

    pub(super) fn begin(&mut self, engine: Arc<Engine>) {
        if self.has_recorder {
            engine.expect_events();
        }
        self.engine = Some(engine);
        self.check_counts();
    }

    /// Stops the traffic. Clients cancel the requests in flight.
    pub(super) fn cease(&mut self) {
        while !self.requests.is_empty() {
            self.leave();
        }
        self.engine = None;
    }

    /// Kills the process: nothing more is written, and requests in flight count as failed.
    pub(super) fn break_off(&mut self) {
        let cut_off = self.requests.iter().filter(|request| !request.is_more).count() as u64;
        self.requests.drain(..).for_each(|request| mem::forget(request.reservation));
        self.engine = None;
        self.events.least += cut_off;
        self.events.most += cut_off;
        self.events.lose_ends();
    }

    fn engine(&self) -> &Arc<Engine> {
        self.engine.as_ref().unwrap()
    }

    fn counter(&self, counter: usize) -> Arc<Counter> {
        self.engine().counter(&key(counter)).unwrap()
    }

    fn is_broken(&self) -> bool {
        self.faults.is_set() || self.engine().is_open().is_err()
    }

    pub(super) fn sync(&mut self) {
        self.engine().journal.sync();
        if !self.engine().journal.has_failed() {
            self.oracle.synced();
            self.events.synced = self.events.least;
        }
    }

    fn limit(&self, counter: usize) -> Limit {
        self.limits[counter]
    }

    /// Returns a random amount: mostly one unit, sometimes many, rarely none.
    fn amount(&mut self) -> u64 {
        match self.random.below(8) {
            0 => self.random.below(LARGEST_AMOUNT),
            _ => 1,
        }
    }

    /// Returns an open request of the counter's subject that needs more units, which one in eight does.
    fn open_request(&mut self, counter: usize) -> Option<Admission> {
        if self.requests.is_empty() || self.random.below(8) > 0 {
            return None;
        }
        let request = &self.requests[self.random.pick(self.requests.len())];
        let is_same = key(request.period.counter).subject == key(counter).subject;
        is_same.then(|| request.reservation.admission()).flatten()
    }

    fn demand(&self, counter: usize) -> Demand {
        let CounterKey { quota, subject } = key(counter);
        Demand::new(subject, self.limit(counter), self.clock.now()).quota(quota)
    }

    pub(super) fn check_counts(&mut self) {
        for key in 0..COUNTERS {
            let status = self.counter(key).status(&self.demand(key), &self.engine().calendar);
            self.oracle.check(key, &status);
        }
    }

    pub(super) fn reserve(&mut self) {
        let key = self.random.pick(COUNTERS);
        self.reserve_of(key);
    }

    /// Sends many requests at once, during which an operator may change the limit.
    pub(super) fn crowd(&mut self) {
        let key = self.random.pick(COUNTERS);
        for _ in 0..self.random.below(LARGEST_CROWD) {
            self.reserve_of(key);
            if self.random.below(100) == 0 {
                self.change_limit_of(key);
            }
        }
    }

    /// Sends a request that needs units of several counters, in any order.
    pub(super) fn reserve_several(&mut self) {
        let mut keys: Vec<_> = (0..COUNTERS).collect();
        keys.rotate_left(self.random.pick(COUNTERS));
        if self.random.below(2) == 0 {
            keys.reverse();
        }
        keys.truncate(2 + self.random.pick(COUNTERS - 1));
        let mut demands = Vec::new();
        for key in &keys {
            let amount = self.amount();
            demands.push(self.demand(*key).amount(amount));
        }
        let (engine, is_open) = (self.engine().clone(), self.engine().is_open().is_ok());
        let counters: Vec<_> = keys.iter().map(|key| self.counter(*key)).collect();
        match engine.reserve_all(&counters, &demands) {
            Ok(ReserveAllOutcome::Admitted(admitted)) => {
                assert!(is_open, "nothing is admitted once a failure is known");
                for (index, (reservation, status)) in admitted.into_iter().enumerate() {
                    let (key, demand) = (keys[index], &demands[index]);
                    // The first one opens the request.
                    self.note_admitted(key, demand, reservation, &status, index > 0);
                }
            }
            Ok(ReserveAllOutcome::Exhausted(exhausted)) => {
                let statuses = counters
                    .iter()
                    .zip(&demands)
                    .map(|(counter, demand)| (counter.status(demand, &engine.calendar), demand));
                let is_over = |(status, demand): &(QuotaStatus, &Demand)| {
                    demand.limit.units().is_some_and(|limit| status.used + demand.amount > limit)
                };
                let over: Vec<_> = statuses.filter(is_over).map(|(status, _)| status).collect();
                assert!(!exhausted.is_empty() && exhausted == over, "{exhausted:?}, {over:?}");
            }
            Ok(ReserveAllOutcome::Elsewhere(_)) => panic!("there is one node"),
            Err(_) => assert!(!is_open || self.is_broken(), "rejected without a reason"),
        }
        self.check_counts();
    }

    fn note_admitted(
        &mut self,
        counter: usize,
        demand: &Demand,
        reservation: Box<dyn Reservation>,
        status: &QuotaStatus,
        is_more: bool,
    ) {
        let (amount, limit) = (demand.amount, demand.limit.units());
        let period = self.oracle.period(counter, status.day);
        let seen = self.oracle.seen(period);
        seen.under_way += amount;
        seen.limit = seen.limit.max(limit.unwrap_or(UNLIMITED));
        seen.lease_limit = seen.lease_limit.max(limit.unwrap_or_default());
        self.oracle.check(counter, status);
        assert!(limit.is_none_or(|limit| status.used <= limit), "never one more");
        self.requests.push(Request {
            reservation,
            period,
            has_response: false,
            is_returned: false,
            is_more,
            amount,
        });
    }

    fn reserve_of(&mut self, counter: usize) {
        let (engine, limit) = (self.engine().clone(), self.limits[counter].units());
        let is_open = engine.is_open().is_ok();
        let (amount, admission) = (self.amount(), self.open_request(counter));
        let is_more = admission.is_some();
        let demand = self.demand(counter).amount(amount).admission(admission);
        match engine.reserve(self.counter(counter), &demand) {
            Ok(ReserveOutcome::Admitted { reservation, status }) => {
                assert!(is_open, "nothing is admitted once a failure is known");
                self.note_admitted(counter, &demand, reservation, &status, is_more);
            }
            Ok(ReserveOutcome::Exhausted(status)) => {
                self.oracle.check(counter, &status);
                let is_over = |limit| status.used + amount > limit;
                assert!(limit.is_some_and(is_over), "never one less");
            }
            Ok(ReserveOutcome::Elsewhere(_)) => panic!("there is one node"),
            Err(_) => assert!(!is_open || self.is_broken(), "rejected without a reason"),
        }
    }

    fn pick(&mut self) -> Option<Request> {
        let length = self.requests.len();
        (length > 0).then(|| self.requests.swap_remove(self.random.pick(length)))
    }

    /// Responds to one of the requests.
    pub(super) fn respond(&mut self) {
        if let Some(mut request) = self.pick() {
            if !request.has_response {
                // The policy may refund the units.
                match self.random.below(6) {
                    0 => self.refund(&mut request, Refund::Always),
                    1 => self.refund(&mut request, Refund::UpToLimit),
                    _ => {}
                }
            }
            self.pass_on(request);
        }
    }

    /// Responds to all requests at once, or fails to reach the upstream and refunds all units.
    pub(super) fn respond_to_all(&mut self) {
        let is_reached = self.random.below(2) == 0;
        for mut request in mem::take(&mut self.requests) {
            if !request.has_response && !is_reached {
                self.refund(&mut request, Refund::Always);
            }
            self.pass_on(request);
        }
    }

    fn pass_on(&mut self, mut request: Request) {
        request.has_response = true;
        let mut cx = Context::from_waker(Waker::noop());
        match request.reservation.poll_committed(&mut cx) {
            Poll::Pending => self.requests.push(request),
            Poll::Ready(Err(_)) => self.fail(request),
            Poll::Ready(Ok(())) => self.settle(request),
        }
    }

    fn refund(&mut self, request: &mut Request, refund: Refund) {
        if at_once(request.reservation.refund(refund)) {
            request.is_returned = true;
            let amount = request.amount;
            let provoked = if refund == Refund::UpToLimit { amount } else { 0 };
            let is_held = u64::from(self.engine().journal.has_failed());
            let seen = self.oracle.seen(request.period);
            seen.under_way -= amount;
            seen.came_back += amount;
            seen.provoked += provoked;
            seen.unsynced_provoked += provoked;
            seen.held.units += is_held * amount;
            seen.held.provoked += is_held * provoked;
            assert!(seen.provoked <= seen.limit, "provoked refunds are bounded");
        }
    }

    /// Corrects the amount at the end of a response, which shows the actual use.
    fn correct(&mut self, request: &mut Request) {
        if request.is_returned || self.random.below(4) > 0 {
            return;
        }
        let (reserved, actual) = (request.amount, self.random.below(LARGEST_AMOUNT));
        let is_held = self.engine().journal.has_failed();
        at_once(request.reservation.settle(actual));
        request.amount = actual;
        let seen = self.oracle.seen(request.period);
        seen.under_way = seen.under_way - reserved + actual;
        let (less, more) = (reserved.saturating_sub(actual), actual.saturating_sub(reserved));
        seen.came_back += less;
        if is_held || self.engine().journal.has_failed() {
            let held = &mut self.oracle.seen(request.period).held;
            held.units += less;
            held.more += more;
        } else {
            self.oracle.seen(request.period).unsynced += more;
        }
    }

    fn settle(&mut self, mut request: Request) {
        self.correct(&mut request);
        if request.is_more {
            // Their request has the event.
        } else if self.has_recorder && self.random.below(2) == 0 {
            let mut event = self.event(request.period.counter);
            event.admission = request.reservation.admission();
            self.engine().record(event);
            self.events.least += 1;
            self.events.most += 1;
        } else {
            self.events.without += 1;
        }
        if !request.is_returned {
            let has_leases = self.durability == Durability::Process;
            let seen = self.oracle.seen(request.period);
            seen.under_way -= request.amount;
            seen.responded += request.amount;
            // Units without a limit may use up a lease of units whose response comes later.
            seen.unsynced += if has_leases && seen.limit == UNLIMITED { request.amount } else { 0 };
        }
    }

    /// Rejects the request, as its units could not be made durable.
    fn fail(&mut self, request: Request) {
        self.events.without += u64::from(!request.is_more);
        if !request.is_returned {
            let seen = self.oracle.seen(request.period);
            seen.under_way -= request.amount;
            seen.held.units += request.amount;
        }
    }

    /// Cancels a request before its response.
    pub(super) fn leave(&mut self) {
        if let Some(request) = self.pick() {
            self.events.without += u64::from(!request.is_more);
            if !request.is_returned {
                let seen = self.oracle.seen(request.period);
                seen.under_way -= request.amount;
                seen.dropped += request.amount;
            }
        }
    }

    fn event(&self, counter: usize) -> UsageEvent {
        let mut event = UsageEvent::new(self.clock.now());
        event.key_id = Some(key(counter).subject);
        event.outcome = RequestOutcome::Succeeded;
        event
    }

    pub(super) fn change_limit(&mut self) {
        let key = self.random.pick(COUNTERS);
        self.change_limit_of(key);
    }

    fn change_limit_of(&mut self, key: usize) {
        self.limits[key] = large_limit(&mut self.random);
    }

    /// Runs steps between the start of a checkpoint and its commit. Returns whether the commit is reached.
    pub(super) fn meanwhile(&mut self) -> bool {
        if self.engine.is_none() || self.random.below(2) == 0 {
            return true;
        }
        for _ in 0..self.random.below(12) {
            match self.random.below(16) {
                0..3 => self.reserve(),
                3..10 => self.respond(),
                10 => self.respond_to_all(),
                11 => self.leave(),
                12 => self.sync(),
                13..15 => self.fail_once(),
                _ => self.faults.break_something(&mut self.random),
            }
        }
        self.death = match self.random.below(16) {
            0 => Some(Death::Kill),
            1 | 2 => Some(Death::LossOfPower),
            _ => None,
        };
        self.death.is_none()
    }

    /// Fails one sync or write; the next one succeeds.
    fn fail_once(&mut self) {
        if self.faults.is_set() {
            return;
        }
        if self.random.below(2) == 0 {
            self.faults.disk.break_syncs();
            self.sync();
        } else {
            self.faults.disk.break_writes(self.random.pick(80));
            self.respond();
        }
        self.faults.disk.heal();
    }
}

/// Returns the result of a future of the engine, which is ready from the start.
fn at_once<T>(future: StoreFuture<T>) -> T {
    future.now_or_never().ok().and_then(Result::ok).expect("ready, and no error")
}
