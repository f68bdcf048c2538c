//! Tables of one counter, and the functions of `schema/1-leases.sql`, each executed at once.

use super::Mutation;
use crate::store::engine::share::{ReportedLease, ShareRequest, ShareResponse, ShareState};

/// Time in milliseconds for which nothing is granted before a reset.
pub(super) const HOLD: u64 = 40;

#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Lease {
    exists: bool,
    pub(super) granted: i64,
    pub(super) spent: i64,
    pub(super) base: i64,
    pub(super) seq: i64,
    recalls: u64,
}

#[derive(Clone)]
pub(super) struct Tables {
    /// Limit of the key.
    pub(super) limit: u64,
    max_size: i64,
    pub(super) granted: i64,
    pub(super) epoch: u32,
    is_over: bool,
    recalls: u64,
    recalled_at: Option<u64>,
    held_until: Option<u64>,
    pub(super) leases: Vec<Lease>,
    pub(super) sessions: Vec<u64>,
}

/// Notification.
#[derive(Clone, Debug)]
pub(super) enum News {
    /// The limit has changed.
    Limit,
    Free,
    UsedUp(u64),
    Recall(Vec<usize>),
}

/// What records of the journal say of one lease.
pub(super) struct Batch {
    pub(super) spent: u64,
    pub(super) epoch: u32,
    pub(super) returned: u64,
}

impl Tables {
    pub(super) fn new(nodes: usize, limit: u64, max_size: i64) -> Self {
        Self {
            limit,
            max_size,
            granted: 0,
            epoch: 0,
            is_over: false,
            recalls: 0,
            recalled_at: None,
            held_until: None,
            leases: vec![Lease::default(); nodes],
            sessions: vec![0; nodes],
        }
    }

    fn was_recalled(&self, now: u64) -> bool {
        self.recalled_at.is_some_and(|at| at + 1000 > now)
    }

    fn holders(&self, but: Option<usize>) -> Vec<usize> {
        let is_holder = |node: &usize| {
            Some(*node) != but && self.leases[*node].granted > self.leases[*node].spent
        };
        (0..self.leases.len()).filter(is_holder).collect()
    }

    /// Returns whether a node was called upon to give back what it holds.
    pub(super) fn is_recalled(&self, node: usize) -> bool {
        let lease = self.leases[node];
        lease.granted > lease.spent && lease.recalls < self.recalls
    }

    /// `extend_lease`. Returns the response, the number of units that were granted, and the notifications.
    pub(super) fn extend(
        &mut self,
        now: u64,
        node: usize,
        request: &ShareRequest,
        mutation: Mutation,
    ) -> (Option<ShareResponse>, i64, Vec<News>) {
        let known = request.seq as i64;
        let lease = self.leases[node];
        let Lease { mut granted, mut spent, mut seq, .. } = lease;
        let mut news = Vec::new();
        let response = |state, granted: i64, spent: i64, seq: i64, total: i64, epoch| {
            let [granted, spent, seq, total] = [granted, spent, seq, total].map(|n| n as u64);
            Some(ShareResponse { state, granted, spent, seq, total, epoch })
        };
        if seq != known && mutation != Mutation::NoSequence {
            let stale = response(ShareState::Stale, granted, spent, seq, self.granted, self.epoch);
            return (stale.filter(|_| seq > known), 0, news);
        }
        spent = spent.max(request.spent as i64);
        granted = granted.min(request.granted as i64).max(spent);
        let mut total = self.granted + granted - lease.granted;
        let within = request.limit.min(self.limit);
        let (remains, needs) = (within as i64 - total, request.needed as i64);
        let (mut state, mut size) = (ShareState::Done, 0);
        let mut holders = Vec::new();
        if needs > 0 {
            if self.held_until.is_some_and(|until| until > now) {
                state = ShareState::Elsewhere;
            } else if remains > 0 {
                let held = lease.granted - lease.base;
                let nodes = self.leases.len() as i64;
                size = if held > 8 && lease.granted * 2 > self.granted {
                    (remains + 1) / 2
                } else {
                    ((remains + nodes - 1) / nodes).max(4)
                };
                size = remains.min(needs.max(self.max_size.min(size)));
                granted += size;
                total += size;
            } else {
                holders = self.holders(Some(node));
                state = match holders.is_empty() {
                    true => ShareState::UsedUp,
                    false => ShareState::Elsewhere,
                };
            }
        }
        let is_granted = size > 0 && mutation != Mutation::UncountedGrant;
        if is_granted || granted != lease.granted {
            seq += 1;
        }
        if lease.exists || granted > 0 {
            let recalls = self.recalls;
            self.leases[node] = Lease { exists: true, granted, spent, seq, recalls, ..lease };
        }
        if (total < self.granted || needs == 0) && (self.is_over || self.was_recalled(now)) {
            news.push(News::Free);
            self.is_over = false;
        }
        if state == ShareState::UsedUp && !self.is_over {
            if granted == spent {
                news.push(News::UsedUp(within));
            }
            self.is_over = true;
        }
        if !holders.is_empty() && self.recalled_at.is_none_or(|at| at + 40 < now) {
            news.push(News::Recall(holders));
            self.recalled_at = Some(now);
            self.recalls += 1;
        }
        self.granted = total;
        (response(state, granted, spent, seq, total, self.epoch), size, news)
    }

