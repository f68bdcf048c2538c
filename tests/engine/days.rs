//! A day is a calendar day of the time zone, however long it is and whatever the clock does: at most
//! the limit is admitted, and headers and report name the day that was charged.

use std::{
    convert::Infallible,
    path::Path,
    sync::{Arc, Mutex},
    time::{Duration, SystemTime},
};

use crate::common::Random;
use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use http_body_util::{BodyExt, Full};
use serde_json::Value;
use tokio::runtime::Handle;
use tower::{Layer, ServiceBuilder, ServiceExt, service_fn};
use tower_quota::{
    admin::store::{Actor, AdminStore, ChangeOutcome, KeyChange, KeyEdit, KeyRef, NewKey},
    auth::TrialKeyAuthLayer,
    clock::{Calendar, Clock},
    key::{KeyId, KeyRecord, Limit, SecretKey},
    openai::OpenAiRateHeaders,
    quota::DailyQuotaLayer,
    store::{
        KeyStore, QuotaStore,
        memory::MemoryStore,
        report::UsageReader,
        sqlite::{SqliteOptions, SqliteStore},
    },
    usage::usage_service,
};

const KEY: &str = "trial-key-manual-123";
const LIMIT: usize = 3;
const TENTH: Duration = Duration::from_millis(100);
const HOUR: Duration = Duration::from_secs(3600);

/// Time zone, day, its first instant and that of the next day.
const DAYS: &[(&str, &str, &str, &str)] = &[
    ("UTC", "2026-11-22", "2026-11-22T00:00:00Z", "2026-11-23T00:00:00Z"),
    ("Asia/Shanghai", "2026-11-22", "2026-11-21T16:00:00Z", "2026-11-22T16:00:00Z"),
    // 23 and 25 hours.
    ("Europe/Berlin", "2026-03-29", "2026-03-28T23:00:00Z", "2026-03-29T22:00:00Z"),
    ("Europe/Berlin", "2026-10-25", "2026-10-24T22:00:00Z", "2026-10-25T23:00:00Z"),
    ("America/New_York", "2026-03-08", "2026-03-08T05:00:00Z", "2026-03-09T04:00:00Z"),
    ("America/New_York", "2026-11-01", "2026-11-01T04:00:00Z", "2026-11-02T05:00:00Z"),
    // Half an hour less, and more.
    ("Australia/Lord_Howe", "2026-10-04", "2026-10-03T13:30:00Z", "2026-10-04T13:00:00Z"),
    ("Australia/Lord_Howe", "2026-04-05", "2026-04-04T13:00:00Z", "2026-04-05T13:30:00Z"),
    // A midnight that does not exist, and the hour before midnight twice.
    ("America/Sao_Paulo", "2018-11-04", "2018-11-04T03:00:00Z", "2018-11-05T02:00:00Z"),
    ("America/Sao_Paulo", "2018-02-17", "2018-02-17T02:00:00Z", "2018-02-18T03:00:00Z"),
    ("Asia/Beirut", "2026-03-29", "2026-03-28T22:00:00Z", "2026-03-29T21:00:00Z"),
    ("Asia/Beirut", "2026-10-24", "2026-10-23T21:00:00Z", "2026-10-24T22:00:00Z"),
    ("America/Santiago", "2026-09-06", "2026-09-06T04:00:00Z", "2026-09-07T03:00:00Z"),
    ("America/Santiago", "2026-04-04", "2026-04-04T03:00:00Z", "2026-04-05T04:00:00Z"),
    ("Africa/Cairo", "2026-10-29", "2026-10-28T21:00:00Z", "2026-10-29T22:00:00Z"),
    ("Africa/Cairo", "2026-04-24", "2026-04-23T22:00:00Z", "2026-04-24T21:00:00Z"),
    // The 30th never was.
    ("Pacific/Apia", "2011-12-29", "2011-12-29T10:00:00Z", "2011-12-30T10:00:00Z"),
    ("Pacific/Apia", "2011-12-31", "2011-12-30T10:00:00Z", "2011-12-31T10:00:00Z"),
];

