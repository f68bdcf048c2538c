//! Handlers that learn what a request costs while they work on it.

use std::{
    convert::Infallible,
    env,
    future::Future,
    path::Path,
    pin::Pin,
    process::{self, Command},
    sync::Arc,
    task::{Context, Poll, Waker},
    time::SystemTime,
};

use axum::body::Body;
use bytes::Bytes;
use http::{Request, Response};
use http_body::Frame;
use http_body_util::BodyExt;
use tokio::{
    sync::Semaphore,
    task::{JoinSet, yield_now},
};
use tower::{ServiceBuilder, ServiceExt, service_fn, util::BoxCloneSyncService};
use tower_quota::{
    clock::{Calendar, Clock, Period, parse_timestamp},
    error::{ProblemJson, Rejection, StoreError, catalog},
    key::{KeyId, Limit},
    openai::OpenAiRateHeaders,
    quota::{DailyQuotaLayer, QuotaRejection, RequestReservation},
    request::RequestContext,
    store::{
        Demand, Quota, QuotaStatus, QuotaStore, QuotaSubject, ReserveOutcome, StoreFuture,
        memory::MemoryStore,
        report::{UsageQuery, UsageReader},
        sqlite::{SqliteOptions, SqliteStore},
    },
    usage::{UsageRecorder, UsageRecorderLayer},
};

use super::{Events, request};

/// A store that lets other tasks run before it decides, and fails where 100 units or more are needed.
#[derive(Clone)]
struct Slow(MemoryStore);

impl QuotaStore for Slow {
    fn reserve(&self, demand: &Demand) -> StoreFuture<ReserveOutcome> {
        let (store, demand) = (self.0.clone(), demand.clone());
        StoreFuture::pending(async move {
            yield_now().await;
            match demand.amount {
                ..100 => store.reserve(&demand).await,
                _ => Err(StoreError::unavailable("the disk is full")),
            }
        })
    }

    fn status(&self, demand: &Demand) -> StoreFuture<QuotaStatus> {
        self.0.status(demand)
    }
}

/// A store that refunds, and cannot correct amounts.
struct Uncorrected(MemoryStore);

impl QuotaStore for Uncorrected {
    fn reserve(&self, demand: &Demand) -> StoreFuture<ReserveOutcome> {
        self.0.reserve(demand).map(|outcome| match outcome {
            ReserveOutcome::Admitted { mut reservation, status } => {
                ReserveOutcome::admitted(status, move |refund| reservation.refund(refund))
            }
            exhausted => exhausted,
        })
    }

    fn status(&self, demand: &Demand) -> StoreFuture<QuotaStatus> {
        self.0.status(demand)
    }
}

fn subject(limit: u64) -> QuotaSubject {
    QuotaSubject::new(KeyId::from("acme"), Limit::Units(limit))
}

fn reservation(request: &Request<Body>) -> RequestReservation {
    let context = request.extensions().get::<RequestContext>().unwrap();
    context.reservation().unwrap()
}

/// A clock that stands.
struct At(SystemTime);

impl Clock for At {
    fn now(&self) -> SystemTime {
        self.0
    }
}

/// A service behind a quota, what it counts and what is recorded of it.
#[derive(Clone)]
struct Scene {
    store: MemoryStore,
    events: Events,
    service: BoxCloneSyncService<Request<Body>, Response<Body>, Infallible>,
}

impl Scene {
    fn new<F, Fut>(
        limit: u64,
        change: impl FnOnce(DailyQuotaLayer) -> DailyQuotaLayer,
        handler: F,
    ) -> Self
    where
        F: Fn(Request<Body>) -> Fut + Clone + Send + Sync + 'static,
        Fut: Future<Output = Result<Response<Body>, Infallible>> + Send + 'static,
    {
        Self::with(Slow, limit, change, handler)
    }

    /// The scene with what `wrap` makes of the store.
    fn with<Store, F, Fut>(
        wrap: impl FnOnce(MemoryStore) -> Store,
        limit: u64,
        change: impl FnOnce(DailyQuotaLayer) -> DailyQuotaLayer,
        handler: F,
    ) -> Self
    where
        Store: QuotaStore,
        F: Fn(Request<Body>) -> Fut + Clone + Send + Sync + 'static,
        Fut: Future<Output = Result<Response<Body>, Infallible>> + Send + 'static,
    {
        let (store, events) = (MemoryStore::new(), Events::default());
        let quota = DailyQuotaLayer::new(wrap(store.clone())).subject(move |_| subject(limit));
        let service = ServiceBuilder::new()
            .map_response(|response: Response<_>| response.map(Body::new))
            .layer(UsageRecorderLayer::new(events.clone()))
            .layer(change(quota))
            .service(service_fn(handler));
        Self { store, events, service: BoxCloneSyncService::new(service) }
    }

