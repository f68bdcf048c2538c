use std::{
    fmt,
    str::FromStr,
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

/// The name of a quota: 1–23 of the characters `a`–`z`, `0`–`9`, `-` and `_`.
///
/// A subject has a count of its own for each of them. [`DAILY`](Self::DAILY), the default, counts
/// requests.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct QuotaName {
    length: u8,
    text: [u8; Self::MAX_LENGTH],
}

/// A text that is not the name of a quota.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InvalidQuotaName(String);

impl QuotaName {
    /// The quota that reports, pages and the admin API show.
    pub const DAILY: Self = Self::copied_from(b"daily");
    /// Maximum length of a name in bytes.
    pub const MAX_LENGTH: usize = 23;

    /// Creates a name.
    ///
    /// # Errors
    ///
    /// The name is empty, too long, or has other characters.
    pub fn new(name: &str) -> Result<Self, InvalidQuotaName> {
        let is_valid = |byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_');
        if (1..=Self::MAX_LENGTH).contains(&name.len()) && name.bytes().all(is_valid) {
            Ok(Self::copied_from(name.as_bytes()))
        } else {
            Err(InvalidQuotaName(name.to_owned()))
        }
    }

    const fn copied_from(name: &[u8]) -> Self {
        let mut text = [0; Self::MAX_LENGTH];
        text.split_at_mut(name.len()).0.copy_from_slice(name);
        Self { length: name.len() as u8, text }
    }

    /// Returns the name as text.
    pub fn as_str(&self) -> &str {
        str::from_utf8(&self.text[..self.length.into()]).unwrap_or_default()
    }
}

impl Default for QuotaName {
    fn default() -> Self {
        Self::DAILY
    }
}

impl FromStr for QuotaName {
    type Err = InvalidQuotaName;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        Self::new(name)
    }
}

impl fmt::Debug for QuotaName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.as_str(), f)
    }
}

impl fmt::Display for QuotaName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl fmt::Display for InvalidQuotaName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(name) = self;
        write!(f, "invalid quota name {name:?}: 1 to 23 of a-z, 0-9, - and _ are accepted")
    }
}

impl std::error::Error for InvalidQuotaName {}

/// Demand of a request on a quota.
///
/// ```
/// use std::time::SystemTime;
/// use tower_quota::{
///     key::{DailyLimit, KeyId},
///     store::{Demand, QuotaName},
/// };
///
/// let limit = DailyLimit::new(100_000)?;
/// let tokens = QuotaName::new("tokens")?;
/// let demand = Demand::new(KeyId::from("alice"), limit, SystemTime::now()).quota(tokens).amount(800);
/// assert_eq!((demand.quota.as_str(), demand.amount), ("tokens", 800));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Demand {
    /// The quota; [`QuotaName::DAILY`] by default.
    pub quota: QuotaName,
    /// Whose units are counted.
    pub subject: KeyId,
    /// Units a day.
    pub limit: DailyLimit,
    /// Units that the request needs; 1 by default.
    pub amount: u64,
    /// Time of the request, which says the day.
    pub at: SystemTime,
}

impl Demand {
    /// Creates a demand for one unit of the daily quota.
    pub fn new(subject: KeyId, limit: DailyLimit, at: SystemTime) -> Self {
        Self { quota: QuotaName::DAILY, subject, limit, amount: 1, at }
    }

    /// Sets the quota.
    #[must_use]
    pub fn quota(self, quota: QuotaName) -> Self {
        Self { quota, ..self }
    }

    /// Sets how many units the request needs.
    #[must_use]
    pub fn amount(self, amount: u64) -> Self {
        Self { amount, ..self }
    }
}

/// Usage of a subject's quota on one day.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct QuotaStatus {
    /// The quota.
    pub quota: QuotaName,
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
    /// Creates a status of the quota [`QuotaName::DAILY`].
    pub fn new(day: Day, daily_limit: DailyLimit, used: u64, resets_at: SystemTime) -> Self {
        Self { quota: QuotaName::DAILY, day, daily_limit, used, resets_at }
    }

    /// Sets the quota.
    #[must_use]
    pub fn quota(self, quota: QuotaName) -> Self {
        Self { quota, ..self }
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
    /// The units were reserved.
    Admitted {
        /// The reserved units.
        reservation: Box<dyn Reservation>,
        /// Status that includes the reserved units.
        status: QuotaStatus,
    },
    /// Fewer units are left on this day than the request needs.
    Exhausted(QuotaStatus),
}

/// Units that are reserved and on record. Dropping the reservation keeps them charged.
///
/// For each request, [`commit`](Self::commit) is called once the inner service is running, then
/// [`refund`](Self::refund) if the policy says so, and [`poll_committed`](Self::poll_committed) must
/// be ready before the response is sent. If the amount was an estimate, [`settle`](Self::settle)
/// corrects it once it is known.
pub trait Reservation: Send {
    /// Starts to make the units durable. It is called once the inner service is running, so that it
    /// does not delay the request. [`poll_committed`](Self::poll_committed) does it otherwise.
    fn commit(&mut self) {}

    /// Ready once the reservation, and the refund if there was one, are as durable as the store
    /// guarantees.
    ///
    /// # Errors
    ///
    /// The units could not be made durable. They are not charged, and the response must not be sent.
    fn poll_committed(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), StoreError>>;

    /// Charges `actual` units instead of the reserved ones, on the day from which those were taken. Unused
    /// units are returned; more than were reserved are charged even beyond the limit, as they were
    /// used. It has no effect after a refund.
    fn settle(&mut self, actual: u64);

    /// Returns the units to the day from which they were taken, at most once and not across a reset of
    /// that day. Returns whether the units were returned.
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
    /// Refunds only if the number of units refunded under this condition on that day stays within the
    /// daily limit, so that a client gains nothing by provoking errors.
    UpToLimit,
}

/// Counts the units of each subject and day.
///
/// Of N concurrent reservations of A units each with R units left, exactly min(N, ⌊R / A⌋) are admitted.
pub trait QuotaStore: Send + Sync + 'static {
    /// Reserves units of the day that contains [`Demand::at`]. Once the future is ready, they are on
    /// record and survive the end of the process.
    ///
    /// # Errors
    ///
    /// `Unavailable` if the units could not be counted. The request must be rejected.
    fn reserve(&self, demand: &Demand) -> StoreFuture<ReserveOutcome>;

    /// Returns the status of the subject without reserving units.
    fn status(&self, demand: &Demand) -> StoreFuture<QuotaStatus>;
}

impl<T: QuotaStore + ?Sized> QuotaStore for Arc<T> {
    fn reserve(&self, demand: &Demand) -> StoreFuture<ReserveOutcome> {
        (**self).reserve(demand)
    }

    fn status(&self, demand: &Demand) -> StoreFuture<QuotaStatus> {
        (**self).status(demand)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quota_has_a_short_name_of_plain_characters() {
        let longest = "a".repeat(QuotaName::MAX_LENGTH);
        for name in ["daily", "tokens-2_b", &longest] {
            assert_eq!(QuotaName::new(name).unwrap().as_str(), name);
        }
        for name in ["", "Daily", "to kens", "ü", &"a".repeat(QuotaName::MAX_LENGTH + 1)] {
            assert_eq!(QuotaName::new(name), Err(InvalidQuotaName(name.to_owned())));
        }
        assert_eq!(QuotaName::DAILY, "daily".parse().unwrap());
    }
}
