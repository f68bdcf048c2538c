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

/// Whose units are counted, and how many a day they have.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct QuotaSubject {
    /// The name under which units are counted.
    pub id: KeyId,
    /// Units a day.
    pub daily_limit: DailyLimit,
}

impl QuotaSubject {
    /// A subject of this name and limit.
    pub fn new(id: KeyId, daily_limit: DailyLimit) -> Self {
        Self { id, daily_limit }
    }
}

impl From<&KeyRecord> for QuotaSubject {
    fn from(record: &KeyRecord) -> Self {
        Self::new(record.id.clone(), record.daily_limit)
    }
}

/// Where a subject stands in its day.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct QuotaStatus {
    /// The day that is counted.
    pub day: Day,
    /// Units a day.
    pub daily_limit: DailyLimit,
    /// Units used of it.
    pub used: u64,
    /// When the next day begins.
    pub resets_at: SystemTime,
}

impl QuotaStatus {
    /// A status of these figures.
    pub fn new(day: Day, daily_limit: DailyLimit, used: u64, resets_at: SystemTime) -> Self {
        Self { day, daily_limit, used, resets_at }
    }

    /// Units left, or `None` if there is no limit. 0 when a lowered limit lies below what is used.
    pub fn remaining(&self) -> Option<u64> {
        self.daily_limit.limited().map(|limit| limit.saturating_sub(self.used))
    }
}

/// The answer to a reservation.
#[non_exhaustive]
pub enum ReserveOutcome {
    /// One unit was taken.
    Admitted {
        /// The unit.
        reservation: Box<dyn Reservation>,
        /// The status with this unit counted.
        status: QuotaStatus,
    },
    /// Nothing is left of the day.
    Exhausted(QuotaStatus),
}

/// One unit that was taken, and is on record as such. Dropping it keeps the unit charged.
///
/// The way of a request: [`commit`](Self::commit) once the inner service is at work, perhaps
/// [`refund`](Self::refund), then [`poll_committed`](Self::poll_committed), and only then its response
/// goes out.
pub trait Reservation: Send {
    /// Begins to make the unit durable. Called once the inner service is at work, so that this
    /// costs the request no time; [`poll_committed`](Self::poll_committed) does it otherwise.
    fn commit(&mut self) {}

    /// Ready once all that was done with this unit so far (taking it, giving it back) survives
    /// what the store promises for it.
    ///
    /// # Errors
    ///
    /// The unit could not be made durable: the request must not be answered. It is not charged.
    fn poll_committed(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), StoreError>>;

    /// Gives the unit back to the day (and to the reset of that day) it was taken from, once.
    /// Returns whether it was given back.
    fn refund(&mut self, refund: Refund) -> bool;

    /// The request as the store has it on record until its end, if the store keeps usage events, too.
    fn admission(&self) -> Option<Admission> {
        None
    }
}

/// Under which condition a unit is given back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Refund {
    /// In any case.
    Always,
    /// Only while fewer units were given back under this condition today than the daily limit is,
    /// so that provoked errors buy nothing.
    UpToLimit,
}

/// The authority over the units of a day.
///
/// For N concurrent reservations with R units left exactly min(N, R) are admitted.
pub trait QuotaStore: Send + Sync + 'static {
    /// Takes one unit of the day that holds `at`. When this is ready, the unit is on record: the end of
    /// the process does not undo it.
    ///
    /// # Errors
    ///
    /// `Unavailable` when the unit could not be counted: the request must be refused.
    fn reserve(&self, subject: &QuotaSubject, at: SystemTime) -> StoreFuture<ReserveOutcome>;

    /// Where the subject stands, without taking anything.
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
