//! Requests of all keys share a number of places at the inner service, and wait for them in turn.

use std::{
    collections::{BTreeSet, VecDeque},
    future::{Future, Ready, pending, ready},
    mem,
    num::NonZeroU32,
    panic::{AssertUnwindSafe, catch_unwind},
    pin::Pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    task::{Context, Poll, Wake},
    time::Duration,
};

use bytes::Bytes;
use futures_util::future::Either;
use http::{HeaderMap, Method, Request, Response, StatusCode};
use http_body::Frame;
use http_body_util::{BodyExt, Full};
use tokio::task::{JoinSet, unconstrained, yield_now};
use tower::{Layer, Service, ServiceBuilder, ServiceExt};
use tower_quota::{
    auth::TrialKeyAuthLayer,
    error::reject_fn,
    key::{KeyId, KeyRecord, Limit, SecretKey},
    quota::{DailyQuotaLayer, FairShare, FairShareBody, FairShareLayer},
    request::RequestContext,
    store::{Demand, QuotaStore, RequestOutcome, UsageEvent, UsageSink},
    usage::UsageRecorderLayer,
};

use crate::{seed::Random, zone::memory_store};

/// An inner service that responds at once, so that requests hold their places by their bodies. It panics if it
/// is called without having been readied, and its clones are not ready.
#[derive(Default)]
struct Inner {
    is_ready: bool,
    at_once: Arc<AtOnce>,
}

/// The number of requests that have not ended, and the most there have been.
#[derive(Default)]
struct AtOnce {
    now: AtomicUsize,
    most: AtomicUsize,
}

#[derive(Debug, PartialEq)]
struct Failure;

/// A response body of one frame.
struct Script {
    frame: Option<Result<Frame<Bytes>, Failure>>,
    entered: Option<Entered>,
}

/// A request that has not ended.
struct Entered(Arc<AtOnce>);

impl AtOnce {
    fn enter(self: &Arc<Self>) -> Entered {
        let now = self.now.fetch_add(1, Ordering::SeqCst) + 1;
        self.most.fetch_max(now, Ordering::SeqCst);
        Entered(self.clone())
    }
}

impl Drop for Entered {
    fn drop(&mut self) {
        self.0.now.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Clone for Inner {
    fn clone(&self) -> Self {
        Self { is_ready: false, at_once: self.at_once.clone() }
    }
}

impl<B> Service<Request<B>> for Inner {
    type Response = Response<Script>;
    type Error = Failure;
    type Future = Either<
        Ready<Result<Response<Script>, Failure>>,
        Pin<Box<dyn Future<Output = Result<Response<Script>, Failure>> + Send>>,
    >;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Failure>> {
        self.is_ready = true;
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        assert!(mem::take(&mut self.is_ready), "called without having been readied");
        let entered = self.at_once.enter();
        let path = request.uri().path().to_owned();
        let frame = match &*path {
            "/broken" => Err(Failure),
            "/trailers" => Ok(Frame::trailers(HeaderMap::new())),
            _ => Ok(Frame::data(Bytes::from_static(b"ok"))),
        };
        let mut response = Response::new(Script { frame: Some(frame), entered: Some(entered) });
        match &*path {
            "/panics" => panic!("as it was requested"),
            "/pending" => {
                return Either::Right(Box::pin(async {
                    let _response = response;
                    pending().await
                }));
            }
            "/fails" => return Either::Left(ready(Err(Failure))),
            "/no-content" => *response.status_mut() = StatusCode::NO_CONTENT,
            "/length" => drop(response.headers_mut().insert("content-length", 2.into())),
            _ => {}
        }
        Either::Left(ready(Ok(response)))
    }
}

impl http_body::Body for Script {
    type Data = Bytes;
    type Error = Failure;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Failure>>> {
        if !matches!(&self.frame, Some(Ok(frame)) if frame.is_data()) {
            self.entered = None;
        }
        Poll::Ready(self.frame.take())
    }
}

type Outcome = Result<Response<FairShareBody<Script>>, Failure>;

/// A request that is polled by hand.
struct Sent {
    future: Pin<Box<dyn Future<Output = Outcome>>>,
    woken: Arc<Woken>,
}

struct Woken(AtomicBool);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::SeqCst);
    }
}

impl Sent {
    fn poll(&mut self) -> Poll<Outcome> {
        self.woken.0.store(false, Ordering::SeqCst);
        let waker = self.woken.clone().into();
        self.future.as_mut().poll(&mut Context::from_waker(&waker))
    }

    fn poll_if_woken(&mut self) -> Poll<Outcome> {
        if self.is_woken() { self.poll() } else { Poll::Pending }
    }

