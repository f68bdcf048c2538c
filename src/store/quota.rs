use std::{
    collections::VecDeque,
    fmt,
    hash::{Hash, Hasher},
    mem, ptr,
    str::FromStr,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll},
    time::SystemTime,
};

use super::{Admission, StoreFuture};
use crate::{
    clock::{Calendar, Day, Period, Window},
    error::{StoreError, StoreErrorKind},
    key::{KeyId, KeyRecord, Limit},
};

/// Subject of a quota and its limit.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct QuotaSubject {
    /// Id under which units are counted.
    pub id: KeyId,
    /// Maximum number of units per period.
    pub limit: Limit,
}

impl QuotaSubject {
    /// Creates a subject with this id and limit.
    pub fn new(id: KeyId, limit: Limit) -> Self {
        Self { id, limit }
    }
}

impl From<&KeyRecord> for QuotaSubject {
    fn from(record: &KeyRecord) -> Self {
        Self::new(record.id.clone(), record.daily_limit)
    }
}

/// Quota: its name, and the period in which its units are counted.
///
/// A subject has a count of its own for each. [`DAILY`](Self::DAILY), the default, counts requests.
/// A process has few quotas: each is kept in memory until the process ends.
#[derive(Clone, Copy)]
pub struct Quota(&'static Definition);

struct Definition {
    name: &'static str,
    period: Period,
    /// Name and, unless it is the default, period, as the back ends store them.
    text: &'static str,
}

static DAILY: Definition = Definition { name: "daily", period: Period::Day, text: "daily" };
static MONTHLY: Definition =
    Definition { name: "monthly", period: Period::Month, text: "monthly/month" };
/// Every other quota, once each: so quotas are equal if they are in the same place.
static OTHERS: Mutex<Vec<&Definition>> = Mutex::new(Vec::new());

/// A text that is not a quota.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InvalidQuota(String);

impl Quota {
    /// The quota that reports, pages and the admin API show.
    pub const DAILY: Self = Self(&DAILY);
    /// The quota of a key's requests per calendar month ([`KeyLimit::Monthly`](crate::key::KeyLimit::Monthly)).
    pub const MONTHLY: Self = Self(&MONTHLY);
    /// Maximum length of a name in bytes.
    pub const MAX_LENGTH: usize = 23;

    /// Creates a quota with a name of 1–23 of the characters `a`–`z`, `0`–`9`, `-` and `_`.
    ///
    /// # Errors
    ///
    /// The name is empty, too long, or has other characters.
    pub fn new(name: &str, period: Period) -> Result<Self, InvalidQuota> {
        let is_valid = |byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_');
        if !(1..=Self::MAX_LENGTH).contains(&name.len()) || !name.bytes().all(is_valid) {
            return Err(InvalidQuota(name.to_owned()));
        }
        let mut others = OTHERS.lock().unwrap_or_else(PoisonError::into_inner);
        let known = [&DAILY, &MONTHLY].into_iter().chain(others.iter().copied());
        let mut found = known.filter(|known| (known.name, known.period) == (name, period));
        if let Some(found) = found.next() {
            return Ok(Self(found));
        }
        let name: &str = name.to_owned().leak();
        let text = if period == Period::DEFAULT {
            name
        } else {
            format!("{name}/{}", period.as_str()).leak()
        };
        let new = Box::leak(Box::new(Definition { name, period, text }));
        others.push(new);
        Ok(Self(new))
    }

    /// Returns the name.
    pub fn name(self) -> &'static str {
        self.0.name
    }

    /// Returns the period in which units are counted.
    pub fn period(self) -> Period {
        self.0.period
    }

    /// Returns name and period as text: `tokens` for a daily quota, `exports/month` for a monthly one.
    pub fn as_str(self) -> &'static str {
        self.0.text
    }
}

impl Default for Quota {
    fn default() -> Self {
        Self::DAILY
    }
}

impl PartialEq for Quota {
    fn eq(&self, other: &Self) -> bool {
        ptr::eq(self.0, other.0)
    }
}

impl Eq for Quota {}

impl Hash for Quota {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.as_str().hash(state);
    }
}

impl FromStr for Quota {
    type Err = InvalidQuota;

