//! Shares: units that a ledger of several nodes has granted to this one.
//!
//! The ledger keeps what all nodes have been granted within the limit. A node uses its share without
//! waiting for anything, and makes one trip to the ledger at a time: for more units, or to give back those
//! that it has not used. The ledger then decides for all nodes: it grants units, or none is left, or other
//! nodes have them and are called upon to give them back.
//!
//! Each trip compares and increments the sequence number of the share, as a statement may be executed after
//! its client has given up: then it changes nothing, and the next trip learns what the ledger holds.

use std::{
    mem,
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::sync::Notify;

use crate::store::{
    Demand,
    counter::{Beside, Count, MAX_UNITS, Origin},
};

/// Time in which a node gives its units back, after the last one that did.
const RECALL: Duration = Duration::from_millis(50);
/// Time for which a request waits for units of other nodes.
const MAX_RECALL: Duration = Duration::from_millis(250);
/// Time for which no request waits after one has waited for too long.
const PAUSE: Duration = Duration::from_millis(200);

/// Units of a counter that a shared ledger has granted to this node in the current period.
///
/// All numbers are sums since the period began: a unit that is given back to all nodes stays spent, and is
/// granted again by the ledger.
#[derive(Debug)]
pub(crate) struct Share {
    granted: u64,
    spent: u64,
    /// Number of changes of `granted` by the ledger.
    seq: u64,
    /// Limit of the last demand.
    limit: u64,
    /// Whether units that are granted meanwhile must not be used, as the limit has been lowered.
    is_outdated: bool,
    rest: Rest,
    /// Whether a trip to the ledger is under way.
    is_under_way: bool,
    /// Whether units may have become free, or the limit has changed, since the last trip began.
    may_be_free: bool,
    /// Number of units that requests wait for.
    needed: u64,
    /// Units given back whose records the ledger does not have yet.
    returned: u64,
    /// Start of the time for which requests have been waiting for other nodes.
    waiting_since: Option<Instant>,
    used_at: Option<Instant>,
    /// Notifies those who wait that something has changed.
    changed: Arc<Notify>,
}

/// What is known of the units that are not in this share.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Rest {
    /// The ledger may have some.
    Unknown,
    /// None is left, as far as was heard of by then.
    UsedUp(Hearing),
    /// Other nodes are giving theirs back.
    Recalled {
        until: Instant,
        /// Whether this is the last attempt, as nothing was heard of.
        is_last: bool,
    },
    /// Other nodes keep theirs.
    Elsewhere { until: Instant },
}

/// Number that changes when notifications may have been missed.
pub(crate) type Hearing = u64;

/// What a request for units has to do.
#[derive(Debug)]
pub(super) enum Step {
    /// Use units of the share.
    Take,
    /// Make this trip to the ledger, which is under way from now on.
    Request(ShareRequest),
    /// Wait for a change, at most until then.
    Wait(Option<Instant>),
    /// None is left.
    UsedUp,
    /// Other nodes have what is left.
    Elsewhere,
}

/// Trip to the ledger: reports the share and requests units, or none to give back what is not used.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ShareRequest {
    /// Period of the count.
    pub(crate) origin: Origin,
    /// Number of the last change that this node knows of.
    pub(crate) seq: u64,
    /// Units that the node keeps, of those that it was granted.
    pub(crate) granted: u64,
    pub(crate) spent: u64,
    pub(crate) limit: u64,
    /// Number of units that requests wait for.
    pub(crate) needed: u64,
    /// Number of units that were given back in the journal, whose records must be in the ledger before.
    pub(crate) returned: u64,
}

/// Response of the ledger: the share as it is there.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ShareResponse {
    pub(crate) state: ShareState,
    pub(crate) granted: u64,
    pub(crate) spent: u64,
    pub(crate) seq: u64,
    /// Units that all nodes have been granted since the last reset.
    pub(crate) total: u64,
    /// Number of resets.
    pub(crate) epoch: u32,
}

/// Share as it is in the ledger after a checkpoint.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ReportedLease {
    pub(crate) seq: u64,
    pub(crate) granted: u64,
    /// Units that all nodes have been granted since the last reset.
    pub(crate) total: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ShareState {
    /// Units were granted, or given back.
    Done,
    /// The request was based on an earlier state, and has changed nothing.
    Stale,
    /// None is left.
    UsedUp,
    /// Other nodes have what is left, and were called upon to give it back.
    Elsewhere,
}

