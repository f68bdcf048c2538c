//! The limit on the rate of requests: it is exact, and says when the next request is admitted.

use std::{
    convert::Infallible,
    future::Future,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::Poll,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use crate::zone::memory_store;
use bytes::Bytes;
use http::{Request, Response, request::Parts};
use http_body_util::{BodyExt, Full};
use tokio::{sync::Semaphore, task::JoinSet};
use tower::{Layer, Service, ServiceBuilder, ServiceExt, service_fn};
use tower_quota::{
    auth::TrialKeyAuthLayer,
    clock::Clock,
    error::{ProblemJson, Rejected, catalog, reject_fn},
    key::{KeyId, KeyLimit, KeyRecord, Limit, SecretKey},
    quota::{DailyQuotaLayer, InFlightLimitLayer, LimitRejection, RateLimitLayer, Subject},
    store::{QuotaSubject, memory::MemoryStore},
};

type Body = Full<Bytes>;

const MINUTE: Duration = Duration::from_secs(60);

/// A clock that is set by the test, in nanoseconds.
#[derive(Clone, Default)]
struct SetClock(Arc<AtomicU64>);

impl SetClock {
    fn set(&self, time: Duration) {
        self.0.store(time.as_nanos() as u64, Ordering::SeqCst);
    }
}

impl Clock for SetClock {
    fn now(&self) -> SystemTime {
        UNIX_EPOCH + Duration::from_nanos(self.0.load(Ordering::SeqCst))
    }
}

fn tenant(name: impl Into<Arc<str>>, limit: u64) -> QuotaSubject {
    QuotaSubject::new(KeyId::new(name), Limit::Units(limit))
}

/// Limits the requests of one tenant.
fn limit(limit: u64, period: Duration) -> RateLimitLayer {
    RateLimitLayer::new(Limit::Unlimited, period).subject(move |_| tenant("acme", limit))
}

fn request(path: &str) -> Request<Body> {
    Request::get(path).body(Body::default()).unwrap()
}

async fn hello(_: Request<Body>) -> Result<Response<Body>, Infallible> {
    Ok(Response::new(Body::from("hello")))
}

async fn status<S, B>(service: &S, path: &str) -> u16
where
    S: Service<Request<Body>, Response = Response<B>, Error = Infallible> + Clone,
{
    service.clone().oneshot(request(path)).await.unwrap().status().as_u16()
}

/// Sends this number of requests and returns how many of them are admitted.
async fn admitted<S, B>(service: &S, requests: usize) -> usize
where
    S: Service<Request<Body>, Response = Response<B>, Error = Infallible> + Clone,
{
    let mut admitted = 0;
    for _ in 0..requests {
        admitted += usize::from(status(service, "/").await == 200);
    }
    admitted
}

#[tokio::test]
async fn exactly_the_burst_and_then_one_in_each_interval_is_admitted() {
    let clock = SetClock::default();
    let limit = RateLimitLayer::per_minute(Limit::Unlimited).subject(|_| tenant("acme", 60));
    let service = limit.clock(clock.clone()).layer(service_fn(hello));
    for (at, expected) in
        [(0, 60), (999, 0), (1_000, 1), (1_999, 0), (11_500, 10), (12_000, 1), (3_600_000, 60)]
    {
        clock.set(Duration::from_millis(at));
        assert_eq!(admitted(&service, 100).await, expected, "at {at} ms");
    }
}

#[tokio::test]
async fn in_the_long_run_no_more_than_the_limit_is_admitted_in_a_period() {
    const PERIODS: u64 = 20;
    // Some of them do not divide the period.
    for (number, period) in [(1, MINUTE), (7, MINUTE), (60, MINUTE), (3, Duration::from_secs(1))] {
        let clock = SetClock::default();
        let service = limit(number, period).clock(clock.clone()).layer(service_fn(hello));
        let mut sum = 0;
        for step in 0..PERIODS * 100 {
            clock.set(period * step as u32 / 100);
            sum += admitted(&service, 8).await as u64;
        }
        let expected = number * (1 + PERIODS);
        assert!((expected - number..=expected).contains(&sum), "{number} in {period:?}: {sum}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn exactly_the_burst_of_concurrent_requests_is_admitted() {
    let service = limit(100, MINUTE).clock(SetClock::default()).layer(service_fn(hello));
    let mut requests = JoinSet::new();
    for _ in 0..1_000 {
        let service = service.clone();
        requests.spawn(async move { status(&service, "/").await });
    }
    let statuses = requests.join_all().await;
    assert_eq!(statuses.iter().filter(|status| **status == 200).count(), 100);
    assert!(statuses.iter().all(|status| [200, 429].contains(status)));
}

#[tokio::test]
async fn a_request_is_admitted_after_the_time_that_the_rejection_says() {
    for number in [1, 2, 7, 59, 60, 1_000] {
        for offset in [0, 1, 333_333_333, 999_999_999] {
            let clock = SetClock::default();
            let service = limit(number, MINUTE).clock(clock.clone()).layer(service_fn(hello));
            assert_eq!(admitted(&service, number as usize).await, number as usize);
            let at = Duration::from_nanos(offset);
            clock.set(at);
            let response = service.clone().oneshot(request("/")).await.unwrap();
            if response.status() == 200 {
                assert!(at >= MINUTE / number as u32, "{number} at {at:?}");
                continue;
            }
            let wait = response.headers()["retry-after"].to_str().unwrap().parse().unwrap();
            assert!(wait >= 1);
            if wait > 1 {
                clock.set(at + Duration::from_secs(wait - 1));
                assert_eq!(status(&service, "/").await, 429, "{number}: {wait} is too long");
            }
            clock.set(at + Duration::from_secs(wait));
            assert_eq!(status(&service, "/").await, 200, "{number}: {wait} is too short");
        }
    }
}

#[tokio::test]
async fn a_renderer_knows_the_exact_time_to_wait() {
    let clock = SetClock::default();
    let layer = limit(120, MINUTE).clock(clock.clone()).reject(reject_fn(|rejection, _| {
        Response::new(format!("{:?}", rejection.reason::<LimitRejection>()).into())
    }));
    let service = layer.layer(service_fn(hello));
    admitted(&service, 120).await;
    clock.set(Duration::from_millis(100));
    let reason = LimitRejection::TooFast {
        limit: 120,
        period: MINUTE,
        retry_after: Duration::from_millis(400),
    };
    let response = service.oneshot(request("/")).await.unwrap();
    let body = response.into_body().collect().await.unwrap().to_bytes();
    assert_eq!(body, format!("{:?}", Some(reason)));
}

#[tokio::test]
async fn rejected_requests_do_not_count() {
    let clock = SetClock::default();
    let service = limit(2, MINUTE).clock(clock.clone()).layer(service_fn(hello));
    assert_eq!(admitted(&service, 1_000).await, 2);
    clock.set(Duration::from_millis(29_999));
    assert_eq!(admitted(&service, 1_000).await, 0);
    clock.set(Duration::from_secs(30));
    assert_eq!(admitted(&service, 1_000).await, 1);
}

#[tokio::test]
async fn each_subject_has_a_limit_of_its_own() {
    let limit =
        RateLimitLayer::per_minute(Limit::Units(1)).clock(SetClock::default()).subject(|request| {
            match request.uri.path().trim_start_matches('/') {
                "health" => Subject::Exempt,
                "" => Subject::Unknown,
                "free" => QuotaSubject::new(KeyId::from("free"), Limit::Unlimited).into(),
                name => tenant(name, name.len() as u64 - 1).into(),
            }
        });
    let service = limit.layer(service_fn(hello));
    for (path, admitted, rejected) in
        [("/a", 0, 429), ("/ab", 1, 429), ("/abc", 2, 429), ("/free", 9, 200), ("/", 0, 500)]
    {
        for _ in 0..admitted {
            assert_eq!(status(&service, path).await, 200, "{path}");
        }
        assert_eq!(status(&service, path).await, rejected, "{path}");
        assert_eq!(status(&service, "/health").await, 200, "beside {path}");
    }
    // None of many subjects shares the limit of another one.
    for number in 0..10_000 {
        let path = format!("/{number}-");
        assert_eq!(status(&service, &path).await, 200, "{path}");
    }
    let response = service.oneshot(request("/a")).await.unwrap();
    assert_eq!(response.headers()["retry-after"], "60", "a limit of 0 admits nothing");
}

/// A clock whose time goes back, while what it measures goes on.
#[derive(Clone)]
struct SetBack(SetClock);

impl Clock for SetBack {
    fn now(&self) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(3_600) - self.0.monotonic()
    }

    fn monotonic(&self) -> Duration {
        self.0.monotonic()
    }
}

#[tokio::test]
async fn a_clock_that_is_set_back_holds_no_request_up() {
    let clock = SetClock::default();
    let service = limit(1, MINUTE).clock(SetBack(clock.clone())).layer(service_fn(hello));
    for minute in 0..5 {
        clock.set(MINUTE * minute);
        assert_eq!(admitted(&service, 2).await, 1, "minute {minute}");
    }
}

#[tokio::test]
async fn subjects_without_recent_requests_take_no_memory() {
    let names: Arc<[Arc<str>]> = (0..1_000).map(|number| number.to_string().into()).collect();
    let (subjects, clock) = (names.clone(), SetClock::default());
    let by_number = move |request: &Parts| {
        let number: usize = request.uri.path().trim_start_matches('/').parse().unwrap();
        tenant(subjects[number].clone(), 2)
    };
    let limit = RateLimitLayer::per_minute(Limit::Unlimited).clock(clock.clone());
    let service = limit.subject(by_number).layer(service_fn(hello));
    let kept = || names.iter().filter(|name| Arc::strong_count(name) > 1).count();
    for number in 0..1_000 {
        assert_eq!(status(&service, &format!("/{number}")).await, 200);
    }
    assert_eq!(kept(), 1_000);
    clock.set(Duration::from_secs(31));
    status(&service, "/7").await;
    clock.set(MINUTE);
    status(&service, "/8").await;
    assert_eq!(kept(), 2, "of the last minute");
    clock.set(3 * MINUTE);
    status(&service, "/9").await;
    assert_eq!(kept(), 1);
}

#[tokio::test]
async fn a_rejected_request_costs_no_unit_and_names_its_limit() {
    let clock = SetClock::default();
    let quota = DailyQuotaLayer::new(memory_store()).subject(|_| tenant("acme", 10));
    let service = ServiceBuilder::new()
        .layer(limit(3, MINUTE).name("minute").clock(clock.clone()))
        .layer(limit(2, Duration::from_secs(1)).name("second").clock(clock.clone()))
        .layer(quota)
        .service(service_fn(hello));
    let mut policies = Vec::new();
    for (at, left) in [(0, 9), (0, 8), (0, 8), (1, 7), (30, 6), (30, 6)] {
        clock.set(Duration::from_secs(at));
        let response = service.clone().oneshot(request("/")).await.unwrap();
        match response.extensions().get::<Rejected>() {
            Some(rejected) => policies.push(rejected.policy.clone().unwrap()),
            None => {
                let status = response.headers()["ratelimit"].to_str().unwrap();
                assert!(status.starts_with(&format!("\"daily\";r={left};")), "{status}");
            }
        }
    }
    // What the inner limit rejects does not count on the outer one.
    assert_eq!(policies, ["second", "minute"]);
}

#[tokio::test]
async fn a_request_that_a_layer_inside_rejects_does_not_count() {
    const LIMIT: u64 = 3;
    let acme = |units| move |_: &Parts| tenant("acme", units);
    let quota = DailyQuotaLayer::new(MemoryStore::new()).subject(acme(1));
    let service = limit(LIMIT, MINUTE).subject(acme(LIMIT)).layer(quota.layer(service_fn(hello)));
    assert_eq!(status(&service, "/").await, 200);
    for _ in 0..20 {
        let response = service.clone().oneshot(request("/")).await.unwrap();
        let rejected = response.extensions().get::<Rejected>().unwrap();
        assert_eq!(rejected.policy.as_deref(), Some("daily"), "not the rate");
    }
}

#[tokio::test]
async fn each_key_has_the_limits_of_its_record() {
    let store = MemoryStore::new();
    for (id, minute) in
        [("slow", Limit::Units(1)), ("fast", Limit::Units(4)), ("any", Limit::Unlimited)]
    {
        let mut record = KeyRecord::new(KeyId::from(id), Limit::Unlimited);
        record.limits = record.limits.with(KeyLimit::Minute, minute);
        store.insert(&SecretKey::parse(&format!("trial-key-{id}")).unwrap(), record).unwrap();
    }
    let service = TrialKeyAuthLayer::new(store).layer(
        RateLimitLayer::per_key().layer(InFlightLimitLayer::per_key().layer(service_fn(hello))),
    );
    for (id, admitted) in [("slow", 1), ("fast", 4), ("any", 9)] {
        let mut passed = 0;
        for _ in 0..9 {
            let mut request = request("/");
            let key = format!("trial-key-{id}").parse().unwrap();
            request.headers_mut().insert("x-api-key", key);
            passed += usize::from(service.clone().oneshot(request).await.unwrap().status() == 200);
        }
        assert_eq!(passed, admitted, "{id}");
    }
}

/// Polls a future once. Returns its output if it is ready.
async fn poll_once<F: Future + Unpin>(future: &mut F) -> Option<F::Output> {
    std::future::poll_fn(|cx| match Pin::new(&mut *future).poll(cx) {
        Poll::Ready(output) => Poll::Ready(Some(output)),
        Poll::Pending => Poll::Ready(None),
    })
    .await
}

/// A slow request that is rejected in the end does not let another one pass early.
#[tokio::test]
async fn what_has_passed_by_of_a_rejected_request_is_not_given_back() {
    let clock = SetClock::default();
    let gate = Arc::new(Semaphore::new(0));
    let waiting = gate.clone();
    let rejects = service_fn(move |request: Request<Body>| {
        let waiting = waiting.clone();
        async move {
            let mut response = Response::new(Body::default());
            if request.uri().path() == "/slow" {
                waiting.acquire().await.unwrap().forget();
                let rejected = catalog::MISSING_API_KEY.rejection().render(&ProblemJson, &request);
                response = rejected.map(Body::from);
            }
            Ok::<_, Infallible>(response)
        }
    });
    let service = limit(1, MINUTE).clock(clock.clone()).layer(rejects);
    let mut slow = Box::pin(service.clone().oneshot(request("/slow")));
    assert!(poll_once(&mut slow).await.is_none());
    clock.set(MINUTE);
    assert_eq!(status(&service, "/").await, 200);
    clock.set(MINUTE + Duration::from_secs(1));
    gate.add_permits(1);
    assert_eq!(slow.await.unwrap().status(), 401);
    assert_eq!(status(&service, "/").await, 429, "a minute has not passed since the last one");
}
