use std::{
    sync::Arc,
    task::{Context, Poll},
    time::SystemTime,
};

use super::{Admission, StoreFuture};
use crate::{
    clock::Day,
    error::StoreError,
    key::{DailyLimit, KeyId, KeyRecord},
};

/// Subject of a quota and its daily limit.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct QuotaSubject {
    /// Id under which units are counted.
    pub id: KeyId,
    /// Maximum number of units per day.
    pub daily_limit: DailyLimit,
}

impl QuotaSubject {
    /// Creates a subject with this id and limit.
    pub fn new(id: KeyId, daily_limit: DailyLimit) -> Self {
        Self { id, daily_limit }
    }
}

impl From<&KeyRecord> for QuotaSubject {
    fn from(record: &KeyRecord) -> Self {
        Self::new(record.id.clone(), record.daily_limit)
    }
}

/// Usage of a subject's daily quota.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct QuotaStatus {
    /// The current day.
    pub day: Day,
    /// Maximum number of units per day.
    pub daily_limit: DailyLimit,
    /// Units used on this day.
    pub used: u64,
    /// Time at which the next day begins.
    pub resets_at: SystemTime,
}

impl QuotaStatus {
    /// Creates a status.
    pub fn new(day: Day, daily_limit: DailyLimit, used: u64, resets_at: SystemTime) -> Self {
        Self { day, daily_limit, used, resets_at }
    }

    /// Returns the number of units left, or `None` if there is no limit. It is 0 if the limit was
    /// lowered below the number of used units.
    pub fn remaining(&self) -> Option<u64> {
        self.daily_limit.limited().map(|limit| limit.saturating_sub(self.used))
    }
}

/// Outcome of a reservation.
#[non_exhaustive]
pub enum ReserveOutcome {
    /// A unit was reserved.
    Admitted {
        /// The reserved unit.
        reservation: Box<dyn Reservation>,
        /// Status that includes the reserved unit.
        status: QuotaStatus,
    },
    /// No units are left on this day.
    Exhausted(QuotaStatus),
}

/// Unit that is reserved and on record. Dropping the reservation keeps the unit charged.
///
/// For each request, [`commit`](Self::commit) is called once the inner service is running, then
/// [`refund`](Self::refund) if the policy says so, and [`poll_committed`](Self::poll_committed) must
/// be ready before the response is sent.
pub trait Reservation: Send {
    /// Starts to make the unit durable. It is called once the inner service is running, so that it
    /// does not delay the request. [`poll_committed`](Self::poll_committed) does it otherwise.
    fn commit(&mut self) {}

    /// Ready once the reservation, and the refund if there was one, are as durable as the store
    /// guarantees.
    ///
    /// # Errors
    ///
    /// The unit could not be made durable. It is not charged, and the response must not be sent.
    fn poll_committed(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), StoreError>>;

    /// Returns the unit to the day from which it was taken, at most once and not across a reset of
    /// that day. Returns whether the unit was returned.
    fn refund(&mut self, refund: Refund) -> bool;

    /// Returns the store's record of the unfinished request, if the store also records usage
    /// events.
    fn admission(&self) -> Option<Admission> {
        None
    }
}

/// Condition of a refund.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Refund {
    /// Refunds unconditionally.
    Always,
    /// Refunds only while the number of units refunded under this condition on that day is below
    /// the daily limit, so that a client gains nothing by provoking errors.
    UpToLimit,
}

/// Counts the units of each subject and day.
///
/// Of N concurrent reservations with R units left, exactly min(N, R) are admitted.
pub trait QuotaStore: Send + Sync + 'static {
    /// Reserves one unit of the day that contains `at`. Once the future is ready, the unit is on
    /// record and survives the end of the process.
    ///
    /// # Errors
    ///
    /// `Unavailable` if the unit could not be counted. The request must be rejected.
    fn reserve(&self, subject: &QuotaSubject, at: SystemTime) -> StoreFuture<ReserveOutcome>;

    /// Returns the status of the subject without reserving a unit.
    fn status(&self, subject: &QuotaSubject, at: SystemTime) -> StoreFuture<QuotaStatus>;
}

impl<T: QuotaStore + ?Sized> QuotaStore for Arc<T> {
    fn reserve(&self, subject: &QuotaSubject, at: SystemTime) -> StoreFuture<ReserveOutcome> {
        (**self).reserve(subject, at)
    }

    fn status(&self, subject: &QuotaSubject, at: SystemTime) -> StoreFuture<QuotaStatus> {
        (**self).status(subject, at)
    }
}