    /// Sends a request. Returns the status, the units left by the header, and those of the event.
    async fn send(&self, path: &str) -> (u16, u64, u32) {
        let response = self.service.clone().oneshot(request(path)).await.unwrap();
        let header = response.headers()["ratelimit"].to_str().unwrap();
        let left = header.split([';', '=']).nth(2).unwrap().parse().unwrap();
        let status = response.status().as_u16();
        response.into_body().collect().await.unwrap();
        (status, left, self.events.0.lock().unwrap().last().unwrap().units)
    }

    async fn used(&self) -> u64 {
        let QuotaSubject { id, limit, .. } = subject(1_000);
        let demand = Demand::new(id, limit, SystemTime::now());
        self.store.status(&demand).await.unwrap().used
    }
}

/// Takes the units that the path says, and passes a rejection on in the form of the layers.
async fn take(request: Request<Body>) -> Result<Response<Body>, Infallible> {
    let more = request.uri().path()[1..].parse().unwrap();
    Ok(match reservation(&request).take(more).await {
        Ok(_) => Response::default(),
        Err(rejection) => {
            Rejection::from(&rejection).render(&ProblemJson, &request).map(Body::from)
        }
    })
}

#[tokio::test]
async fn a_handler_takes_all_units_or_none() {
    let scene = Scene::new(10, |quota| quota, take);
    assert_eq!(scene.send("/3").await, (200, 6, 4));
    // What was reserved is refunded, as the response is marked as a rejection.
    assert_eq!(scene.send("/6").await, (429, 6, 0));
    assert_eq!(scene.send("/100").await, (503, 6, 0));
    assert_eq!(scene.send("/5").await, (200, 0, 6));
    assert_eq!(scene.send("/0").await, (429, 0, 0));
    assert_eq!(scene.used().await, 10);
}

#[tokio::test]
async fn a_request_that_costs_nothing_may_take_units_later() {
    let scene = Scene::new(10, |quota| quota.cost(|_| 0), take);
    assert_eq!(scene.send("/0").await, (200, 10, 0));
    assert_eq!(scene.send("/4").await, (200, 6, 4));
    assert_eq!(scene.send("/7").await, (429, 6, 0));
    assert_eq!(scene.used().await, 4);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn concurrent_handlers_take_exactly_what_is_left() {
    let scene = Scene::new(
        100,
        |quota| quota,
        |request| async move {
            let reservation = reservation(&request);
            let mut taken = 1;
            for amount in [1, 2, 3, 4, 5] {
                match reservation.take(amount).await {
                    Ok(status) => {
                        assert!(status.used <= 100, "never one more");
                        taken += amount;
                    }
                    Err(QuotaRejection::Exhausted { status, .. }) => {
                        assert!(status.used + amount > 100, "never one less");
                    }
                    Err(other) => panic!("{other}"),
                }
            }
            assert_eq!(reservation.units(), taken);
            Ok(Response::default())
        },
    );
    let mut requests = JoinSet::new();
    for _ in 0..40 {
        let service = scene.service.clone();
        requests.spawn(async move {
            let response = service.oneshot(request("/")).await.unwrap();
            response.into_body().collect().await.unwrap();
        });
    }
    requests.join_all().await;
    let counted: u32 = scene.events.0.lock().unwrap().iter().map(|event| event.units).sum();
    assert_eq!((u64::from(counted), scene.used().await), (100, 100));
}

#[tokio::test]
async fn what_a_handler_says_before_the_head_is_charged_with_it() {
    let scene = Scene::new(
        100,
        |quota| quota.cost(|_| 10),
        |request| async move {
            let reservation = reservation(&request);
            match request.uri().path() {
                "/less" => reservation.settle(3),
                "/back" => {
                    reservation.take(5).await.unwrap();
                    reservation.give_back(8);
                    assert_eq!((reservation.units(), reservation.status().used), (7, 10));
                }
                "/more" => {
                    reservation.settle(12);
                    reservation.take(5).await.unwrap();
                }
                _ => reservation.settle(200),
            }
            Ok(Response::default())
        },
    );
    assert_eq!(scene.send("/less").await, (200, 97, 3));
    assert_eq!(scene.send("/back").await, (200, 90, 7));
    assert_eq!(scene.send("/more").await, (200, 73, 17));
    // What was used is charged beyond the limit.
    assert_eq!(scene.send("/all").await, (200, 0, 200));
    assert_eq!(scene.used().await, 227);
}

/// A body of one frame, which ends once its work is done.
struct Working {
    frame: Option<Bytes>,
    work: Pin<Box<dyn Future<Output = ()> + Send>>,
}

impl Working {
    fn respond(work: impl Future<Output = ()> + Send + 'static) -> Response<Body> {
        let (frame, work) = (Some(Bytes::from("first")), Box::pin(work));
        Response::new(Body::new(Self { frame, work }))
    }
}

impl http_body::Body for Working {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        match self.frame.take() {
            Some(frame) => Poll::Ready(Some(Ok(Frame::data(frame)))),
            None => self.work.as_mut().poll(cx).map(|()| None),
        }
    }
}