    /// `report_leases`. Returns the lease, and the number of units that were spent without a grant.
    pub(super) fn report(
        &mut self,
        now: u64,
        node: usize,
        batch: &Batch,
    ) -> (ReportedLease, i64, Vec<News>) {
        let was_recalled = self.was_recalled(now);
        let lease = &mut self.leases[node];
        let spent = batch.spent as i64;
        let beyond = (spent - lease.granted).max(0);
        let back = if batch.epoch == self.epoch { batch.returned as i64 } else { 0 };
        lease.exists |= batch.spent > 0 || batch.returned > 0;
        lease.granted += beyond;
        lease.spent = lease.spent.max(spent);
        lease.base += back;
        self.granted += beyond - back;
        let mut news = Vec::new();
        if back > 0 {
            if self.is_over || was_recalled {
                news.push(News::Free);
            }
            self.is_over = false;
        }
        let [seq, granted, total] = [lease.seq, lease.granted, self.granted].map(|n| n as u64);
        (ReportedLease { seq, granted, total }, beyond, news)
    }

    /// `end_leases`.
    pub(super) fn end_leases(&mut self, now: u64, node: usize, counts_as_used: bool) -> Vec<News> {
        let was_recalled = self.was_recalled(now);
        let lease = &mut self.leases[node];
        let unused = lease.granted - lease.spent;
        if unused <= 0 {
            return Vec::new();
        }
        lease.seq += 1;
        if counts_as_used {
            lease.spent = lease.granted;
            return Vec::new();
        }
        lease.granted = lease.spent;
        self.granted -= unused;
        let is_heard = self.is_over || was_recalled;
        self.is_over = false;
        if is_heard { vec![News::Free] } else { Vec::new() }
    }

    /// `recall_leases`.
    pub(super) fn recall(&mut self, now: u64, holds: bool) -> Vec<News> {
        self.recalls += 1;
        self.recalled_at = Some(now);
        self.held_until = holds.then_some(now + HOLD);
        let holders = self.holders(None);
        if holders.is_empty() { Vec::new() } else { vec![News::Recall(holders)] }
    }

    /// `reset_counter`.
    pub(super) fn reset(&mut self) -> (u32, Vec<News>) {
        self.epoch += 1;
        for lease in &mut self.leases {
            lease.base = lease.spent;
        }
        self.granted = self.leases.iter().map(|lease| lease.granted - lease.base).sum();
        (self.is_over, self.held_until) = (false, None);
        (self.epoch, vec![News::Free])
    }
}