fn instant(text: &str) -> SystemTime {
    text.parse::<jiff::Timestamp>().unwrap().into()
}

#[derive(Clone)]
struct Time(Arc<Mutex<SystemTime>>);

impl Time {
    fn at(now: SystemTime) -> Self {
        Self(Arc::new(Mutex::new(now)))
    }

    fn set(&self, now: SystemTime) {
        *self.0.lock().unwrap() = now;
    }
}

impl Clock for Time {
    fn now(&self) -> SystemTime {
        *self.0.lock().unwrap()
    }
}

trait Store: KeyStore + QuotaStore + AdminStore + UsageReader + Clone {}
impl<T: KeyStore + QuotaStore + AdminStore + UsageReader + Clone> Store for T {}

/// A service with a quota, its clock and its calendar.
#[derive(Clone)]
struct House<S> {
    store: S,
    time: Time,
    calendar: Calendar,
}

/// One response of it.
struct CollectedResponse {
    admitted: bool,
    /// Seconds, as three headers say.
    reset: u64,
}

impl House<MemoryStore> {
    async fn in_memory(zone: &str, time: &Time) -> Self {
        let calendar = Calendar::new(zone).unwrap();
        let store = MemoryStore::with_time(calendar.clone(), time.clone());
        Self { store, time: time.clone(), calendar }.with_key().await
    }
}

impl House<SqliteStore> {
    fn open(path: &Path, zone: &str, time: &Time) -> Self {
        let calendar = Calendar::new(zone).unwrap();
        let options = SqliteOptions::new(path).calendar(calendar.clone()).clock(time.clone());
        let store = SqliteStore::open(options).unwrap();
        Self { store, time: time.clone(), calendar }
    }
}

impl<S: Store> House<S> {
    async fn with_key(self) -> Self {
        let limit = Limit::Units(LIMIT as u64);
        let record = KeyRecord::new(KeyId::generate(), limit);
        let key = NewKey::new(SecretKey::parse(KEY).unwrap(), record).unwrap();
        self.store.create(vec![key], Actor::default()).await.unwrap();
        self
    }

    fn request() -> Request<Full<Bytes>> {
        let request = Request::get("/").header("authorization", format!("Bearer {KEY}"));
        request.body(Full::default()).unwrap()
    }

    async fn take(&self) -> CollectedResponse {
        let inner = service_fn(|_: Request<Full<Bytes>>| async {
            Ok::<_, Infallible>(Response::new(Full::<Bytes>::from("hello")))
        });
        let service = ServiceBuilder::new()
            .layer(TrialKeyAuthLayer::new(self.store.clone()).clock(self.time.clone()))
            .layer(
                DailyQuotaLayer::new(self.store.clone())
                    .headers(OpenAiRateHeaders)
                    .clock(self.time.clone()),
            )
            .service(inner);
        let response = service.oneshot(Self::request()).await.unwrap();
        let admitted = response.status() == 200;
        assert!(admitted || response.status() == 429, "{}", response.status());
        CollectedResponse { admitted, reset: reset(response.headers(), admitted) }
    }

    /// How many of more requests than the limit allows are admitted; all name the same reset.
    async fn take_all(&self) -> (usize, u64) {
        let mut responses = Vec::new();
        for _ in 0..LIMIT + 2 {
            responses.push(self.take().await);
        }
        let reset = responses[0].reset;
        assert!(responses.iter().all(|response| response.reset == reset));
        (responses.iter().filter(|response| response.admitted).count(), reset)
    }

    async fn reset(&self) {
        let (key, by) = (KeyRef::new(KEY), Actor::default());
        let edit = KeyEdit::new(key, KeyChange::ResetUsage, by);
        let outcome = self.store.change(edit).await.unwrap();
        assert!(matches!(outcome, ChangeOutcome::Done(_)), "{outcome:?}");
    }