    /// Parses the text that [`as_str`](Self::as_str) returns.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (name, period) = text.split_once('/').unwrap_or((text, Period::DEFAULT.as_str()));
        let period = Period::ALL.iter().copied().find(|known| known.as_str() == period);
        Self::new(name, period.ok_or_else(|| InvalidQuota(text.to_owned()))?)
    }
}

impl fmt::Debug for Quota {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.as_str(), f)
    }
}

impl fmt::Display for Quota {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl fmt::Display for InvalidQuota {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(name) = self;
        write!(f, "invalid quota {name:?}: 1 to 23 of a-z, 0-9, - and _ are accepted")
    }
}

impl std::error::Error for InvalidQuota {}

/// Demand of a request on a quota.
///
/// ```
/// use std::time::SystemTime;
/// use tower_quota::{
///     clock::Period,
///     key::{Limit, KeyId},
///     store::{Demand, Quota},
/// };
///
/// let limit = Limit::Units(100_000);
/// let tokens = Quota::new("tokens", Period::Day)?;
/// let demand = Demand::new(KeyId::from("alice"), limit, SystemTime::now()).quota(tokens).amount(800);
/// assert_eq!((demand.quota.name(), demand.amount), ("tokens", 800));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Demand {
    /// The quota; [`Quota::DAILY`] by default.
    pub quota: Quota,
    /// Subject whose units are counted.
    pub subject: KeyId,
    /// Maximum number of units per period.
    pub limit: Limit,
    /// Number of units that the request needs; 1 by default.
    pub amount: u64,
    /// Time of the request, which determines the period.
    pub at: SystemTime,
    /// The open request that the units belong to, if a store has admitted it already: under another quota, or
    /// with fewer units. A store that keeps a record of open requests then adds none.
    pub admission: Option<Admission>,
}

impl Demand {
    /// Creates a demand for one unit of the daily quota.
    pub fn new(subject: KeyId, limit: Limit, at: SystemTime) -> Self {
        Self { quota: Quota::DAILY, subject, limit, amount: 1, at, admission: None }
    }

    /// Sets the quota.
    #[must_use]
    pub fn quota(self, quota: Quota) -> Self {
        Self { quota, ..self }
    }

    /// Sets the number of units that the request needs.
    #[must_use]
    pub fn amount(self, amount: u64) -> Self {
        Self { amount, ..self }
    }

    /// Sets the open request that the units belong to.
    #[must_use]
    pub fn admission(self, admission: impl Into<Option<Admission>>) -> Self {
        Self { admission: admission.into(), ..self }
    }

    /// Returns the quota's period that contains the time of the request.
    pub fn window(&self, calendar: &Calendar) -> Window {
        calendar.window_in(self.quota.period(), self.at)
    }
}

/// Usage of a subject's quota in one period.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct QuotaStatus {
    /// The quota.
    pub quota: Quota,
    /// First day of the period: the current day of a daily quota.
    pub day: Day,
    /// Maximum number of units per period.
    pub limit: Limit,
    /// Number of units used in this period.
    pub used: u64,
    /// Time at which the next period begins.
    pub resets_at: SystemTime,
}

impl QuotaStatus {
    /// Creates a status of the quota [`Quota::DAILY`].
    pub fn new(day: Day, limit: Limit, used: u64, resets_at: SystemTime) -> Self {
        Self { quota: Quota::DAILY, day, limit, used, resets_at }
    }

    /// Sets the quota.
    #[must_use]
    pub fn quota(self, quota: Quota) -> Self {
        Self { quota, ..self }
    }

    /// Returns the number of units left, or `None` if there is no limit. It is 0 if the limit was
    /// lowered below the number of used units.
    pub fn remaining(&self) -> Option<u64> {
        self.limit.units().map(|limit| limit.saturating_sub(self.used))
    }

