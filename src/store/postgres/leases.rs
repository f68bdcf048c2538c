//! Leases of this node: what a checkpoint reports of them, and the trips for more units.

use std::{
    sync::atomic::Ordering,
    time::{Duration, Instant},
};

use deadpool_postgres::{Object, Pool};
use futures_util::future;
use tokio::time::timeout;
use tokio_postgres::Client;

use super::{
    core::Core,
    sql::{self, bigint, flag, int, int4, ints, text, texts, time},
    unavailable,
};
use crate::{
    clock::Day,
    error::StoreError,
    key::KeyLimit,
    store::{
        Quota,
        counter::CounterKey,
        engine::{
            UnusedUnits,
            pending::PendingBatch,
            share::{Hearing, ReportedLease, ShareRequest, ShareResponse, ShareState},
            trip::{SharedLedger, TripError},
        },
        sync::{Mutex, lock},
    },
};

/// Maximum number of units of an extension, which a node that is lost may hold.
const MAX_SIZE: i64 = 512;
/// Time for which a trip may take, a little longer than its statement.
const TRIP_TIMEOUT: Duration = Duration::from_millis(400);
/// Settings of a connection for trips.
pub(super) const TRIP_SETTINGS: &str = "SET statement_timeout = '250ms'; SET jit = off";

/// What a transaction does to the leases of this node.
#[derive(Default)]
pub(super) struct LeaseChanges {
    changes: Vec<LeaseChange>,
    /// How all leases end, if they do.
    unused: Option<UnusedUnits>,
}

/// What a batch says of one lease.
struct LeaseChange {
    key: CounterKey,
    day: Day,
    epoch: i64,
    spent: i64,
    /// Units of the last epoch that are given back, and those of them that a holder can provoke.
    returned: i64,
    provoked: i64,
    used: i64,
}

/// A lease after a checkpoint.
pub(super) struct Reported {
    pub(super) key: CounterKey,
    pub(super) day: Day,
    pub(super) lease: ReportedLease,
}

impl LeaseChanges {
    /// Adds what a batch says of the leases.
    pub(super) fn report(&mut self, batch: &PendingBatch) {
        for (id, subject) in batch.subjects() {
            let first = self.changes.len();
            for (quota, origin, delta) in &subject.counts {
                let Some(share) = delta.share else { continue };
                let returned = bigint(share.returned);
                let change = LeaseChange {
                    key: CounterKey { quota: *quota, subject: id.clone() },
                    day: origin.day,
                    epoch: origin.epoch.into(),
                    spent: bigint(share.spent),
                    returned,
                    provoked: delta.refunded.clamp(0, returned),
                    used: delta.used,
                };
                let of_subject = &mut self.changes[first..];
                match of_subject.iter_mut().find(|other| other.is_of_lease_of(&change)) {
                    Some(other) => other.add(&change),
                    None => self.changes.push(change),
                }
            }
        }
    }

    /// Ends all leases. `unused` says whether their unused units count as used.
    pub(super) fn end_all(&mut self, unused: UnusedUnits) {
        self.unused = Some(unused);
    }

    /// Returns whether all leases end.
    pub(super) fn ends_all(&self) -> bool {
        self.unused.is_some()
    }

    /// Makes the changes, in statements that do not wait for each other.
    pub(super) async fn write(&self, client: &Client, node: i32) -> sql::Result<Vec<Reported>> {
        let (reported, ended) =
            future::join(self.write_report(client, node), self.write_end(client, node)).await;
        let rows = reported?;
        ended?;
        let reported = rows.iter().map(|row| {
            let at = usize::try_from(row.try_get::<_, i64>(0)? - 1).unwrap_or_default();
            let [seq, granted, total] = [row.try_get(1)?, row.try_get(2)?, row.try_get(3)?];
            let [seq, granted, total] = [seq, granted, total].map(sql::count);
            let LeaseChange { key, day, .. } = &self.changes[at];
            let lease = ReportedLease { seq, granted, total };
            Ok(Reported { key: key.clone(), day: *day, lease })
        });
        reported.collect()
    }

    async fn write_report(
        &self,
        client: &Client,
        node: i32,
    ) -> sql::Result<Vec<tokio_postgres::Row>> {
        if self.changes.is_empty() {
            return Ok(Vec::new());
        }
        let ids: Vec<&str> = self.changes.iter().map(|of| of.key.subject.as_str()).collect();
        let quotas: Vec<&str> = self.changes.iter().map(|of| of.key.quota.as_str()).collect();
        let days: Vec<String> = self.changes.iter().map(|of| of.day.to_string()).collect();
        let column = |of: fn(&LeaseChange) -> i64| self.changes.iter().map(of).collect();
        let numbers: [Vec<i64>; 5] = [
            column(|of| of.epoch),
            column(|of| of.spent),
            column(|of| of.returned),
            column(|of| of.provoked),
            column(|of| of.used),
        ];
        let sql = "SELECT * FROM report_leases($1, $2, $3, $4, $5, $6, $7, $8, $9)";
        let mut values = vec![int4(&node), texts(&ids), texts(&quotas), texts(&days)];
        values.extend(numbers.iter().map(ints));
        sql::query(client, sql, &values).await
    }