    async fn usage(&self) -> Value {
        let service = usage_service(self.store.clone(), self.calendar.clone());
        let auth = TrialKeyAuthLayer::new(self.store.clone()).clock(self.time.clone());
        let service = auth.layer(service.clock(self.time.clone()));
        let response = service.oneshot(Self::request()).await.unwrap();
        assert_eq!(response.status(), 200);
        let body = response.into_body().collect().await.ok().unwrap().to_bytes();
        serde_json::from_slice(&body).unwrap()
    }

    /// The whole life of one day, from a tenth of a second before its first instant on.
    async fn live(&self, day: &str, start: SystemTime, end: SystemTime) {
        self.time.set(start - TENTH);
        assert_eq!(self.take_all().await, (LIMIT, 1), "the day before");
        assert!(self.usage().await["day"].as_str().unwrap() < day, "the day before");

        let length = end.duration_since(start).unwrap();
        let mut passed = Duration::ZERO;
        while passed < length {
            self.time.set(start + passed);
            let expected = if passed.is_zero() { LIMIT } else { 0 };
            assert_eq!(
                self.take_all().await,
                (expected, (length - passed).as_secs()),
                "{passed:?}"
            );
            let usage = self.usage().await;
            assert_eq!((&usage["day"], &usage["used"]), (&day.into(), &LIMIT.into()));
            assert_eq!(instant(usage["resets_at"].as_str().unwrap()), end);
            passed += HOUR / 2;
        }

        self.time.set(end - TENTH);
        assert_eq!(self.take_all().await, (0, 1), "the last tenth of a second");
        self.time.set(end);
        assert_eq!(self.take_all().await.0, LIMIT, "the next day");
        assert!(self.usage().await["day"].as_str().unwrap() > day, "the next day");
    }
}

/// Seconds to the reset, on which all headers agree.
fn reset(headers: &HeaderMap, admitted: bool) -> u64 {
    let text = |name: &str| headers[name].to_str().unwrap();
    let seconds = text("ratelimit").rsplit_once("t=").unwrap().1.parse().unwrap();
    // Clients sleep by it, for hours.
    assert!(admitted || !headers.contains_key("retry-after"));
    let mut sum = 0;
    let openai = text("x-ratelimit-reset-requests");
    for part in openai.split_inclusive(['h', 'm', 's']) {
        let (number, unit) = part.split_at(part.len() - 1);
        let factor = match unit {
            "h" => 3600,
            "m" => 60,
            _ => 1,
        };
        sum += number.parse::<u64>().unwrap() * factor;
    }
    assert_eq!(sum, seconds, "{openai}");
    seconds
}

#[tokio::test]
async fn days_of_any_length_have_the_limit_each_in_memory() {
    for (zone, day, start, end) in DAYS {
        println!("{zone} {day}");
        let (start, end) = (instant(start), instant(end));
        House::in_memory(zone, &Time::at(start)).await.live(day, start, end).await;
    }
}

#[tokio::test]
async fn days_of_any_length_have_the_limit_each_in_sqlite() {
    for (zone, day, start, end) in DAYS {
        println!("{zone} {day}");
        let (start, end) = (instant(start), instant(end));
        let dir = tempfile::tempdir().unwrap();
        let house = House::open(&dir.path().join("quota.db"), zone, &Time::at(start));
        house.with_key().await.live(day, start, end).await;
    }
}

/// The store is closed and opened again between any two of: before midnight, after it, the end.
#[tokio::test]
async fn a_restart_neither_reopens_a_day_nor_takes_from_it() {
    for (zone, day, start, end) in DAYS {
        println!("{zone} {day}");
        let (start, end) = (instant(start), instant(end));
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("quota.db");
        let mut first = true;
        for (at, admitted) in [
            (start - TENTH, 1),
            (start - TENTH, LIMIT - 1),
            (start - TENTH, 0),
            (start, 2),
            (end - TENTH, LIMIT - 2),
            (start, 0),
            (end, LIMIT),
            // The clock has gone back over night.
            (end - TENTH, 0),
            (start, 0),
            (end, 0),
        ] {
            let mut house = House::open(&path, zone, &Time::at(at));
            if std::mem::take(&mut first) {
                house = house.with_key().await;
            }
            for _ in 0..admitted {
                assert!(house.take().await.admitted);
            }
            if admitted == 0 {
                assert!(!house.take().await.admitted);
            }
            house.store.close().await.unwrap();
        }
    }
}

