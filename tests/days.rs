//! When the day turns, in any time zone and whatever the clock does.

use std::{
    convert::Infallible,
    future::Ready,
    path::Path,
    sync::{Arc, Mutex},
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use http::{Request, Response, request::Parts};
use http_body_util::Full;
use tower::{Layer, ServiceExt, service_fn};
use tower_quota::{
    clock::{Calendar, Clock},
    key::{DailyLimit, KeyId},
    quota::DailyQuotaLayer,
    store::{
        QuotaStore, QuotaSubject,
        memory::MemoryStore,
        sqlite::{SqliteOptions, SqliteStore},
    },
};

const LIMIT: u32 = 2;

#[derive(Clone)]
struct TestClock(Arc<Mutex<SystemTime>>);

impl Clock for TestClock {
    fn now(&self) -> SystemTime {
        *self.0.lock().unwrap()
    }
}

fn at(text: &str) -> SystemTime {
    text.parse::<jiff::Timestamp>().unwrap().into()
}

/// A service with a quota, whose clock can be set.
struct Served<Q> {
    clock: TestClock,
    store: Q,
}

impl<Q: QuotaStore + Clone> Served<Q> {
    /// The status of a request at this time, and one of its headers.
    async fn ask(&self, at: SystemTime, header: &str) -> (u16, String) {
        *self.clock.0.lock().unwrap() = at;
        let subject = |_: &Parts| {
            Some(QuotaSubject::new(KeyId::from("alice"), DailyLimit::new(LIMIT).unwrap()))
        };
        let layer =
            DailyQuotaLayer::new(self.store.clone()).subject(subject).clock(self.clock.clone());
        let answer = layer.layer(service_fn(hello)).oneshot(Request::new(())).await.unwrap();
        let header = answer.headers().get(header).map(|value| value.to_str().unwrap().to_owned());
        (answer.status().as_u16(), header.unwrap_or_default())
    }

    async fn status(&self, at: SystemTime) -> u16 {
        self.ask(at, "date").await.0
    }

    /// Exactly the limit is admitted at this time.
    async fn is_a_new_day(&self, at: SystemTime, what: &str) {
        for _ in 0..LIMIT {
            assert_eq!(self.status(at).await, 200, "{what}");
        }
        assert_eq!(self.status(at).await, 429, "{what}");
    }
}

fn hello(_: Request<()>) -> Ready<Result<Response<Full<Bytes>>, Infallible>> {
    std::future::ready(Ok(Response::new(Full::from("hello"))))
}

fn clock() -> TestClock {
    TestClock(Arc::new(Mutex::new(SystemTime::UNIX_EPOCH)))
}

fn in_memory(zone: &str) -> Served<MemoryStore> {
    let (clock, calendar) = (clock(), Calendar::new(zone).unwrap());
    Served { store: MemoryStore::with_time(calendar, clock.clone()), clock }
}

fn in_file(zone: &str, path: &Path) -> Served<SqliteStore> {
    let (clock, calendar) = (clock(), Calendar::new(zone).unwrap());
    let options = SqliteOptions::new(path).calendar(calendar).clock(clock.clone());
    Served { store: SqliteStore::open(options).unwrap(), clock }
}

/// Days that are not 24 hours long: the zone, the first instant, that of the next day, the length.
const DAYS: [(&str, &str, &str, &str); 11] = [
    ("Europe/Berlin", "2026-03-28T23:00:00Z", "2026-03-29T22:00:00Z", "23h0m0s"),
    ("Europe/Berlin", "2026-10-24T22:00:00Z", "2026-10-25T23:00:00Z", "25h0m0s"),
    ("America/New_York", "2026-03-08T05:00:00Z", "2026-03-09T04:00:00Z", "23h0m0s"),
    ("America/New_York", "2026-11-01T04:00:00Z", "2026-11-02T05:00:00Z", "25h0m0s"),
    ("Australia/Lord_Howe", "2026-04-04T13:00:00Z", "2026-04-05T13:30:00Z", "24h30m0s"),
    ("Australia/Lord_Howe", "2026-10-03T13:30:00Z", "2026-10-04T13:00:00Z", "23h30m0s"),
    // Their clocks change at midnight: the first hour is missing, the last one comes twice.
    ("America/Santiago", "2026-09-06T04:00:00Z", "2026-09-07T03:00:00Z", "23h0m0s"),
    ("America/Santiago", "2026-04-04T03:00:00Z", "2026-04-05T04:00:00Z", "25h0m0s"),
    ("Africa/Cairo", "2026-04-23T22:00:00Z", "2026-04-24T21:00:00Z", "23h0m0s"),
    ("Africa/Cairo", "2026-10-28T21:00:00Z", "2026-10-29T22:00:00Z", "25h0m0s"),
    // The day after it never was.
    ("Pacific/Apia", "2011-12-29T10:00:00Z", "2011-12-30T10:00:00Z", "24h0m0s"),
];

async fn is_one_day(served: &Served<impl QuotaStore + Clone>, day: (&str, &str, &str, &str)) {
    let (zone, start, end, length) = day;
    let (start, end) = (at(start), at(end));
    let tenth = Duration::from_millis(100);
    served.is_a_new_day(start - tenth, &format!("{zone}: the day before {start:?}")).await;
    let (status, reset) = served.ask(start, "x-ratelimit-reset-requests").await;
    assert_eq!((status, reset.as_str()), (200, length), "{zone} at {start:?}");
    let (status, reset) = served.ask(end - tenth, "ratelimit").await;
    assert_eq!((status, reset.as_str()), (200, "\"daily\";r=0;t=1"), "{zone} at its end");
    let (status, retry) = served.ask(end - tenth, "retry-after").await;
    assert_eq!((status, retry.as_str()), (429, "1"), "{zone} at its end");
    served.is_a_new_day(end, &format!("{zone}: the day after {end:?}")).await;
}

#[tokio::test]
async fn days_of_any_length_turn_when_their_zone_says() {
    for day in DAYS {
        is_one_day(&in_memory(day.0), day).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn days_of_any_length_turn_when_their_zone_says_in_a_file() {
    for day in DAYS {
        let directory = tempfile::tempdir().unwrap();
        is_one_day(&in_file(day.0, &directory.path().join("quota.db")), day).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clock_that_jumps_never_reopens_a_day() {
    let directory = tempfile::tempdir().unwrap();
    let served = in_file("UTC", &directory.path().join("quota.db"));
    served.is_a_new_day(at("2026-11-22T12:00:00Z"), "the first day").await;
    served.is_a_new_day(at("2026-11-23T12:00:00Z"), "a jump of a day").await;
    assert_eq!(served.status(at("2026-11-22T12:00:01Z")).await, 429, "and back");
    assert_eq!(served.status(at("2026-11-21T12:00:00Z")).await, 429, "and further back");
    assert_eq!(served.status(at("2026-11-23T23:59:59.9Z")).await, 429);
    served.is_a_new_day(at("2026-11-24T00:00:00Z"), "the day after").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_reopens_no_day_whatever_the_clock_says_then() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("quota.db");
    let served = in_file("UTC", &path);
    served.is_a_new_day(at("2026-11-23T12:00:00Z"), "the first day").await;
    served.store.close().await.unwrap();
    drop(served);
    let served = in_file("UTC", &path);
    assert_eq!(served.status(at("2026-11-23T12:00:01Z")).await, 429);
    assert_eq!(served.status(at("2026-11-22T12:00:00Z")).await, 429, "a step back");
    served.is_a_new_day(at("2026-11-24T00:00:00Z"), "the day after").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn another_time_zone_after_a_restart_reopens_no_day() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("quota.db");
    let noon = at("2026-11-22T16:00:00Z");
    let served = in_file("Asia/Shanghai", &path);
    served.is_a_new_day(noon, "it is the 23rd in Shanghai").await;
    served.store.close().await.unwrap();
    drop(served);
    let served = in_file("America/New_York", &path);
    assert_eq!(served.status(noon).await, 429, "and still the 22nd in New York");
}