    /// Returns the status with the fewest units left, the first of several. An unlimited one is returned only if
    /// all are unlimited.
    pub fn most_constrained(statuses: &[Self]) -> Option<&Self> {
        let limited = statuses.iter().filter(|status| status.limit.units().is_some());
        limited.min_by_key(|status| status.remaining()).or(statuses.first())
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
    /// Fewer units are left in this period than the request needs.
    Exhausted(QuotaStatus),
    /// Units are left, but none can be used now, as other nodes hold them. Another attempt may succeed after a second.
    Elsewhere(QuotaStatus),
}

impl ReserveOutcome {
    /// Admits a request in a store that is done with it once the units are counted, unless they are refunded:
    /// then `on_refund` returns them, at most once, and returns whether it has ([`Reservation::refund`]).
    ///
    /// The amount cannot be corrected, as a refund returns what the corrections before it have left: a second closure
    /// would have to share that number with this one. [`settle`](Reservation::settle) fails with `NotSupported`, so
    /// that a request whose handler charges less or more keeps what was reserved, with a warning in the log. A store
    /// that corrects amounts implements [`Reservation`] on a type that has the number, as the example `custom_store`
    /// does.
    ///
    /// ```
    /// use std::sync::{Arc, Mutex};
    /// use tower_quota::{
    ///     clock::Calendar,
    ///     key::{KeyId, Limit},
    ///     store::{Demand, QuotaStatus, QuotaStore, ReserveOutcome, StoreFuture},
    /// };
    ///
    /// /// Counts all requests of the process together, for ever.
    /// #[derive(Clone, Default)]
    /// struct Total(Arc<Mutex<u64>>);
    ///
    /// impl QuotaStore for Total {
    ///     fn reserve(&self, demand: &Demand) -> StoreFuture<ReserveOutcome> {
    ///         let (mut used, amount) = (self.0.lock().expect("no panic while locked"), demand.amount);
    ///         let fits = demand.limit.units().is_none_or(|limit| amount <= limit.saturating_sub(*used));
    ///         *used += if fits { amount } else { 0 };
    ///         let (total, status) = (self.clone(), status(demand, *used));
    ///         StoreFuture::ready(Ok(match fits {
    ///             false => ReserveOutcome::Exhausted(status),
    ///             true => ReserveOutcome::admitted(status, move |_| {
    ///                 *total.0.lock().expect("no panic while locked") -= amount;
    ///                 StoreFuture::ready(Ok(true))
    ///             }),
    ///         }))
    ///     }
    ///
    ///     fn status(&self, demand: &Demand) -> StoreFuture<QuotaStatus> {
    ///         StoreFuture::ready(Ok(status(demand, *self.0.lock().expect("no panic while locked"))))
    ///     }
    /// }
    ///
    /// fn status(demand: &Demand, used: u64) -> QuotaStatus {
    ///     let window = demand.window(&Calendar::utc());
    ///     QuotaStatus::new(window.day, demand.limit, used, window.end).quota(demand.quota)
    /// }
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() {
    /// let store = Total::default();
    /// let demand = Demand::new(KeyId::from("alice"), Limit::Units(1), std::time::SystemTime::now());
    /// let Ok(ReserveOutcome::Admitted { mut reservation, status }) = store.reserve(&demand).await else { panic!() };
    /// assert_eq!(status.remaining(), Some(0));
    /// assert!(matches!(store.reserve(&demand).await, Ok(ReserveOutcome::Exhausted(_))));
    /// assert!(reservation.refund(tower_quota::store::Refund::Always).await.unwrap());
    /// assert!(matches!(store.reserve(&demand).await, Ok(ReserveOutcome::Admitted { .. })));
    /// # }
    /// ```
    pub fn admitted(
        status: QuotaStatus,
        on_refund: impl FnOnce(Refund) -> StoreFuture<bool> + Send + 'static,
    ) -> Self {
        Self::Admitted { reservation: Box::new(Counted(Some(on_refund))), status }
    }
}

impl fmt::Debug for ReserveOutcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Admitted { reservation: _, status } => {
                f.debug_struct("Admitted").field("status", status).finish_non_exhaustive()
            }
            Self::Exhausted(status) => f.debug_tuple("Exhausted").field(status).finish(),
            Self::Elsewhere(status) => f.debug_tuple("Elsewhere").field(status).finish(),
        }
    }
}

/// Outcome of a reservation under several quotas.
#[non_exhaustive]
pub enum ReserveAllOutcome {
    /// The units of each demand were reserved: the reservations, and the statuses that include them, in the order of the
    /// demands.
    Admitted(Vec<(Box<dyn Reservation>, QuotaStatus)>),
    /// Nothing was reserved, as fewer units are left of these quotas, and maybe of others, than the request needs.
    Exhausted(Vec<QuotaStatus>),
    /// Nothing was reserved, as other nodes hold what is left of these quotas. Another attempt may succeed after a
    /// second.
    Elsewhere(Vec<QuotaStatus>),
}