    /// Whether it is to be polled, for the first time or again.
    fn is_woken(&self) -> bool {
        self.woken.0.load(Ordering::SeqCst)
    }

    /// Returns the response, for which the request does not wait.
    #[track_caller]
    fn response(mut self) -> Response<FairShareBody<Script>> {
        match self.poll() {
            Poll::Ready(outcome) => outcome.unwrap(),
            Poll::Pending => panic!("it waits"),
        }
    }

    /// Polls it once, at which it must wait.
    #[track_caller]
    fn waiting(mut self) -> Self {
        assert!(self.poll().is_pending(), "it does not wait");
        self
    }
}

fn layer(max: u32) -> FairShareLayer {
    FairShareLayer::new(NonZeroU32::new(max))
}

fn request(key: &str, path: &str) -> Request<Full<Bytes>> {
    let mut request = Request::new(Full::default());
    *request.uri_mut() = path.parse().unwrap();
    let record = KeyRecord::new(KeyId::from(key), Limit::Unlimited);
    RequestContext::of(request.extensions_mut()).set_key(Arc::new(record));
    request
}

/// Calls a clone of the service, which puts the request into its queue.
fn send_request(service: &FairShare<Inner>, request: Request<Full<Bytes>>) -> Sent {
    let mut service = service.clone();
    let mut cx = Context::from_waker(std::task::Waker::noop());
    assert!(Service::<Request<Full<Bytes>>>::poll_ready(&mut service, &mut cx).is_ready());
    // Its timer must not wake it for the sake of other tasks.
    let future = Box::pin(unconstrained(service.call(request)));
    Sent { future, woken: Arc::new(Woken(AtomicBool::new(true))) }
}

fn send(service: &FairShare<Inner>, key: &str) -> Sent {
    send_request(service, request(key, "/"))
}

/// Whether all places are free.
fn all_free(service: &FairShare<Inner>, max: usize) -> bool {
    let mut sent: Vec<Sent> = (0..=max).map(|_| send(service, "probe")).collect();
    let outcomes: Vec<_> = sent.iter_mut().map(Sent::poll).collect();
    outcomes.iter().filter(|outcome| outcome.is_ready()).count() == max
}

#[tokio::test]
async fn exactly_the_maximum_is_at_the_inner_service_at_once() {
    let inner = Inner::default();
    let at_once = inner.at_once.clone();
    let service = layer(8).layer(inner);
    let mut sent: Vec<Sent> = (0..50).map(|number| send(&service, &format!("{number}"))).collect();
    let mut served = Vec::new();
    while served.len() < 50 {
        let mut bodies = Vec::new();
        sent.retain_mut(|sent| match sent.poll() {
            Poll::Ready(outcome) => {
                bodies.push(outcome.unwrap().into_body());
                false
            }
            Poll::Pending => true,
        });
        assert_eq!(bodies.len(), 8.min(50 - served.len()));
        assert_eq!(at_once.now.load(Ordering::SeqCst), bodies.len());
        for body in bodies {
            served.push(body.collect().await.unwrap().to_bytes());
        }
    }
    assert_eq!(at_once.most.load(Ordering::SeqCst), 8);
    assert!(all_free(&service, 8));
}

#[tokio::test]
async fn a_place_comes_back_at_each_kind_of_end() {
    let service = layer(1).layer(Inner::default());
    let get = |path: &str| send_request(&service, request("alice", path));
    let next_is_served = |end: &str| assert!(all_free(&service, 1), "{end}");

    let whole = get("/").response();
    let next = get("/").waiting();
    assert_eq!(whole.into_body().collect().await.unwrap().to_bytes(), "ok");
    assert!(next.is_woken());
    drop(next.response());
    next_is_served("the body has ended");

    let mut declared = get("/length").response().into_body();
    declared.frame().await.unwrap().unwrap();
    next_is_served("the declared length was read");
    let mut trailers = get("/trailers").response().into_body();
    trailers.frame().await.unwrap().unwrap();
    next_is_served("the trailers were read");
    let no_content = get("/no-content").response();
    next_is_served("a response has no body");
    let mut head = request("alice", "/");
    *head.method_mut() = Method::HEAD;
    let head = send_request(&service, head).response();
    next_is_served("a response to HEAD has no body");
    let broken = get("/broken").response().into_body().collect().await;
    assert_eq!(broken.unwrap_err(), Failure);
    next_is_served("the body has failed");
    drop((declared, trailers, no_content, head));
    next_is_served("and no place comes back twice");

    drop(get("/").response());
    next_is_served("the body was dropped");
    drop(get("/pending").waiting());
    next_is_served("the future was dropped");
    drop(get("/pending"));
    next_is_served("the future was dropped before it was polled");
    assert!(matches!(get("/fails").poll(), Poll::Ready(Err(Failure))));
    next_is_served("the inner service has failed");
    assert!(catch_unwind(AssertUnwindSafe(|| get("/panics"))).is_err());
    next_is_served("the inner service has panicked");

    let held = get("/").response();
    let mut waiting = get("/panics").waiting();
    drop(held);
    assert!(catch_unwind(AssertUnwindSafe(|| waiting.poll().is_ready())).is_err());
    drop(waiting);
    next_is_served("the inner service has panicked after a request had waited");
}