impl Share {
    /// Creates a share as it is in the ledger.
    pub(crate) fn new(granted: u64, spent: u64, seq: u64) -> Self {
        Self {
            granted,
            spent,
            seq,
            limit: 0,
            is_outdated: false,
            rest: Rest::Unknown,
            is_under_way: false,
            may_be_free: false,
            needed: 0,
            returned: 0,
            waiting_since: None,
            used_at: None,
            changed: Arc::default(),
        }
    }

    pub(super) fn changed(&self) -> Arc<Notify> {
        self.changed.clone()
    }

    pub(super) fn spent(&self) -> u64 {
        self.spent
    }

    /// Returns the number of units that are granted and not used.
    pub(super) fn unused(&self) -> u64 {
        self.granted.saturating_sub(self.spent)
    }

    /// Returns whether the units of a demand can be used, or why not, as far as is known.
    pub(super) fn known(
        &mut self,
        count: &Count,
        demand: &Demand,
        now: Instant,
        hearing: Hearing,
    ) -> Option<Step> {
        let (amount, limit) = (demand.amount, demand.limit.units());
        self.set_limit(limit.unwrap_or(MAX_UNITS).min(MAX_UNITS));
        // Needing nothing, or being without a limit, takes no trip.
        if limit.is_none() || amount == 0 {
            let is_within = count.used.saturating_add(amount) <= self.limit;
            return Some(if is_within { Step::Take } else { Step::UsedUp });
        }
        if amount <= self.unused() {
            return Some(Step::Take);
        }
        match self.rest {
            _ if amount > self.limit => Some(Step::UsedUp),
            Rest::UsedUp(heard) if heard == hearing => Some(Step::UsedUp),
            Rest::Elsewhere { until } if now < until => Some(Step::Elsewhere),
            _ => None,
        }
    }

    /// Returns what a demand, which [waits](Self::wait_for) for its units, has to do.
    pub(super) fn next(
        &mut self,
        count: &Count,
        demand: &Demand,
        now: Instant,
        hearing: Hearing,
    ) -> Step {
        if let Some(step) = self.known(count, demand, now, hearing) {
            return step;
        }
        if self.is_under_way {
            return Step::Wait(None);
        }
        let has_waited = self.waiting_since.is_some_and(|since| now >= since + MAX_RECALL);
        match self.rest {
            Rest::Recalled { until, .. } if now < until => Step::Wait(Some(until)),
            Rest::Recalled { is_last: true, .. } => self.give_up(now),
            _ if has_waited => self.give_up(now),
            Rest::Recalled { until, .. } => {
                // A notification may be lost.
                self.rest = Rest::Recalled { until, is_last: true };
                Step::Request(self.request(count.origin()))
            }
            _ => Step::Request(self.request(count.origin())),
        }
    }

    fn set_limit(&mut self, limit: u64) {
        if limit == self.limit {
            return;
        }
        if limit < self.limit {
            // The units that are not used were granted within another limit.
            self.stop();
            self.is_outdated = self.is_under_way;
        }
        (self.limit, self.rest, self.may_be_free) = (limit, Rest::Unknown, true);
    }

    fn give_up(&mut self, now: Instant) -> Step {
        self.waiting_since = None;
        self.rest = Rest::Elsewhere { until: now + PAUSE };
        self.changed.notify_waiters();
        Step::Elsewhere
    }

    /// Counts the units of a request that waits for them.
    pub(super) fn wait_for(&mut self, amount: u64) {
        self.needed = self.needed.saturating_add(amount);
    }

    /// Counts the units of a request that waits no longer.
    pub(super) fn leave(&mut self, amount: u64) {
        self.needed = self.needed.saturating_sub(amount);
    }

    /// Uses units. Without a limit they may be more than were granted.
    pub(super) fn spend(&mut self, amount: u64, now: Instant) {
        self.spent = self.spent.saturating_add(amount).min(MAX_UNITS);
        self.used_at = Some(now);
    }

    /// Gives used units back to all nodes, once the ledger has their record. Returns whether some may be waiting for
    /// them.
    pub(super) fn give_back(&mut self, amount: u64) -> bool {
        self.returned = self.returned.saturating_add(amount);
        self.changed.notify_waiters();
        mem::replace(&mut self.rest, Rest::Unknown) != Rest::Unknown
    }