#[tokio::test]
async fn what_a_body_costs_is_charged_at_its_end() {
    let scene = Scene::new(
        100,
        |quota| quota.cost(|_| 10),
        async |request| {
            let reservation = reservation(&request);
            Ok(Working::respond(async move {
                reservation.take(20).await.unwrap();
                reservation.settle(14);
            }))
        },
    );
    assert_eq!(scene.send("/").await, (200, 90, 14));
    assert_eq!(scene.used().await, 14);
    let response = scene.service.clone().oneshot(request("/")).await.unwrap();
    let mut body = response.into_body();
    body.frame().await.unwrap().unwrap();
    drop(body);
    assert_eq!(
        scene.used().await,
        24,
        "a client that leaves before the work is charged what was reserved"
    );
}

#[tokio::test]
async fn what_was_taken_is_refunded_with_the_rest() {
    let scene = Scene::new(
        10,
        |quota| quota,
        async |request| {
            reservation(&request).take(4).await.unwrap();
            Ok(Response::builder().status(500).body(Body::empty()).unwrap())
        },
    );
    // Not more than the limit is refunded for what a client may have provoked.
    assert_eq!(scene.send("/").await, (500, 10, 0));
    assert_eq!(scene.send("/").await, (500, 10, 0));
    assert_eq!(scene.send("/").await, (500, 5, 5));
    assert_eq!(scene.used().await, 5);
}

#[tokio::test]
async fn a_refund_counts_although_the_store_cannot_correct_the_amount() {
    let scene = Scene::with(
        Uncorrected,
        100,
        |quota| quota.cost(|_| 10),
        async |request| {
            reservation(&request).settle(3);
            let status = if request.uri().path() == "/fails" { 500 } else { 200 };
            Ok(Response::builder().status(status).body(Body::empty()).unwrap())
        },
    );
    assert_eq!(scene.send("/fails").await, (500, 100, 0));
    assert_eq!(scene.used().await, 0);
    assert_eq!(scene.send("/").await, (200, 90, 10));
    assert_eq!(scene.used().await, 10);
}

#[tokio::test]
async fn a_dropped_request_is_charged_what_its_handler_has_said() {
    let waits = Arc::new(Semaphore::new(0));
    let handler = waits.clone();
    let scene = Scene::new(
        100,
        |quota| quota.cost(|_| 10),
        move |request: Request<Body>| {
            let waits = handler.clone();
            async move {
                let reservation = reservation(&request);
                reservation.take(5).await.unwrap();
                if request.uri().path() == "/settled" {
                    reservation.settle(2);
                }
                waits.add_permits(1);
                std::future::pending().await
            }
        },
    );
    for (path, used) in [("/settled", 2), ("/", 17)] {
        let service = scene.service.clone();
        let request = service.oneshot(request(path));
        tokio::select! {
            _ = request => unreachable!("the handler waits"),
            permit = waits.acquire() => permit.unwrap().forget(),
        }
        assert_eq!(scene.used().await, used, "{path}");
    }
    let events = scene.events.0.lock().unwrap();
    let units: Vec<_> = events.iter().map(|event| event.units).collect();
    assert_eq!(units, [2, 15]);
}