/// The clock jumps at random, by days, hours and tenths of a second, forth and back, the service
/// restarts at random, and the day is reset at random. A model says what must happen: the day never
/// goes back, but by a reset, which begins the day of the clock.
#[tokio::test]
async fn a_clock_that_jumps_never_reopens_a_day_nor_gives_one_more_than_its_limit() {
    let mut random = Random::seeded("clock");
    for (zone, _, start, _) in DAYS {
        println!("{zone}");
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("quota.db");
        let zone_of_model = jiff::tz::TimeZone::get(zone).unwrap();
        let mut now = instant(start);
        let time = Time::at(now);
        let mut house = House::open(&path, zone, &time).with_key().await;
        let (mut day, mut used) = (jiff::civil::Date::MIN, 0);
        for _ in 0..60 {
            let by = [24 * HOUR, HOUR, HOUR / 4, TENTH][random.below(4) as usize];
            now = if random.below(2) == 0 { now + by } else { now - by };
            time.set(now);
            if random.below(10) == 0 {
                house.store.close().await.unwrap();
                drop(house);
                house = House::open(&path, zone, &time);
            }
            let today =
                jiff::Timestamp::try_from(now).unwrap().to_zoned(zone_of_model.clone()).date();
            if today > day {
                (day, used) = (today, 0);
            }
            if random.below(8) == 0 {
                house.reset().await;
                (day, used) = (today, 0);
            }
            let response = house.take().await;
            assert_eq!(response.admitted, used < LIMIT, "{used} of {day} at {now:?}");
            used += usize::from(response.admitted);
            let usage = house.usage().await;
            assert_eq!((&usage["day"], &usage["used"]), (&day.to_string().into(), &used.into()));
            // Headers and report name the end of the day that was charged.
            let reset = instant(usage["resets_at"].as_str().unwrap());
            let seconds = reset.duration_since(now).unwrap().as_millis().div_ceil(1000);
            assert_eq!(u128::from(response.reset), seconds);
            let next = day.tomorrow().unwrap().to_zoned(zone_of_model.clone()).unwrap();
            assert_eq!(jiff::Timestamp::try_from(reset).unwrap(), next.timestamp());
        }
        house.store.close().await.unwrap();
    }
}

async fn a_reset_leads_back_to_the_day_of_the_clock<S: Store>(
    house: House<S>,
    again: impl Fn(House<S>) -> House<S>,
) {
    let now = instant("2026-11-22T12:00:00Z");
    let day_of = |usage: &Value| usage["day"].as_str().unwrap().to_owned();
    assert_eq!(house.take_all().await.0, LIMIT);
    house.time.set(now + 400 * 24 * HOUR);
    assert_eq!(house.take_all().await.0, LIMIT);
    house.time.set(now);
    let house = again(house);
    assert_eq!(house.take_all().await.0, 0);
    assert_eq!(day_of(&house.usage().await), "2027-12-27");
    house.reset().await;
    assert_eq!(house.take_all().await.0, LIMIT, "after the reset");
    let house = again(house);
    assert_eq!(house.take_all().await.0, 0, "of the same day");
    assert_eq!(day_of(&house.usage().await), "2026-11-22");
    // Each day from now on is one of its own, also that to which the clock once was ahead.
    for days in [1, 2, 400, 401] {
        house.time.set(now + days * 24 * HOUR);
        assert_eq!(house.take_all().await.0, LIMIT, "{days} days later");
    }
}