    /// Stops using units.
    fn stop(&mut self) {
        self.granted = self.granted.min(self.spent);
    }

    /// Begins a trip for the units that requests wait for.
    fn request(&mut self, origin: Origin) -> ShareRequest {
        (self.is_under_way, self.may_be_free) = (true, false);
        ShareRequest {
            origin,
            seq: self.seq,
            granted: self.granted,
            spent: self.spent,
            limit: self.limit,
            needed: self.needed.min(MAX_UNITS),
            returned: self.returned,
        }
    }

    /// Stops using units, and begins a trip that gives them back, unless one is under way.
    pub(super) fn give_up_unused(&mut self, origin: Origin) -> Option<ShareRequest> {
        if self.is_under_way {
            return None;
        }
        self.stop();
        Some(ShareRequest { needed: 0, ..self.request(origin) })
    }

    /// Returns whether units have not been used for this time.
    pub(super) fn is_idle(&self, now: Instant, time: Duration) -> bool {
        self.unused() > 0 && self.used_at.is_none_or(|used_at| now >= used_at + time)
    }

    /// Ends a trip whose outcome is not known.
    pub(super) fn fail(&mut self) {
        self.is_under_way = false;
        self.changed.notify_waiters();
    }

    /// Ends a trip.
    pub(super) fn complete(
        &mut self,
        count: &mut Count,
        request: &ShareRequest,
        response: &ShareResponse,
        now: Instant,
        hearing: Hearing,
    ) {
        self.is_under_way = false;
        self.returned -= request.returned.min(self.returned);
        self.note(count, response);
        match response.state {
            ShareState::Done => {
                (self.rest, self.waiting_since) = (Rest::Unknown, None);
            }
            ShareState::Stale => {
                // The limit may have been lowered since these units were granted.
                self.stop();
                self.rest = Rest::Unknown;
            }
            ShareState::UsedUp if self.may_be_free => self.rest = Rest::Unknown,
            ShareState::UsedUp => {
                (self.rest, self.waiting_since) = (Rest::UsedUp(hearing), None);
            }
            ShareState::Elsewhere => {
                let is_last = matches!(self.rest, Rest::Recalled { is_last: true, .. });
                self.waiting_since.get_or_insert(now);
                self.rest = Rest::Recalled { until: now + RECALL, is_last };
            }
        }
        self.changed.notify_waiters();
    }

    /// Takes over the share as it is in the ledger.
    fn note(&mut self, count: &mut Count, response: &ShareResponse) {
        let ShareResponse { granted, spent, seq, total, epoch, .. } = *response;
        self.seq = seq;
        self.spent = self.spent.max(spent);
        self.granted = granted;
        if mem::take(&mut self.is_outdated) {
            self.stop();
        }
        if epoch > count.epoch {
            (count.epoch, count.refunded) = (epoch, 0);
        }
        self.show(count, granted, total);
    }

    /// Sets the count to what all nodes have used, or hold, of these units: `total`, of which `granted` are those of
    /// this share.
    fn show(&self, count: &mut Count, granted: u64, total: u64) {
        let others = i128::from(total) - i128::from(granted);
        let used = (others + i128::from(self.spent)).clamp(0, MAX_UNITS.into());
        count.used = u64::try_from(used).unwrap_or_default();
    }

    /// Shows what all nodes have been granted, if this share has not changed since.
    pub(super) fn refresh(&self, count: &mut Count, lease: &ReportedLease) {
        if lease.seq == self.seq && !self.is_under_way {
            self.show(count, lease.granted, lease.total);
        }
    }

    /// Called when units may have become free.
    pub(super) fn hear_of_free(&mut self) {
        (self.rest, self.may_be_free) = (Rest::Unknown, true);
        self.changed.notify_waiters();
    }

    /// Called when none of this limit is left.
    pub(super) fn hear_of_end(&mut self, limit: u64, hearing: Hearing) {
        if self.limit <= limit && !self.is_under_way && self.returned == 0 {
            (self.rest, self.waiting_since) = (Rest::UsedUp(hearing), None);
        }
        self.changed.notify_waiters();
    }
}

impl Beside for Share {
    fn begin_period(&mut self) {
        self.changed.notify_waiters();
        let changed = self.changed.clone();
        *self = Self { changed, ..Self::new(0, 0, 0) };
    }

    #[cfg(any(feature = "admin", test))]
    fn reset(&mut self) {
        self.hear_of_free();
    }
}