/// A reservation, and the status that includes its units.
pub(crate) type ReservedUnits = (Box<dyn Reservation>, QuotaStatus);

impl fmt::Debug for ReserveAllOutcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Admitted(admitted) => {
                let statuses: Vec<_> = admitted.iter().map(|(_, status)| status).collect();
                f.debug_tuple("Admitted").field(&statuses).finish()
            }
            Self::Exhausted(statuses) => f.debug_tuple("Exhausted").field(statuses).finish(),
            Self::Elsewhere(statuses) => f.debug_tuple("Elsewhere").field(statuses).finish(),
        }
    }
}

/// Waits for the outcomes of several reservations, and refunds those that were made if one was not.
async fn all_or_none(
    reserving: Vec<StoreFuture<ReserveOutcome>>,
) -> Result<ReserveAllOutcome, StoreError> {
    let mut all =
        Reserving { made: Vec::with_capacity(reserving.len()), reserving: reserving.into() };
    let (mut exhausted, mut elsewhere, mut failed) = (Vec::new(), Vec::new(), None);
    // Each stays in its place until it is decided, so that none is lost if this is dropped.
    while let Some(next) = all.reserving.front_mut() {
        let outcome = next.await;
        all.reserving.pop_front();
        match outcome {
            Ok(ReserveOutcome::Admitted { reservation, status }) => {
                all.made.push((reservation, status));
            }
            Ok(ReserveOutcome::Exhausted(status)) => exhausted.push(status),
            Ok(ReserveOutcome::Elsewhere(status)) => elsewhere.push(status),
            Err(error) => failed = Some(error),
        }
    }
    if failed.is_none() && exhausted.is_empty() && elsewhere.is_empty() {
        return Ok(ReserveAllOutcome::Admitted(mem::take(&mut all.made)));
    }
    for refund in all.refund() {
        refund.await?;
    }
    match failed {
        Some(error) => Err(error),
        None if !exhausted.is_empty() => Ok(ReserveAllOutcome::Exhausted(exhausted)),
        None => Ok(ReserveAllOutcome::Elsewhere(elsewhere)),
    }
}

/// Reservations of one request. What was reserved is refunded on drop.
struct Reserving {
    reserving: VecDeque<StoreFuture<ReserveOutcome>>,
    made: Vec<ReservedUnits>,
}

impl Reserving {
    fn refund(&mut self) -> Vec<StoreFuture<bool>> {
        self.made.drain(..).map(|(mut made, _)| made.refund(Refund::Always)).collect()
    }
}

impl Drop for Reserving {
    fn drop(&mut self) {
        for mut decided in self.reserving.drain(..) {
            if let Some(Ok(ReserveOutcome::Admitted { reservation, status })) = decided.take_ready()
            {
                self.made.push((reservation, status));
            }
        }
        // The store makes the changes whether they are waited for or not.
        drop(self.refund());
    }
}

/// Error of demands of one request that have the same quota and subject.
pub(crate) fn same_counter() -> StoreError {
    StoreError::unavailable("two demands of the request have the same quota and subject")
}

/// Reservation of [`ReserveOutcome::admitted`], with the function that is called at a refund.
struct Counted<F>(Option<F>);

impl<F> Reservation for Counted<F>
where
    F: FnOnce(Refund) -> StoreFuture<bool> + Send,
{
    fn settle(&mut self, _: u64) -> StoreFuture<()> {
        match self.0 {
            Some(_) => StoreFuture::ready(Err(StoreError::new(StoreErrorKind::NotSupported))),
            // It was refunded.
            None => StoreFuture::ready(Ok(())),
        }
    }

    fn refund(&mut self, refund: Refund) -> StoreFuture<bool> {
        match self.0.take() {
            Some(on_refund) => on_refund(refund),
            None => StoreFuture::ready(Ok(false)),
        }
    }
}