#[tokio::test]
async fn a_reset_leads_back_to_the_day_of_the_clock_in_memory() {
    let time = Time::at(instant("2026-11-22T12:00:00Z"));
    let house = House::in_memory("UTC", &time).await;
    a_reset_leads_back_to_the_day_of_the_clock(house, |house| house).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reset_leads_back_to_the_day_of_the_clock_over_restarts() {
    let time = Time::at(instant("2026-11-22T12:00:00Z"));
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("quota.db");
    let house = House::open(&path, "UTC", &time).with_key().await;
    a_reset_leads_back_to_the_day_of_the_clock(house, |house| {
        let closed = house.store.close();
        tokio::task::block_in_place(|| Handle::current().block_on(closed)).unwrap();
        drop(house);
        House::open(&path, "UTC", &time)
    })
    .await;
}

/// Requests from many tasks while the clock is set back and forth over midnight.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn concurrent_requests_at_midnight_have_the_limit_of_each_day() {
    for _ in 0..20 {
        let midnight = instant("2026-11-23T00:00:00Z");
        let dir = tempfile::tempdir().unwrap();
        let time = Time::at(midnight - TENTH);
        let house = House::open(&dir.path().join("quota.db"), "UTC", &time).with_key().await;
        let mut requests = tokio::task::JoinSet::new();
        for _ in 0..8 {
            let house = house.clone();
            requests.spawn(async move {
                let mut admitted = Vec::new();
                for request in 0..8 {
                    let after = request > 3 || request == 1;
                    house.time.set(if after { midnight } else { midnight - TENTH });
                    let response = house.take().await;
                    if response.admitted {
                        admitted.push(response.reset);
                    }
                }
                admitted
            });
        }
        let admitted = requests.join_all().await.concat();
        // Less than two seconds are left of the 22nd; a unit of the 23rd by the clock of the 22nd
        // has a day and a tenth of a second before it.
        let before = admitted.iter().filter(|reset| **reset < 86_400).count();
        assert!(before <= LIMIT, "{before} on the 22nd");
        assert_eq!(admitted.len() - before, LIMIT, "on the 23rd");
        house.store.close().await.unwrap();
    }
}

/// Another time zone begins or ends a day at another instant, never one that is used up.
#[tokio::test]
async fn another_time_zone_gives_no_day_more_than_its_limit() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("quota.db");
    let time = Time::at(instant("2026-11-22T20:00:00Z"));
    let house = House::open(&path, "UTC", &time).with_key().await;
    assert_eq!(house.take_all().await.0, LIMIT);
    house.store.close().await.unwrap();
    drop(house);
    let mut admitted = std::collections::HashMap::new();
    for zone in ["Asia/Shanghai", "UTC", "America/New_York", "Pacific/Apia", "Asia/Shanghai"] {
        let house = House::open(&path, zone, &time);
        let taken = house.take_all().await.0;
        let day = house.usage().await["day"].as_str().unwrap().to_owned();
        *admitted.entry(day).or_insert(0) += taken;
        house.store.close().await.unwrap();
    }
    assert_eq!(admitted.get("2026-11-22"), None, "used up before");
    assert!(admitted.values().all(|admitted| *admitted <= LIMIT), "{admitted:?}");
}

/// In St. John's clocks went back from 00:01 to 23:01 until 2011: one minute of the next day came
/// first. (In the hour that comes again, the reset that is reported is the midnight that is over.)
#[tokio::test]
async fn a_midnight_that_is_undone_gives_no_day_twice() {
    for minute_between in [false, true] {
        let time = Time::at(instant("2010-11-07T02:00:00Z"));
        let house = House::in_memory("America/St_Johns", &time).await;
        assert_eq!(house.take_all().await.0, LIMIT, "the 6th");
        if minute_between {
            time.set(instant("2010-11-07T02:30:30Z"));
            assert_eq!(house.take_all().await.0, LIMIT, "the first minute of the 7th");
        }
        time.set(instant("2010-11-07T03:00:00Z"));
        assert_eq!(house.take_all().await.0, 0, "half past eleven on the 6th, once more");
        time.set(instant("2010-11-07T03:30:00Z"));
        let expected = if minute_between { 0 } else { LIMIT };
        assert_eq!(house.take_all().await.0, expected, "the 7th");
    }
}
