//! The same promises as in `days.rs` on the gateway as it runs: `libfaketime` sets the clock of the
//! process, and sockets, threads and the file are real. The monotonic clock stays as it is, as it
//! does when an operator sets the time.

use std::{
    fs,
    path::PathBuf,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use crate::common::{
    Client, CollectedResponse, Gateway, GatewayCommand, Random, Upstream, chat_json, eventually,
    json_response,
};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::task::JoinSet;

const LIMIT: usize = 4;
const DAY: Duration = Duration::from_secs(86_400);
const HOUR: Duration = Duration::from_secs(3600);
const TENTH: Duration = Duration::from_millis(100);

fn instant(text: &str) -> SystemTime {
    text.parse::<jiff::Timestamp>().unwrap().into()
}

/// The clock of a gateway: so far from the real one as a file says.
struct Clock {
    dir: TempDir,
}

impl Clock {
    fn at(now: SystemTime) -> Self {
        let clock = Self { dir: tempfile::tempdir().unwrap() };
        clock.set(now);
        clock
    }

    fn file(&self) -> PathBuf {
        self.dir.path().join("clock")
    }

    /// It goes on from `now`.
    fn set(&self, now: SystemTime) {
        let seconds = |at: SystemTime| at.duration_since(UNIX_EPOCH).unwrap().as_secs_f64();
        let offset = seconds(now) - seconds(SystemTime::now());
        let draft = self.dir.path().join("draft");
        fs::write(&draft, format!("{offset:+.6}\n")).unwrap();
        fs::rename(draft, self.file()).unwrap();
    }
}

fn library() -> PathBuf {
    let folders = fs::read_dir("/usr/lib").unwrap().map(|entry| entry.unwrap().path());
    let beside = [PathBuf::from("/usr/lib"), PathBuf::from("/usr/local/lib")];
    let found = folders.chain(beside).map(|path| path.join("faketime/libfaketimeMT.so.1"));
    found.into_iter().find(|path| path.exists()).expect("libfaketime is installed")
}

/// A gateway that lives by a clock, before an upstream that responds at once.
struct House {
    upstream: Upstream,
    gateway: Gateway,
    key: String,
}

impl House {
    async fn start(clock: &Clock, zone: &str, limit: usize) -> Self {
        let upstream = Upstream::start(|_| json_response(chat_json().to_string())).await;
        let gateway = GatewayCommand::new()
            .env("UPSTREAM_BASE_URL", upstream.base_url())
            .env("UPSTREAM_API_KEY", "sk-sponsor-secret")
            .env("QUOTA_TIMEZONE", zone)
            .env("RUST_LOG", "warn")
            .env("LD_PRELOAD", library().to_str().unwrap())
            .env("FAKETIME_TIMESTAMP_FILE", clock.file().to_str().unwrap())
            .env("FAKETIME_NO_CACHE", "1")
            .env("FAKETIME_DONT_FAKE_MONOTONIC", "1")
            .env("NO_FAKE_STAT", "1")
            .start();
        let key = gateway.create_key(json!({"daily_limit": limit})).await;
        Self { upstream, gateway, key }
    }

    async fn take(&self) -> CollectedResponse {
        let url = self.gateway.url("/v1/chat/completions");
        Client::http1().post_as(&self.key, &url, &json!({})).await
    }

    /// How many of more requests than the limit allows are admitted.
    async fn take_all(&self) -> usize {
        let before = self.upstream.count();
        let mut admitted = 0;
        for _ in 0..LIMIT + 2 {
            let response = self.take().await;
            assert!([200, 429].contains(&response.status.as_u16()), "{response:?}");
            admitted += usize::from(response.status == 200);
        }
        assert_eq!(self.upstream.count() - before, admitted);
        admitted
    }

    async fn usage(&self) -> Value {
        Client::http1().get_as(&self.key, &self.gateway.url("/usage")).await.json()
    }

    /// What the operator sees as counted of a key on a day.
    async fn counted(&self, id: &str, day: &str) -> usize {
        let path = format!("/admin/usage?day={day}&key={id}");
        let report = self.gateway.admin(http::Method::GET, &path, &Value::Null).await;
        let items = report["items"].as_array().unwrap();
        let used = items.iter().map(|item| item["used_today"].as_u64().unwrap()).sum::<u64>();
        usize::try_from(used).unwrap()
    }
}

/// Seconds to the reset by the response's headers.
fn reset(response: &CollectedResponse) -> u64 {
    response.header("ratelimit").rsplit_once("t=").unwrap().1.parse().unwrap()
}

/// Requests of one key from several connections, counted by the day they were charged to.
struct Load {
    tally: Arc<Tally>,
    tasks: JoinSet<()>,
}

#[derive(Default)]
struct Tally {
    over: AtomicBool,
    sent: AtomicUsize,
    /// Completed on the day that is about to end, and on the next.
    completed: Mutex<[usize; 2]>,
}

impl Load {
    /// Requests until it is ended, or the gateway is gone.
    fn start(house: &House, key: &str) -> Self {
        let (tally, mut tasks) = (Arc::new(Tally::default()), JoinSet::new());
        for _ in 0..4 {
            let (tally, url) = (tally.clone(), house.gateway.url("/v1/chat/completions"));
            let authorization = format!("Bearer {key}");
            tasks.spawn(async move {
                let client = Client::http1();
                let headers = [("authorization", authorization.as_str())];
                while !tally.over.load(Ordering::Relaxed) {
                    tally.sent.fetch_add(1, Ordering::Relaxed);
                    let Some(response) = whole(&client, &url, &headers).await else {
                        return;
                    };
                    match response.status.as_u16() {
                        200 => {
                            let next = reset(&response) > 60;
                            tally.completed.lock().unwrap()[usize::from(next)] += 1;
                        }
                        // A short wait only where the day is used up.
                        429 => tokio::time::sleep(Duration::from_millis(2)).await,
                        _ => panic!("{response:?}"),
                    }
                }
            });
        }
        Self { tally, tasks }
    }

    fn completed(&self) -> [usize; 2] {
        *self.tally.completed.lock().unwrap()
    }

    /// Ends it: the responses of both days, and all that was sent.
    async fn end(mut self) -> ([usize; 2], usize) {
        self.tally.over.store(true, Ordering::Relaxed);
        while let Some(ended) = self.tasks.join_next().await {
            ended.unwrap();
        }
        (self.completed(), self.tally.sent.load(Ordering::Relaxed))
    }
}

/// A whole response, or none if the gateway has gone.
async fn whole(client: &Client, url: &str, headers: &[(&str, &str)]) -> Option<CollectedResponse> {
    use http_body_util::BodyExt;
    let response = client.open(http::Method::POST, url, headers, "{}").await.ok()?;
    let (head, body) = response.into_parts();
    let body = body.collect().await.ok()?.to_bytes();
    Some(CollectedResponse { status: head.status, headers: head.headers, body })
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs faketime"]
async fn midnight_under_load_gives_each_day_its_limit_and_counts_every_response() {
    let midnight = instant("2026-11-23T00:00:00Z");
    let clock = Clock::at(midnight - HOUR);
    let house = House::start(&clock, "UTC", 1_000_000).await;
    let small = house.gateway.create_key(json!({"daily_limit": LIMIT})).await;
    let (steady, scarce) = (Load::start(&house, &house.key), Load::start(&house, &small));
    // It is 23:00 for some requests, then all at once 23:59:59.9.
    eventually("responses at 23:00", || async { scarce.completed() == [0, LIMIT] }).await;
    clock.set(midnight - TENTH);
    eventually("responses before midnight", || async { steady.completed()[0] > 0 }).await;
    let before = steady.completed()[1];
    eventually("responses after midnight", || async { steady.completed()[1] >= before + 50 }).await;
    eventually("the new day", || async { scarce.completed()[1] >= 2 * LIMIT }).await;
    assert_eq!(scarce.end().await.0, [0, 2 * LIMIT]);
    let completed = steady.end().await.0.iter().sum::<usize>();
    let id = house.usage().await["id"].as_str().unwrap().to_owned();
    let counted = [house.counted(&id, "2026-11-22").await, house.counted(&id, "2026-11-23").await];
    assert_eq!(counted.iter().sum::<usize>(), completed, "{counted:?}");
    assert!(counted[0] > 0 && counted[1] >= 50, "{counted:?}");
}

/// Time zone, day, its first instant and that of the next day.
const DAYS: &[(&str, &str, &str, &str)] = &[
    ("Europe/Berlin", "2026-03-29", "2026-03-28T23:00:00Z", "2026-03-29T22:00:00Z"),
    ("America/New_York", "2026-11-01", "2026-11-01T04:00:00Z", "2026-11-02T05:00:00Z"),
    ("Australia/Lord_Howe", "2026-10-04", "2026-10-03T13:30:00Z", "2026-10-04T13:00:00Z"),
    ("America/Sao_Paulo", "2018-11-04", "2018-11-04T03:00:00Z", "2018-11-05T02:00:00Z"),
    ("Africa/Cairo", "2026-04-24", "2026-04-23T22:00:00Z", "2026-04-24T21:00:00Z"),
    ("Pacific/Apia", "2011-12-31", "2011-12-30T10:00:00Z", "2011-12-31T10:00:00Z"),
];

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs faketime"]
async fn days_of_any_length_have_the_limit_each() {
    for (zone, day, start, end) in DAYS {
        println!("{zone} {day}");
        let (start, end) = (instant(start), instant(end));
        let clock = Clock::at(start - HOUR);
        let house = House::start(&clock, zone, LIMIT).await;
        assert_eq!(house.take_all().await, LIMIT, "the day before");
        clock.set(start - TENTH);
        // Nothing is left of the day before: what is admitted is so after midnight.
        eventually("the day", || async { house.take().await.status == 200 }).await;
        assert_eq!(house.take_all().await, LIMIT - 1, "one was taken");
        for passed in [HOUR, end.duration_since(start).unwrap() - HOUR] {
            clock.set(start + passed);
            assert_eq!(house.take_all().await, 0);
            let usage = house.usage().await;
            assert_eq!((&usage["day"], &usage["remaining"]), (&json!(day), &json!(0)));
            assert_eq!(instant(usage["resets_at"].as_str().unwrap()), end);
            let response = house.take().await;
            let left = (end.duration_since(start).unwrap() - passed).as_secs();
            assert!(
                (left - 15..=left).contains(&reset(&response)),
                "{} of {left}",
                reset(&response)
            );
            assert_eq!(response.header("retry-after"), "", "clients sleep by it, for hours");
        }
        clock.set(end - TENTH);
        eventually("the next day", || async { house.take().await.status == 200 }).await;
        assert_eq!(house.take_all().await, LIMIT - 1, "one was taken");
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs faketime"]
async fn a_clock_that_is_set_by_a_day_forth_and_back_never_reopens_a_day() {
    let noon = instant("2026-11-22T12:00:00Z");
    for restarts in [false, true] {
        let clock = Clock::at(noon);
        let mut house = House::start(&clock, "UTC", LIMIT).await;
        for (day, admitted) in
            [(0, LIMIT), (1, LIMIT), (0, 0), (1, 0), (2, LIMIT), (1, 0), (0, 0), (2, 0), (3, LIMIT)]
        {
            clock.set(noon + day * DAY);
            if restarts {
                house.gateway.restart();
            }
            assert_eq!(house.take_all().await, admitted, "on day {day}, restarts: {restarts}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs faketime"]
async fn kill_9_at_midnight_loses_no_response_of_either_day() {
    let mut random = Random::seeded("kill -9 at midnight");
    let first = instant("2026-11-22T00:00:00Z");
    let clock = Clock::at(first + DAY / 2);
    let mut house = House::start(&clock, "UTC", 1_000_000).await;
    let id = house.usage().await["id"].as_str().unwrap().to_owned();
    let days: Vec<String> = (22..31).map(|day| format!("2026-11-{day}")).collect();
    let (mut completed, mut sent_before) = (vec![0; days.len()], 0);
    for cycle in 1..u32::try_from(days.len()).unwrap() {
        let midnight = first + cycle * DAY;
        clock.set(midnight - TENTH);
        let load = Load::start(&house, &house.key);
        let until = 1 + random.below(200) as usize;
        eventually("responses", || async { load.completed().iter().sum::<usize>() >= until }).await;
        house.gateway.kill9();
        let ([before, after], sent) = load.end().await;
        let today = cycle as usize;
        completed[today - 1] += before;
        completed[today] += after;
        sent_before += sent;
        println!("killed after {before} responses before midnight and {after} after it");
        // The clock may have gone back before midnight when it starts again.
        clock.set(if cycle % 2 == 0 { midnight + HOUR } else { midnight - HOUR });
        house.gateway.restart();
        let mut counted = Vec::new();
        for day in &days {
            counted.push(house.counted(&id, day).await);
        }
        for (completed, counted) in completed.iter().zip(&counted) {
            assert!(completed <= counted, "completed and not counted: {completed:?}, {counted:?}");
        }
        let all = counted.iter().sum::<usize>();
        assert!(all <= sent_before, "{all} counted, {sent_before} sent");
    }
}
