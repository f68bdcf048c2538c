//! A quota by the month: its count outlasts days, restarts and eviction, and ends with the calendar month of the
//! store's time zone.

use std::{
    sync::{Arc, Mutex},
    time::SystemTime,
};

use tower_quota::{
    clock::{Calendar, Clock, Period, rfc3339},
    key::{KeyId, Limit},
    store::{
        Demand, Quota, QuotaStatus, QuotaStore, ReserveOutcome,
        memory::MemoryStore,
        sqlite::{SqliteOptions, SqliteStore},
    },
};

const LIMIT: u64 = 2;

/// Times in Berlin in their order, how many units are admitted then, and the first day and the end of the month.
const TIMES: &[(&str, u64, &str, &str)] = &[
    ("2026-10-01T00:00:00+02:00", LIMIT, "2026-10-01", "2026-10-31T23:00:00Z"),
    ("2026-10-02T00:00:00+02:00", 0, "2026-10-01", "2026-10-31T23:00:00Z"),
    // An hour longer, as daylight saving time ends on the 25th.
    ("2026-10-31T23:59:59+01:00", 0, "2026-10-01", "2026-10-31T23:00:00Z"),
    ("2026-11-01T00:00:00+01:00", LIMIT, "2026-11-01", "2026-11-30T23:00:00Z"),
    ("2026-12-31T23:59:59+01:00", LIMIT, "2026-12-01", "2026-12-31T23:00:00Z"),
    ("2027-01-01T00:00:00+01:00", LIMIT, "2027-01-01", "2027-01-31T23:00:00Z"),
    ("2027-01-30T12:00:00+01:00", 0, "2027-01-01", "2027-01-31T23:00:00Z"),
    ("2027-03-31T23:59:59+02:00", LIMIT, "2027-03-01", "2027-03-31T22:00:00Z"),
];

#[derive(Clone)]
struct Time(Arc<Mutex<SystemTime>>);

impl Time {
    fn set(&self, text: &str) {
        *self.0.lock().unwrap() = instant(text);
    }
}

impl Clock for Time {
    fn now(&self) -> SystemTime {
        *self.0.lock().unwrap()
    }
}

fn instant(text: &str) -> SystemTime {
    text.parse::<jiff::Timestamp>().unwrap().into()
}

fn berlin() -> Calendar {
    Calendar::new("Europe/Berlin").unwrap()
}

fn demand(subject: &str, time: &Time) -> Demand {
    let exports = Quota::new("exports", Period::Month).unwrap();
    Demand::new(KeyId::from(subject), Limit::Units(LIMIT), time.now()).quota(exports)
}

/// Returns how many of more units than the limit are admitted, and the last status.
async fn take_all(store: &impl QuotaStore, demand: &Demand) -> (u64, QuotaStatus) {
    let mut admitted = 0;
    loop {
        match store.reserve(demand).await.unwrap() {
            ReserveOutcome::Admitted { .. } => admitted += 1,
            ReserveOutcome::Exhausted(status) => return (admitted, status),
            _ => unreachable!("there are two outcomes"),
        }
    }
}

async fn is_counted(store: &impl QuotaStore, time: &Time) {
    let now = time.now();
    let (_, expected, first, end) = TIMES.iter().find(|(at, ..)| instant(at) == now).unwrap();
    let (admitted, status) = take_all(store, &demand("acme", time)).await;
    let seen = (admitted, status.day.to_string(), rfc3339(status.resets_at));
    assert_eq!(seen, (*expected, (*first).to_owned(), (*end).to_owned()), "{now:?}");
    let daily = demand("acme", time).quota(Quota::DAILY);
    assert_eq!(take_all(store, &daily).await.0, LIMIT, "each day has a count of its own");
}

#[tokio::test]
async fn a_month_outlasts_the_days_and_subjects_of_a_store_in_memory() {
    let time = Time(Arc::new(Mutex::new(SystemTime::UNIX_EPOCH)));
    let store = MemoryStore::with_time(berlin(), time.clone());
    for (at, ..) in TIMES {
        time.set(at);
        // A new subject each day makes the store forget those of past periods.
        take_all(&store, &demand(at, &time)).await;
        is_counted(&store, &time).await;
    }
}

#[tokio::test]
async fn a_month_outlasts_restarts() {
    let directory = tempfile::tempdir().unwrap();
    let time = Time(Arc::new(Mutex::new(SystemTime::UNIX_EPOCH)));
    for (at, ..) in TIMES {
        time.set(at);
        let options = SqliteOptions::new(directory.path().join("quota.db")).calendar(berlin());
        let store = SqliteStore::open(options.clock(time.clone())).unwrap();
        is_counted(&store, &time).await;
        store.close().await.unwrap();
    }
}