/// Units that are reserved and on record. Dropping the reservation keeps them charged.
///
/// For each request, [`commit`](Self::commit) is called once the inner service is running, then
/// [`refund`](Self::refund) if the policy says so, and [`poll_committed`](Self::poll_committed) must
/// be ready before the response is sent. If the amount was an estimate, [`settle`](Self::settle)
/// corrects it once it is known.
///
/// The layer waits for the futures of [`settle`](Self::settle) and [`refund`](Self::refund) before it returns
/// the response, or at its end the last frame. It cannot wait when the client has left: then the future is
/// dropped, most often before its first poll. **Dropping it must not cancel the change.** A store that needs
/// the network hands the change over when it is called, to a task or a queue of its own, and returns a future
/// of the result:
///
/// ```
/// # use std::{io, sync::Arc};
/// use tower_quota::{error::StoreError, store::{Refund, Reservation, StoreFuture}};
/// # struct Client;
/// # impl Client {
/// #     async fn refund(&self, _: u64, _: Refund) -> io::Result<bool> { Ok(true) }
/// #     async fn settle(&self, _: u64, _: u64) -> io::Result<()> { Ok(()) }
/// # }
///
/// struct Reserved {
///     client: Arc<Client>,
///     id: u64,
/// }
///
/// impl Reserved {
///     fn hand_over<T: Send + 'static>(
///         change: impl Future<Output = io::Result<T>> + Send + 'static,
///     ) -> StoreFuture<T> {
///         let task = tokio::spawn(change);
///         StoreFuture::pending(async {
///             task.await.map_err(StoreError::unavailable)?.map_err(StoreError::unavailable)
///         })
///     }
/// }
///
/// impl Reservation for Reserved {
///     fn settle(&mut self, actual: u64) -> StoreFuture<()> {
///         let (client, id) = (self.client.clone(), self.id);
///         Self::hand_over(async move { client.settle(id, actual).await })
///     }
///
///     fn refund(&mut self, refund: Refund) -> StoreFuture<bool> {
///         let (client, id) = (self.client.clone(), self.id);
///         Self::hand_over(async move { client.refund(id, refund).await })
///     }
/// }
/// ```
pub trait Reservation: Send {
    /// Starts to make the units durable. It is called once the inner service is running, so that it
    /// does not delay the request. [`poll_committed`](Self::poll_committed) does it otherwise.
    fn commit(&mut self) {}

    /// Completes once the reservation, and the refund if there was one, are as durable as the store
    /// guarantees. By default they are when [`QuotaStore::reserve`] returns.
    ///
    /// # Errors
    ///
    /// The units could not be made durable. They are not charged, and the response must not be sent.
    fn poll_committed(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), StoreError>> {
        let _ = cx;
        Poll::Ready(Ok(()))
    }

    /// Charges `actual` units instead of the reserved ones, to the period from which those were taken. Unused
    /// units are returned; more than were reserved are charged even beyond the limit, as they were
    /// used. It has no effect after a refund.
    ///
    /// # Errors
    ///
    /// The store could not change the charge, or does not know whether it has.
    fn settle(&mut self, actual: u64) -> StoreFuture<()>;

    /// Returns the units to the period from which they were taken, at most once and not across a reset.
    /// The result is whether the units were returned.
    ///
    /// # Errors
    ///
    /// The store could not return the units, or does not know whether it has.
    fn refund(&mut self, refund: Refund) -> StoreFuture<bool>;

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
    /// Refunds only if the number of units refunded under this condition in that period stays within the
    /// limit, so that a client gains nothing by provoking errors.
    UpToLimit,
}

/// Counts the units of each subject and period.
///
/// Of N concurrent reservations of A units each with R units left, exactly min(N, ⌊R / A⌋) are admitted.
pub trait QuotaStore: Send + Sync + 'static {
    /// Reserves units of the period that contains [`Demand::at`]. Once the future is ready, they are on
    /// record and survive the end of the process.
    ///
    /// # Errors
    ///
    /// `Unavailable` if the units could not be counted. The request must be rejected.
    fn reserve(&self, demand: &Demand) -> StoreFuture<ReserveOutcome>;

    /// Reserves the units of all demands of a request, or none. Each has another quota or subject, and the first one
    /// is that of the request's key, if any is.
    ///
    /// By default each demand is reserved by itself, and what was reserved is refunded if not all could be. Until then its
    /// units are missing for other requests; if the future is dropped, so are those of a [`reserve`](Self::reserve) that
    /// is not decided then. The stores of this crate take all in one step.
    ///
    /// # Errors
    ///
    /// `Unavailable` if the units could not be counted. The request must be rejected.
    fn reserve_all(&self, demands: &[Demand]) -> StoreFuture<ReserveAllOutcome> {
        let is_same = |a: &Demand, b: &Demand| a.quota == b.quota && a.subject == b.subject;
        let mut earlier =
            demands.iter().enumerate().map(|(index, demand)| (demand, &demands[..index]));
        if earlier.any(|(demand, earlier)| earlier.iter().any(|other| is_same(demand, other))) {
            return StoreFuture::ready(Err(same_counter()));
        }
        let reserving = demands.iter().map(|demand| self.reserve(demand)).collect();
        StoreFuture::pending(all_or_none(reserving))
    }

    /// Returns the status of the subject without reserving units.
    fn status(&self, demand: &Demand) -> StoreFuture<QuotaStatus>;
}