#[tokio::test]
async fn units_that_are_being_taken_stay_charged_if_the_request_is_dropped() {
    let scene = Scene::new(100, |quota| quota, take);
    for polls in 0..6 {
        let mut call = Box::pin(scene.service.clone().oneshot(request("/4")));
        let mut cx = Context::from_waker(Waker::noop());
        let is_over = (0..polls).any(|_| call.as_mut().poll(&mut cx).is_ready());
        let before = scene.used().await;
        drop(call);
        assert_eq!(scene.used().await, before);
        let recorded: u32 = scene.events.0.lock().unwrap().iter().map(|event| event.units).sum();
        assert_eq!(u64::from(recorded), before, "after {polls} polls");
        if is_over {
            return;
        }
    }
    unreachable!("the handler waits for ever");
}

#[tokio::test]
async fn each_quota_of_a_request_has_a_reservation() {
    let (store, events) = (MemoryStore::new(), Events::default());
    let tokens = Quota::new("tokens", Period::Day).unwrap();
    let layer = |limit| DailyQuotaLayer::new(store.clone()).subject(move |_| subject(limit));
    let service = ServiceBuilder::new()
        .layer(UsageRecorderLayer::new(events.clone()))
        .layer(layer(10))
        .layer(layer(1_000).quota(tokens).cost(|_| 100))
        .service(service_fn(move |request: Request<Body>| async move {
            let context: &RequestContext = request.extensions().get().unwrap();
            let innermost = context.reservation().unwrap();
            assert_eq!((innermost.status().quota, innermost.units()), (tokens, 100));
            innermost.take(250).await.unwrap();
            context.reservation_of(Quota::DAILY).unwrap().take(1).await.unwrap();
            let unknown = Quota::new("unknown", Period::Day).unwrap();
            assert!(context.reservation_of(unknown).is_none());
            let used: Vec<_> = context.quota_statuses().iter().map(|status| status.used).collect();
            assert_eq!(used, [2, 350]);
            Ok::<_, Infallible>(Response::new(Body::empty()))
        }));
    let response = service.oneshot(request("/")).await.unwrap();
    let lists = response.headers()["ratelimit"].to_str().unwrap();
    assert!(lists.starts_with("\"daily\";r=8;") && lists.contains("\"tokens\";r=650;"), "{lists}");
    response.into_body().collect().await.unwrap();
    assert_eq!(events.0.lock().unwrap()[0].units, 2);
}

#[tokio::test]
async fn a_handler_that_could_take_no_units_shows_the_exhausted_quota_as_the_layer_would() {
    let store = MemoryStore::new();
    let tokens = Quota::new("tokens", Period::Day).unwrap();
    let layer = |limit| DailyQuotaLayer::new(store.clone()).subject(move |_| subject(limit));
    let service = ServiceBuilder::new()
        .layer(layer(10).headers(OpenAiRateHeaders))
        .layer(layer(1_000).quota(tokens).cost(|_| 100).headers(OpenAiRateHeaders))
        .service(service_fn(async |request: Request<Body>| match request.uri().path() {
            "/forbidden" => {
                assert!(reservation(&request).take(5_000).await.is_err());
                let forbidden = catalog::KEY_DISABLED.rejection().render(&ProblemJson, &request);
                Ok(forbidden.map(Body::from))
            }
            _ => take(request).await,
        }));
    for (path, status, lists, left) in [
        ("/901", 429, ["\"tokens\";r=1000"].as_slice(), "1000"),
        // Not rejected because units were missing.
        ("/forbidden", 403, &["\"daily\";r=10", "\"tokens\";r=1000"], "10"),
        ("/900", 200, &["\"daily\";r=9", "\"tokens\";r=0"], "0"),
    ] {
        let response = service.clone().oneshot(request(path)).await.unwrap();
        assert_eq!(response.status(), status, "{path}");
        let header = response.headers()["ratelimit"].to_str().unwrap();
        let items: Vec<_> =
            header.split(", ").map(|item| item.split(";t=").next().unwrap()).collect();
        assert_eq!(items, lists, "{path}");
        // Fewer requests than tokens are left, but the tokens were too few.
        assert_eq!(response.headers()["x-ratelimit-remaining-requests"], left, "{path}");
    }
}

