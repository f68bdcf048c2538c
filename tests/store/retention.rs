//! Single requests are kept for the configured number of days; their sums stay.

use std::time::{Duration, SystemTime};

use crate::common::eventually;
use tower_quota::{
    clock::Clock,
    key::KeyId,
    store::{
        RequestOutcome, UsageEvent, UsageSink,
        report::{RequestQuery, UsageQuery, UsageReader},
        sqlite::{SqliteOptions, SqliteStore},
    },
};

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

struct Fixed(SystemTime);

impl Clock for Fixed {
    fn now(&self) -> SystemTime {
        self.0
    }
}

fn event(at: SystemTime) -> UsageEvent {
    let mut event = UsageEvent::new(at);
    event.key_id = Some(KeyId::from("alice"));
    event.outcome = RequestOutcome::Succeeded;
    event
}

#[tokio::test(flavor = "multi_thread")]
async fn expired_requests_are_deleted_in_batches_and_the_sums_stay() {
    const OLD: u64 = 2500;
    const AHEAD: u64 = 1500;
    let directory = tempfile::tempdir().unwrap();
    let open = |now, days| {
        let options = SqliteOptions::new(directory.path().join("quota.db"));
        SqliteStore::open(options.clock(Fixed(now)).retention_days(days)).unwrap()
    };
    let rows =
        async |store: &SqliteStore| store.requests(RequestQuery::latest(9999)).await.unwrap();
    let then = SystemTime::now() - 10 * DAY;
    let store = open(then, 3);
    // Of a clock that was ahead for a while: more than are looked at in one go.
    (0..AHEAD).for_each(|_| store.record(event(then + 900 * DAY)));
    (0..OLD).for_each(|_| store.record(event(then)));
    store.record(event(then + 2 * DAY));
    assert_eq!(rows(&store).await.len() as u64, AHEAD + OLD + 1);
    store.close().await.unwrap();
    drop(store);

    let store = open(then + 4 * DAY, 3);
    let are_forgotten = || async { rows(&store).await.len() as u64 == AHEAD + 1 };
    eventually("the old ones are forgotten", are_forgotten).await;
    let (from, to) = (store_day(then), store_day(then + 2 * DAY));
    let report = store.report(UsageQuery::days(from, to)).await.unwrap();
    assert_eq!(report.total_requests, OLD + 1);
    store.close().await.unwrap();
    drop(store);

    let store = open(then + 4 * DAY, 0);
    store.record(event(then + 4 * DAY));
    eventually("none is kept any more", || async { rows(&store).await.is_empty() }).await;
    store.close().await.unwrap();
}

fn store_day(at: SystemTime) -> tower_quota::clock::Day {
    tower_quota::clock::Calendar::utc().window(at).day
}