impl<T: QuotaStore + ?Sized> QuotaStore for Arc<T> {
    fn reserve(&self, demand: &Demand) -> StoreFuture<ReserveOutcome> {
        (**self).reserve(demand)
    }

    fn reserve_all(&self, demands: &[Demand]) -> StoreFuture<ReserveAllOutcome> {
        (**self).reserve_all(demands)
    }

    fn status(&self, demand: &Demand) -> StoreFuture<QuotaStatus> {
        (**self).status(demand)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;

    #[test]
    fn a_quota_has_a_short_name_of_plain_characters() {
        let longest = "a".repeat(Quota::MAX_LENGTH);
        for name in ["daily", "tokens-2_b", &longest] {
            let quota = Quota::new(name, Period::Day).unwrap();
            assert_eq!((quota.name(), quota.as_str(), name.parse()), (name, name, Ok(quota)));
        }
        for name in ["", "Daily", "to kens", "ü", "a/day", &"a".repeat(Quota::MAX_LENGTH + 1)] {
            assert_eq!(Quota::new(name, Period::Day), Err(InvalidQuota(name.to_owned())));
        }
        assert_eq!(Quota::DAILY, "daily".parse().unwrap());
        let monthly = Quota::new("daily", Period::Month).unwrap();
        assert_eq!((monthly.as_str(), "daily/month".parse()), ("daily/month", Ok(monthly)));
        assert_ne!(monthly, Quota::DAILY);
        assert_eq!(Quota::new("monthly", Period::Month), Ok(Quota::MONTHLY));
        assert_eq!(Quota::MONTHLY, Quota::MONTHLY.as_str().parse().unwrap());
        assert!("tokens/second".parse::<Quota>().is_err());
    }

    /// A store that decides on other quotas than the daily one at once, and counts what is refunded.
    #[derive(Clone, Default)]
    struct Undecided(Arc<AtomicU64>);

    impl QuotaStore for Undecided {
        fn reserve(&self, demand: &Demand) -> StoreFuture<ReserveOutcome> {
            if demand.quota == Quota::DAILY {
                return StoreFuture::pending(std::future::pending());
            }
            let (refunded, window) = (self.0.clone(), demand.window(&Calendar::utc()));
            let status = QuotaStatus::new(window.day, demand.limit, 1, window.end);
            StoreFuture::ready(Ok(ReserveOutcome::admitted(status, move |_| {
                refunded.fetch_add(1, Ordering::Relaxed);
                StoreFuture::ready(Ok(true))
            })))
        }

        fn status(&self, _: &Demand) -> StoreFuture<QuotaStatus> {
            StoreFuture::ready(Err(StoreError::new(StoreErrorKind::NotSupported)))
        }
    }

    #[test]
    fn units_that_a_dropped_reservation_has_made_by_then_are_refunded() {
        let store = Undecided::default();
        let demand = |quota| {
            Demand::new("alice".into(), Limit::Units(9), SystemTime::UNIX_EPOCH).quota(quota)
        };
        let tokens = Quota::new("tokens", Period::Day).unwrap();
        // One is decided before the future waits for another, one is behind it.
        let demands = [demand(Quota::MONTHLY), demand(Quota::DAILY), demand(tokens)];
        let mut reserving = store.reserve_all(&demands);
        let mut cx = Context::from_waker(std::task::Waker::noop());
        assert!(std::pin::Pin::new(&mut reserving).poll(&mut cx).is_pending());
        assert_eq!(store.0.load(Ordering::Relaxed), 0);
        drop(reserving);
        assert_eq!(store.0.load(Ordering::Relaxed), 2);
    }
}