/// Runs this test in a process of its own, with the path of a database, and waits until it has aborted.
fn abort_in_process(test: &str, path: &Path) {
    let ended = Command::new(env::current_exe().unwrap())
        .args(["--exact", &format!("reservations::{test}")])
        .env(DATABASE, path)
        .output()
        .unwrap();
    assert!(!ended.status.success());
}

/// Variable with the path of the database in a process that aborts.
const DATABASE: &str = "OUTSIDE_DATABASE";

#[tokio::test]
async fn a_process_that_ends_in_a_handler_leaves_one_failed_request_with_all_its_units() {
    let name = "a_process_that_ends_in_a_handler_leaves_one_failed_request_with_all_its_units";
    let [used, requests, failed] = left_by_a_process_that_ends_in_a_handler(name, true).await;
    assert_eq!((used, requests, failed), (5, 1, 1));
}

#[tokio::test]
async fn a_process_that_ends_in_a_handler_leaves_only_units_if_nobody_records_requests() {
    let name = "a_process_that_ends_in_a_handler_leaves_only_units_if_nobody_records_requests";
    let [used, requests, failed] = left_by_a_process_that_ends_in_a_handler(name, false).await;
    assert_eq!((used, requests, failed), (5, 0, 0));
}

/// Runs the test of this name once more, in a process that ends in its handler. Returns the numbers of units used,
/// of requests, and of failed ones.
async fn left_by_a_process_that_ends_in_a_handler(name: &str, is_recorded: bool) -> [u64; 3] {
    let open = |path: &Path| SqliteStore::open(path).unwrap();
    if let Some(path) = env::var_os(DATABASE) {
        let store = open(Path::new(&path));
        let images = Quota::new("images", Period::Day).unwrap();
        let service = ServiceBuilder::new()
            .layer(DailyQuotaLayer::new(store.clone()).subject(|_| subject(10)))
            .layer(DailyQuotaLayer::new(store.clone()).quota(images).subject(|_| subject(10)))
            .service(service_fn(
                async |request: Request<Body>| -> Result<Response<Body>, Infallible> {
                    let context: &RequestContext = request.extensions().get().unwrap();
                    context.reservation_of(Quota::DAILY).unwrap().take(4).await.unwrap();
                    process::abort()
                },
            ));
        if is_recorded {
            UsageRecorder::new(service, store).oneshot(request("/")).await.unwrap();
        } else {
            service.oneshot(request("/")).await.unwrap();
        }
    }
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("quota.db");
    abort_in_process(name, &path);
    let store = open(&path);
    let today = Calendar::utc().window(SystemTime::now()).day;
    let report = store.report(UsageQuery::days(today.minus(1), today)).await.unwrap();
    let [row] = &report.rows[..] else { panic!("{report:?}") };
    [row.used.unwrap_or_default(), row.figures.requests, row.figures.failed]
}

#[tokio::test]
async fn a_request_that_a_kill_cuts_off_has_failed_on_its_day_also_if_its_quota_is_monthly() {
    let noon = parse_timestamp("2026-11-22T12:00:00Z").unwrap();
    let open = |path: &Path| SqliteStore::open(SqliteOptions::new(path).clock(At(noon))).unwrap();
    if let Some(path) = env::var_os(DATABASE) {
        let store = open(Path::new(&path));
        let exports = Quota::new("exports", Period::Month).unwrap();
        let service = ServiceBuilder::new()
            .layer(UsageRecorderLayer::new(store.clone()))
            .layer(DailyQuotaLayer::new(store).quota(exports).subject(|_| subject(10)))
            .service(service_fn(async |_: Request<Body>| -> Result<Response<Body>, Infallible> {
                process::abort()
            }));
        let mut request = request("/");
        RequestContext::of(request.extensions_mut()).set_received_at(noon);
        service.oneshot(request).await.unwrap();
    }
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("quota.db");
    abort_in_process(
        "a_request_that_a_kill_cuts_off_has_failed_on_its_day_also_if_its_quota_is_monthly",
        &path,
    );
    let (first, day) = ("2026-11-01".parse().unwrap(), Calendar::utc().window(noon).day);
    let report = open(&path).report(UsageQuery::days(first, day)).await.unwrap();
    let [row] = &report.rows[..] else { panic!("{report:?}") };
    assert_eq!((row.day, row.figures.requests, row.figures.failed), (Some(day), 1, 1));
}