    async fn write_end(&self, client: &Client, node: i32) -> sql::Result<()> {
        let Some(unused) = self.unused else { return Ok(()) };
        let counts_as_used = unused == UnusedUnits::Spent;
        let values = [int4(&node), flag(&counts_as_used)];
        sql::execute(client, "SELECT end_leases($1, $2)", &values).await.map(drop)
    }
}

impl LeaseChange {
    fn is_of_lease_of(&self, other: &Self) -> bool {
        self.day == other.day && self.key == other.key
    }

    /// Adds a change of the same lease, which has the units of all epochs of its period.
    fn add(&mut self, other: &Self) {
        self.spent = self.spent.max(other.spent);
        self.used = self.used.saturating_add(other.used);
        if other.epoch > self.epoch {
            self.epoch = other.epoch;
            self.returned = other.returned;
            self.provoked = other.provoked;
        }
    }
}

/// Connections for trips, and what is known of the last ones.
pub(super) struct Trips {
    pub(super) pool: Pool,
    breaker: Breaker,
}

impl Trips {
    pub(super) fn new(pool: Pool) -> Self {
        Self { pool, breaker: Breaker(Mutex::new(None)) }
    }
}

/// Lets one trip in an interval pass after one has failed, so that requests do not wait for a server that is not
/// there, and do not rush to it when it is back.
struct Breaker(Mutex<Option<Instant>>);

impl Breaker {
    const INTERVAL: Duration = Duration::from_millis(200);

    fn check(&self) -> Result<(), StoreError> {
        let now = Instant::now();
        match &mut *lock(&self.0) {
            Some(until) if now < *until => {
                Err(StoreError::unavailable("the last trip to the database has failed"))
            }
            Some(until) => {
                *until = now + Self::INTERVAL;
                Ok(())
            }
            None => Ok(()),
        }
    }

    fn note(&self, has_succeeded: bool) {
        let until = (!has_succeeded).then(|| Instant::now() + Self::INTERVAL);
        *lock(&self.0) = until;
    }
}

impl SharedLedger for Core {
    fn hearing(&self) -> Hearing {
        self.hearing.load(Ordering::Acquire)
    }

    async fn make(
        &self,
        key: &CounterKey,
        request: &ShareRequest,
    ) -> Result<ShareResponse, TripError> {
        if request.returned > 0 {
            self.queue.call(|_| Ok(()), |()| ()).await?;
        }
        self.trips.breaker.check()?;
        self.extend_lease(key, request).await
    }
}

impl Core {
    async fn extend_lease(
        &self,
        key: &CounterKey,
        request: &ShareRequest,
    ) -> Result<ShareResponse, TripError> {
        let ShareRequest { origin, seq, granted, spent, limit, needed, .. } = *request;
        let window = self.engine.calendar.window_from(key.quota.period(), origin.day);
        // Another clock than the database's has decided already.
        let own_time = self.has_own_clock().then_some(window.start);
        let default = if key.quota == Quota::MONTHLY {
            self.default_limits.others.get(KeyLimit::Monthly)
        } else {
            self.default_limits.daily
        };
        let default = default.units().map(bigint);
        let (id, quota, day) = (key.subject.as_str(), key.quota.as_str(), origin.day.to_string());
        let [seq_known, keeps, spent, needs] = [seq, granted, spent, needed].map(bigint);
        let limit = bigint(limit);
        let sql = "SELECT state, granted, spent, seq, total, epoch, at FROM extend_lease(
            $1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15)";
        let breaker = &self.trips.breaker;
        let client = self.trips.pool.get().await.map_err(|error| {
            breaker.note(false);
            unavailable(error)
        })?;
        let node = self.node();
        let values = [
            text(&id),
            text(&quota),
            text(&day),
            int4(&node.number),
            int(&node.session),
            time(&window.start),
            time(&window.end),
            time(&own_time),
            int(&seq_known),
            int(&keeps),
            int(&spent),
            int(&needs),
            int(&MAX_SIZE),
            int(&limit),
            int(&default),
        ];
        let began = Instant::now();
        let Ok(row) = timeout(TRIP_TIMEOUT, sql::one(&client, sql, &values)).await else {
            // The statement may still be executed on the connection.
            drop(Object::take(client));
            breaker.note(false);
            return Err(unavailable("the database did not respond in time").into());
        };
        // A lock that was waited for too long says nothing of the server.
        breaker.note(row.as_ref().err().is_none_or(|error| error.as_db_error().is_some()));
        let row = row.map_err(unavailable)?;
        let failed = |error: sql::Error| TripError::Store(unavailable(error));
        self.clock.set(row.try_get(6).map_err(failed)?, began);
        let state = match row.try_get(0).map_err(failed)? {
            "done" => ShareState::Done,
            "stale" => ShareState::Stale,
            "used up" => ShareState::UsedUp,
            "elsewhere" => ShareState::Elsewhere,
            "period" => return Err(TripError::OtherPeriod),
            "behind" => {
                return Err(
                    unavailable("the database has forgotten units that it had granted").into()
                );
            }
            _ => return Err(unavailable("another process counts with this journal").into()),
        };
        let number = |at| row.try_get::<_, i64>(at).map(sql::count).map_err(failed);
        Ok(ShareResponse {
            state,
            granted: number(1)?,
            spent: number(2)?,
            seq: number(3)?,
            total: number(4)?,
            epoch: u32::try_from(number(5)?).unwrap_or(u32::MAX),
        })
    }
}