#[tokio::test]
async fn beside_500_requests_of_a_greedy_key_a_modest_one_waits_for_at_most_one_of_each_other_key()
{
    let mut random = Random::seeded("fair_share");
    let service = layer(8).layer(Inner::default());
    // The keys of the requests in the order in which they got their places, and how many had by each arrival.
    let (mut granted, mut arrivals) = (Vec::new(), Vec::new());
    let greedy = (0..500).map(|_| ("greedy".to_owned(), send(&service, "greedy")));
    let (mut waiting, mut bodies) = (greedy.collect::<Vec<_>>(), Vec::new());
    while !waiting.is_empty() {
        waiting.retain_mut(|(key, sent)| match sent.poll_if_woken() {
            Poll::Ready(outcome) => {
                granted.push(key.clone());
                bodies.push(outcome.unwrap().into_body());
                false
            }
            Poll::Pending => true,
        });
        if arrivals.len() < 50 && random.below(3) == 0 {
            let key = format!("modest-{}", arrivals.len());
            waiting.push((key.clone(), send(&service, &key)));
            arrivals.push((key, granted.len()));
        }
        if !bodies.is_empty() {
            drop(bodies.swap_remove(random.below(bodies.len() as u64) as usize));
        }
    }
    assert_eq!((granted.len(), arrivals.len()), (550, 50));
    for (key, arrived) in arrivals {
        let own = granted.iter().position(|granted| *granted == key).unwrap();
        let before = &granted[arrived..own];
        let others: BTreeSet<&String> = before.iter().collect();
        assert_eq!(before.len(), others.len(), "{key} has waited for {before:?}");
    }
}

#[tokio::test]
async fn the_requests_of_a_key_are_served_in_the_order_in_which_they_came() {
    let service = layer(1).layer(Inner::default());
    let mut held = send(&service, "alice").response();
    let mut waiting: VecDeque<Sent> = (0..10).map(|_| send(&service, "bob").waiting()).collect();
    while let Some(next) = waiting.pop_front() {
        drop(held);
        assert!(next.is_woken() && waiting.iter().all(|later| !later.is_woken()));
        held = next.response();
    }
}

#[tokio::test]
async fn requests_without_a_key_wait_in_one_queue() {
    let service = layer(1).layer(Inner::default());
    let held = send(&service, "alice").response();
    let anonymous = || send_request(&service, Request::new(Full::default())).waiting();
    let [first, second] = [anonymous(), anonymous()];
    let bob = send(&service, "bob").waiting();
    drop(held);
    drop(first.response());
    assert!(bob.is_woken() && !second.is_woken());
    drop(bob.response());
    drop(second.response());
    assert!(all_free(&service, 1));
}

#[tokio::test]
async fn those_who_take_turns_are_the_ones_that_the_application_names() {
    let by_path = layer(1).subject(|head| KeyId::from(head.uri.path()));
    let service = by_path.layer(Inner::default());
    let get = |path: &str| send_request(&service, request("alice", path));
    let held = get("/held").response();
    let [first, second, other] = ["/a", "/a", "/b"].map(|path| get(path).waiting());
    drop(held);
    drop(first.response());
    assert!(other.is_woken() && !second.is_woken());
}

#[tokio::test]
async fn clones_of_the_layer_share_the_places() {
    let layer = layer(1);
    let (one, other) = (layer.clone().layer(Inner::default()), layer.layer(Inner::default()));
    let held = send(&one, "alice").response();
    let waiting = send(&other, "bob").waiting();
    drop(held);
    drop(waiting.response());
    assert!(all_free(&one, 1));
}

#[tokio::test]
async fn without_a_limit_nobody_waits() {
    let service = FairShare::new(Inner::default(), None);
    let held: Vec<_> = (0..1000).map(|_| send(&service, "alice").response()).collect();
    assert_eq!(held.len(), 1000);
}

#[tokio::test]
async fn a_waiting_request_that_is_dropped_takes_no_turn() {
    let service = layer(1).layer(Inner::default());
    let held = send(&service, "alice").response();
    let [first, second, third] = ["bob", "carol", "dave"].map(|key| send(&service, key).waiting());
    drop(second);
    drop(held);
    assert!(first.is_woken());
    // It was granted the place and has not seen it.
    drop(first);
    assert!(third.is_woken());
    drop(third.response());
    assert!(all_free(&service, 1));
}

#[derive(Clone, Default)]
struct Events(Arc<Mutex<Vec<UsageEvent>>>);

impl UsageSink for Events {
    fn record(&self, event: UsageEvent) {
        self.0.lock().unwrap().push(event);
    }
}

#[tokio::test(start_paused = true)]
async fn a_request_that_has_waited_too_long_is_rejected_and_costs_nothing() {
    const KEY: &str = "trial-key-manual-123";
    let (store, events) = (memory_store(), Events::default());
    let record = KeyRecord::new(KeyId::from("alice"), Limit::Units(5));
    store.insert(&SecretKey::parse(KEY).unwrap(), record).unwrap();
    let service = ServiceBuilder::new()
        .layer(UsageRecorderLayer::new(events.clone()))
        .layer(TrialKeyAuthLayer::new(store.clone()))
        .layer(DailyQuotaLayer::new(store.clone()))
        .layer(layer(1).max_wait(Duration::from_secs(30)))
        .service(Inner::default());
    let send = || {
        let request = Request::get("/").header("x-api-key", KEY).body(Full::<Bytes>::default());
        service.clone().oneshot(request.unwrap())
    };
    let held = send().await.unwrap();
    let started = tokio::time::Instant::now();
    let rejected = send().await.unwrap();
    let waited = started.elapsed();
    assert!((30_000..30_100).contains(&waited.as_millis()), "{waited:?}");
    assert_eq!(rejected.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(rejected.headers()["retry-after"], "1");
    assert!(rejected.headers()["ratelimit"].to_str().unwrap().starts_with("\"daily\";r=4;"));
    let body = rejected.into_body().collect().await.unwrap().to_bytes();
    let body: serde_json::Value = serde_json::from_slice(&body).unwrap();
    assert_eq!(body["code"], "upstream_rate_limited");

    let event = events.0.lock().unwrap().pop().unwrap();
    assert_eq!(event.outcome, RequestOutcome::Rejected);
    assert_eq!((event.code.as_deref(), event.units), (Some("upstream_rate_limited"), 0));
    let demand = Demand::new(KeyId::from("alice"), Limit::Units(5), std::time::SystemTime::now());
    assert_eq!(store.status(&demand).await.unwrap().used, 1);

    held.into_body().collect().await.unwrap();
    assert_eq!(send().await.unwrap().status(), 200, "it has left the queue");
}

#[tokio::test(start_paused = true)]
async fn a_place_that_is_granted_at_the_deadline_is_used() {
    let service = layer(1).max_wait(Duration::from_secs(1)).layer(Inner::default());
    let held = send(&service, "alice").response();
    let granted = send(&service, "bob").waiting();
    tokio::time::advance(Duration::from_millis(500)).await;
    let mut later = send(&service, "carol").waiting();
    tokio::time::advance(Duration::from_millis(501)).await;
    drop(held);
    assert!(granted.is_woken());
    assert_eq!(granted.response().status(), 200);
    assert!(later.is_woken());
    tokio::time::advance(Duration::from_millis(500)).await;
    let Poll::Ready(outcome) = later.poll() else { panic!("its place was never lost") };
    assert_eq!(outcome.unwrap().status(), 200);
    assert!(all_free(&service, 1));
}

#[tokio::test(start_paused = true)]
async fn a_rejection_is_rendered_as_the_application_says() {
    let teapot = reject_fn(|rejection, request| {
        let body = format!("{} {}", request.uri().unwrap(), rejection.message);
        Response::builder().status(418).body(Bytes::from(body)).unwrap()
    });
    let service = layer(1).reject(teapot).layer(Inner::default());
    let _held = send(&service, "alice").response();
    for (method, body) in [(Method::GET, true), (Method::HEAD, false)] {
        let mut request = request("bob", "/x");
        *request.method_mut() = method;
        let response = service.clone().oneshot(request).await.unwrap();
        assert_eq!(response.status(), 418);
        let text = response.into_body().collect().await.unwrap().to_bytes();
        assert_eq!(text.starts_with(b"/x Too many requests"), body, "{text:?}");
    }
}

/// What the layer must do, as simple as it can be said.
#[derive(Default)]
struct Model {
    max: usize,
    /// Requests that have a place, whether they know it or not.
    have_place: BTreeSet<usize>,
    ring: VecDeque<(u64, VecDeque<usize>)>,
}

impl Model {
    fn arrive(&mut self, request: usize, key: u64) {
        if self.have_place.len() < self.max {
            self.have_place.insert(request);
        } else if let Some((_, queue)) = self.ring.iter_mut().find(|(known, _)| *known == key) {
            queue.push_back(request);
        } else {
            self.ring.push_back((key, [request].into()));
        }
    }

    fn end(&mut self, request: usize) {
        if !self.have_place.remove(&request) {
            self.ring.iter_mut().for_each(|(_, queue)| queue.retain(|other| *other != request));
            self.ring.retain(|(_, queue)| !queue.is_empty());
        } else if let Some((key, mut queue)) = self.ring.pop_front() {
            self.have_place.extend(queue.pop_front());
            if !queue.is_empty() {
                self.ring.push_back((key, queue));
            }
        }
    }
}

#[tokio::test]
async fn random_arrivals_drops_and_ends_are_granted_as_a_model_says() {
    let mut random = Random::seeded("fair_share");
    for max in [1, 3, 8] {
        let service = layer(max).layer(Inner::default());
        let mut model = Model { max: max as usize, ..Model::default() };
        let (mut waiting, mut bodies): (Vec<(usize, Sent)>, Vec<_>) = (Vec::new(), Vec::new());
        for number in 0..20_000 {
            match random.below(8) {
                0..3 => {
                    let key = random.below(6);
                    let mut sent = send(&service, &key.to_string());
                    model.arrive(number, key);
                    match sent.poll() {
                        Poll::Ready(outcome) => bodies.push((number, outcome.unwrap())),
                        Poll::Pending => waiting.push((number, sent)),
                    }
                    let has_place = bodies.last().is_some_and(|(last, _)| *last == number);
                    assert_eq!(has_place, model.have_place.contains(&number), "on arrival");
                }
                3..5 if !bodies.is_empty() => {
                    let at = random.below(bodies.len() as u64) as usize;
                    let (number, response) = bodies.swap_remove(at);
                    if random.below(2) == 0 {
                        response.into_body().collect().await.unwrap();
                    }
                    model.end(number);
                }
                5 if !waiting.is_empty() => {
                    let at = random.below(waiting.len() as u64) as usize;
                    let (number, sent) = waiting.swap_remove(at);
                    drop(sent);
                    model.end(number);
                }
                6 if !waiting.is_empty() => {
                    // Polled again without a reason, it waits as before.
                    let at = random.below(waiting.len() as u64) as usize;
                    if !waiting[at].1.is_woken() {
                        assert!(waiting[at].1.poll().is_pending());
                    }
                }
                _ => {
                    let woken = waiting.iter().position(|(_, sent)| sent.is_woken());
                    if let Some((number, sent)) = woken.map(|at| waiting.swap_remove(at)) {
                        bodies.push((number, sent.response()));
                    }
                }
            }
            for (number, sent) in &waiting {
                assert_eq!(sent.is_woken(), model.have_place.contains(number), "{number}");
            }
        }
        drop((waiting, bodies));
        assert!(all_free(&service, max as usize));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn no_place_is_lost_or_made_by_requests_that_end_on_many_threads() {
    let mut random = Random::seeded("fair_share");
    let inner = Inner::default();
    let at_once = inner.at_once.clone();
    let service = layer(4).max_wait(Duration::from_millis(2)).layer(inner);
    let mut tasks = JoinSet::new();
    for _ in 0..4000 {
        let (service, mut random) = (service.clone(), random.fork());
        tasks.spawn(async move {
            for _ in 0..random.below(20) {
                yield_now().await;
            }
            let sent = service.oneshot(request(&random.below(9).to_string(), "/"));
            let timeout = Duration::from_micros(random.below(4000));
            let Ok(response) = tokio::time::timeout(timeout, sent).await else { return };
            for _ in 0..random.below(5) {
                yield_now().await;
            }
            if random.below(2) == 0 {
                let _ = response.unwrap().into_body().collect().await;
            }
        });
    }
    while let Some(ended) = tasks.join_next().await {
        ended.unwrap();
    }
    assert_eq!(at_once.now.load(Ordering::SeqCst), 0);
    assert!(at_once.most.load(Ordering::SeqCst) <= 4);
    assert!(all_free(&service, 4));
}
