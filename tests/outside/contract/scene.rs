//! The table of middleware, and what stands around and within each: scripted bodies, an inner service with
//! one permit, a store that may take its time, and what they have seen.

use std::{
    collections::VecDeque,
    future::{Future, poll_fn},
    mem,
    num::NonZeroU32,
    pin::Pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll},
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode, request, response::Parts};
use http_body::{Body, Frame, SizeHint};
use http_body_util::{BodyExt, combinators::BoxBody};
use tokio::{sync::Semaphore, task::yield_now};
use tower::{
    Layer, Service, ServiceBuilder, ServiceExt, limit::ConcurrencyLimit, util::BoxCloneSyncService,
};
use tower_quota::{
    auth::TrialKeyAuthLayer,
    body::BodyEnd,
    clock::{Calendar, Clock},
    error::StoreError,
    key::{KeyId, KeyRecord, Limit, SecretKey},
    openai::{AnthropicErrorsLayer, stream_usage::StreamUsageLayer},
    quota::{
        ChargeDecision, ChargePolicy, CommitPoint, DailyQuotaLayer, FairShareLayer,
        InFlightLimitLayer, RateLimitLayer, ResponseEnd,
    },
    store::{
        Demand, KeyStore, QuotaStatus, QuotaStore, QuotaSubject, Refund, Reservation,
        ReserveOutcome, StoreFuture, memory::MemoryStore,
    },
    usage::{DrainLayer, DrainLimits, UsageRecorderLayer},
};

use super::super::{Events, KEY};

const LIMIT: u64 = 1_000;
const CONTENT: &str = "data: {\"choices\":[{\"delta\":{\"content\":\"a\"}}]}\n\n";
const USAGE: &str = "data: {\"choices\":[],\"usage\":{\"total_tokens\":1}}\n\n";
const DONE: &str = "data: [DONE]\n\n";

/// A middleware around the inner service of a scene. Only types are erased, so that a table can hold it.
pub(super) type Wrapped =
    BoxCloneSyncService<Request<Script>, Response<BoxBody<Bytes, Failure>>, Failure>;

/// A middleware, and what it does besides passing requests.
pub(super) struct Row {
    pub(super) name: &'static str,
    pub(super) wrap: fn(&Scene) -> Wrapped,
    /// Whether there is an event for each request.
    pub(super) records: bool,
    /// Whether each request counts one unit.
    pub(super) counts: bool,
    /// Whether responses are read to their end when their client has left.
    pub(super) drains: bool,
}

const PLAIN: Row =
    Row { name: "", wrap: |_| unreachable!(), records: false, counts: false, drains: false };

pub(super) const ROWS: &[Row] = &[
    Row { name: "TrialKeyAuth", wrap: |scene| scene.wrap(scene.auth()), ..PLAIN },
    Row { name: "DailyQuota", wrap: |scene| scene.wrap(scene.quota()), counts: true, ..PLAIN },
    Row {
        name: "DailyQuota that commits before it forwards",
        wrap: |scene| scene.wrap(scene.quota().commit(CommitPoint::BeforeForward)),
        counts: true,
        ..PLAIN
    },
    Row {
        name: "DailyQuota whose subject is looked up",
        wrap: |scene| {
            scene.wrap(scene.quota().subject_async(|_| async {
                yield_now().await;
                Ok(subject())
            }))
        },
        counts: true,
        ..PLAIN
    },
    Row { name: "InFlightLimit", wrap: |scene| scene.wrap(in_flight()), ..PLAIN },
    Row { name: "RateLimit", wrap: |scene| scene.wrap(rate()), ..PLAIN },
    Row {
        name: "FairShare with one place",
        wrap: |scene| scene.wrap(FairShareLayer::new(NonZeroU32::MIN)),
        ..PLAIN
    },
    Row {
        name: "FairShare without a limit",
        wrap: |scene| scene.wrap(FairShareLayer::new(None)),
        ..PLAIN
    },
    Row {
        name: "UsageRecorder",
        wrap: |scene| scene.wrap(scene.recorder()),
        records: true,
        ..PLAIN
    },
    Row {
        name: "UsageRecorder that watches requests",
        wrap: |scene| scene.wrap(scene.recorder().watch_requests()),
        records: true,
        ..PLAIN
    },
    Row {
        name: "IncludeUsage",
        wrap: |scene| scene.wrap(StreamUsageLayer::new().split().1),
        ..PLAIN
    },
    Row {
        name: "IncludeUsage and HideUsage",
        wrap: |scene| scene.wrap(StreamUsageLayer::new()),
        ..PLAIN
    },
    Row { name: "AnthropicErrors", wrap: |scene| scene.wrap(AnthropicErrorsLayer::new()), ..PLAIN },
    Row { name: "Drain", wrap: |scene| scene.wrap(scene.drain.clone()), drains: true, ..PLAIN },
    Row { name: "Drain that is off", wrap: |scene| scene.wrap(DrainLayer::off()), ..PLAIN },
    Row {
        name: "all of them",
        wrap: |scene| {
            let layers = ServiceBuilder::new()
                .layer(scene.drain.clone())
                .layer(AnthropicErrorsLayer::new())
                .layer(scene.auth())
                .layer(scene.recorder().watch_requests())
                .layer(rate())
                .layer(in_flight())
                .layer(scene.quota())
                .layer(FairShareLayer::new(NonZeroU32::MIN))
                .layer(StreamUsageLayer::new());
            scene.wrap(layers)
        },
        records: true,
        counts: true,
        drains: true,
    },
];

fn subject() -> QuotaSubject {
    QuotaSubject::new(KeyId::from("alice"), Limit::Units(LIMIT))
}

/// Admits one request at a time.
fn in_flight() -> InFlightLimitLayer {
    InFlightLimitLayer::new(Limit::Unlimited).subject(|request| limited(request, 1))
}

fn rate() -> RateLimitLayer {
    RateLimitLayer::per_minute(Limit::Unlimited).subject(|request| limited(request, LIMIT))
}

/// Returns the subject with this limit, or with one that admits nothing.
fn limited(request: &request::Parts, limit: u64) -> QuotaSubject {
    let limit = if request.headers.contains_key("x-rejected") { 0 } else { limit };
    QuotaSubject::new(KeyId::from("alice"), Limit::Units(limit))
}

/// Kinds of scenes: their store responds at once or not, and their inner service supports the option that
/// requests usage or not.
pub(super) const SCENES: [fn() -> Scene; 3] =
    [|| Scene::new(false, true), || Scene::new(true, true), || Scene::new(true, false)];

/// What a middleware meets in one test.
pub(super) struct Scene {
    permits: Arc<Semaphore>,
    upstream: Upstream,
    store: Store,
    events: Events,
    ends: Arc<AtomicU64>,
    drain: DrainLayer,
}

impl Scene {
    /// Creates a scene whose store responds at once or takes some turns, and whose inner service knows the
    /// option that requests usage or rejects it.
    fn new(is_slow: bool, supports_option: bool) -> Self {
        let memory = MemoryStore::with_time(Calendar::utc(), Noon);
        let record = KeyRecord::new(KeyId::from("alice"), Limit::Unlimited);
        memory.insert(&SecretKey::parse(KEY).unwrap(), record).unwrap();
        Self {
            permits: Arc::new(Semaphore::new(1)),
            upstream: Upstream { fails: None, supports_option, request_body: Arc::default() },
            store: Store { memory, is_slow, reserved: Arc::default() },
            events: Events::default(),
            ends: Arc::default(),
            drain: DrainLayer::new(DrainLimits::new()),
        }
    }

    /// Sets where the inner service fails from now on.
    pub(super) fn fails(&mut self, fails: Fails) {
        self.upstream.fails = Some(fails);
    }

    fn auth(&self) -> TrialKeyAuthLayer {
        TrialKeyAuthLayer::new(self.store.clone())
    }

    fn quota(&self) -> DailyQuotaLayer {
        DailyQuotaLayer::new(self.store.clone())
            .clock(Noon)
            .subject(|_| subject())
            .cost(|request| match request.headers.contains_key("x-rejected") {
                true => LIMIT + 1,
                false => 1,
            })
            .policy(RefundAbandoned(self.ends.clone()))
    }

    fn recorder(&self) -> UsageRecorderLayer {
        UsageRecorderLayer::new(self.events.clone()).clock(Noon)
    }

    fn wrap<L, B>(&self, layer: L) -> Wrapped
    where
        L: Layer<Inner>,
        L::Service: Service<Request<Script>, Response = Response<B>, Error = Failure>,
        L::Service: Clone + Send + Sync + 'static,
        <L::Service as Service<Request<Script>>>::Future: Send,
        B: Body<Data = Bytes, Error = Failure> + Send + Sync + 'static,
    {
        let inner = ConcurrencyLimit::with_semaphore(self.upstream.clone(), self.permits.clone());
        let service = layer.layer(Inner { limited: inner, is_ready: false });
        BoxCloneSyncService::new(service.map_response(|response| response.map(BodyExt::boxed)))
    }

    /// Waits until all that was dropped is drained.
    pub(super) async fn finish(&self) {
        self.drain.finish(Duration::MAX).await;
    }

    /// Returns whether nobody has the permit of the inner service.
    pub(super) fn has_permit(&self) -> bool {
        self.permits.available_permits() == 1
    }

    /// Returns what the inner service has seen of the last request's body.
    pub(super) fn request_body(&self) -> Vec<Seen> {
        mem::take(&mut self.upstream.request_body.lock().unwrap())
    }

    /// Returns the number of events.
    pub(super) fn events(&self) -> usize {
        self.events.0.lock().unwrap().len()
    }

    /// Returns the number of units that the store has reserved.
    pub(super) fn reserved(&self) -> u64 {
        self.store.reserved.load(Ordering::SeqCst)
    }

    /// Returns the number of units that are left of those, after refunds.
    pub(super) fn used(&self) -> u64 {
        let limit = Limit::Units(LIMIT);
        let demand = Demand::new(KeyId::from("alice"), limit, Noon.now());
        self.store.memory.status(&demand).now_or_never().unwrap().unwrap().used
    }

    /// Returns how often the policy has decided at the end of a body.
    pub(super) fn ends(&self) -> u64 {
        self.ends.load(Ordering::SeqCst)
    }
}

/// Returns a streamed chat with a key.
pub(super) fn chat() -> Request<Script> {
    request("/v1/chat/completions", KEY)
}

/// Returns a request with a key that is no chat.
pub(super) fn other() -> Request<Script> {
    request("/v1/other", KEY)
}

/// Returns a request whose key is unknown, which costs more than there is, and with which the inner service
/// fails.
pub(super) fn rejected() -> Request<Script> {
    let mut request = request("/v1/other", "trial-key-guessed");
    request.headers_mut().insert("x-rejected", HeaderValue::from_static("true"));
    request
}

fn request(path: &str, key: &str) -> Request<Script> {
    Request::post(path)
        .header("authorization", format!("Bearer {key}"))
        .header("anthropic-version", "2023-06-01")
        .header("content-type", "application/json")
        .body(Script::request())
        .unwrap()
}

/// An error that cannot be made again from another one.
#[derive(Debug, PartialEq)]
pub(super) struct Failure(&'static str);

impl Failure {
    pub(super) const OF_BODY: Self = Self("body");
    pub(super) const OF_CALL: Self = Self("call");
    pub(super) const OF_POLL_READY: Self = Self("poll_ready");
}

/// Where the inner service fails.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Fails {
    PollReady,
    Call,
    Body,
}

/// A body of these frames, each of which takes a turn to arrive. Its length is known only roughly.
pub(super) struct Script {
    frames: VecDeque<Result<Frame<Bytes>, Failure>>,
    is_waiting: bool,
}

impl Script {
    /// Number of frames of [`response`](Self::response).
    pub(super) const STREAM_FRAMES: usize = 4;

    fn new(frames: impl IntoIterator<Item = Result<Frame<Bytes>, Failure>>) -> Self {
        Self { frames: frames.into_iter().collect(), is_waiting: true }
    }

    /// Returns the body of a request for a streamed chat.
    pub(super) fn request() -> Self {
        Self::new([Ok(data("{\"model\":\"m\",")), Ok(data("\"stream\":true}")), Ok(trailers())])
    }

    /// Returns the body of a streamed chat with usage.
    pub(super) fn response() -> Self {
        Self::new([Ok(data(CONTENT)), Ok(data(USAGE)), Ok(data(DONE)), Ok(trailers())])
    }

    /// Returns a body that breaks off.
    pub(super) fn failing() -> Self {
        Self::new([Ok(data(CONTENT)), Err(Failure::OF_BODY)])
    }
}

fn data(text: &'static str) -> Frame<Bytes> {
    Frame::data(Bytes::from_static(text.as_bytes()))
}

fn trailers() -> Frame<Bytes> {
    Frame::trailers(
        [("x-end".parse().unwrap(), HeaderValue::from_static("1"))].into_iter().collect(),
    )
}

impl Body for Script {
    type Data = Bytes;
    type Error = Failure;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Failure>>> {
        if mem::replace(&mut self.is_waiting, false) {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        self.is_waiting = self.frames.len() > 1;
        Poll::Ready(self.frames.pop_front())
    }

    fn is_end_stream(&self) -> bool {
        self.frames.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        let frames = self.frames.iter().flatten().filter_map(Frame::data_ref);
        let length = frames.map(Bytes::len).sum::<usize>() as u64;
        let mut hint = SizeHint::new();
        hint.set_lower(length / 2);
        hint.set_upper(length + 7);
        hint
    }
}

/// What a reader sees of a body: its hints, and then a frame.
#[derive(Debug, PartialEq)]
pub(super) struct Seen {
    hint: (u64, Option<u64>),
    is_end_stream: bool,
    frame: Option<Result<Piece, Failure>>,
}

#[derive(Debug, PartialEq)]
enum Piece {
    Data(Bytes),
    Trailers(HeaderMap),
}

impl Seen {
    /// Reads a body, until it ends.
    pub(super) async fn all<B: Body<Data = Bytes, Error = Failure>>(body: B) -> Vec<Self> {
        let mut body = Box::pin(body);
        let mut all = Vec::new();
        loop {
            let hint = body.size_hint();
            let (hint, is_end_stream) = ((hint.lower(), hint.upper()), body.is_end_stream());
            let frame = poll_fn(|cx| body.as_mut().poll_frame(cx)).await;
            let is_over = !matches!(frame, Some(Ok(_)));
            let frame = frame.map(|frame| frame.map(Piece::of));
            all.push(Self { hint, is_end_stream, frame });
            if is_over {
                return all;
            }
        }
    }

    fn has_option(all: &[Self]) -> bool {
        let data = all.iter().filter_map(|seen| match &seen.frame {
            Some(Ok(Piece::Data(data))) => Some(&data[..]),
            _ => None,
        });
        String::from_utf8(data.collect::<Vec<_>>().concat()).unwrap().contains("include_usage")
    }
}

impl Piece {
    fn of(frame: Frame<Bytes>) -> Self {
        match frame.into_data() {
            Ok(data) => Self::Data(data),
            Err(frame) => Self::Trailers(frame.into_trailers().unwrap()),
        }
    }
}

/// An inner service with one permit for all of its clones, that panics if it is called without having been
/// polled ready. Its clones are not ready.
pub(super) struct Inner {
    limited: ConcurrencyLimit<Upstream>,
    is_ready: bool,
}

impl Clone for Inner {
    fn clone(&self) -> Self {
        Self { limited: self.limited.clone(), is_ready: false }
    }
}

impl<B> Service<Request<B>> for Inner
where
    Upstream: Service<Request<B>>,
{
    type Response = <Upstream as Service<Request<B>>>::Response;
    type Error = <Upstream as Service<Request<B>>>::Error;
    type Future = <ConcurrencyLimit<Upstream> as Service<Request<B>>>::Future;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        let ready = self.limited.poll_ready(cx);
        self.is_ready = matches!(ready, Poll::Ready(Ok(())));
        ready
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        assert!(mem::take(&mut self.is_ready), "called without having been polled ready");
        self.limited.call(request)
    }
}

/// Reads the request, takes a turn, and responds.
#[derive(Clone)]
pub(super) struct Upstream {
    fails: Option<Fails>,
    supports_option: bool,
    request_body: Arc<Mutex<Vec<Seen>>>,
}

impl<B> Service<Request<B>> for Upstream
where
    B: Body<Data = Bytes, Error = Failure> + Send + 'static,
{
    type Response = Response<Script>;
    type Error = Failure;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Failure>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Failure>> {
        Poll::Ready(match self.fails {
            Some(Fails::PollReady) => Err(Failure::OF_POLL_READY),
            _ => Ok(()),
        })
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let Self { fails, supports_option, request_body } = self.clone();
        Box::pin(async move {
            let (head, body) = request.into_parts();
            let seen = Seen::all(body).await;
            let is_rejected = !supports_option && Seen::has_option(&seen);
            *request_body.lock().unwrap() = seen;
            yield_now().await;
            if fails == Some(Fails::Call) || head.headers.contains_key("x-rejected") {
                return Err(Failure::OF_CALL);
            }
            let response = Response::builder().header("content-type", "text/event-stream");
            Ok(match fails {
                _ if is_rejected => response
                    .status(StatusCode::BAD_REQUEST)
                    .body(Script::new([Ok(data("unknown: stream_options"))])),
                Some(Fails::Body) => response.body(Script::failing()),
                _ => response.body(Script::response()),
            }
            .unwrap())
        })
    }
}

/// The same time for the whole test, as a day may end during it.
#[derive(Clone, Copy)]
struct Noon;

impl Clock for Noon {
    fn now(&self) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(1_000 * 86_400 + 43_200)
    }
}

/// A store that may take some turns for everything, and counts what it has reserved.
#[derive(Clone)]
struct Store {
    memory: MemoryStore,
    is_slow: bool,
    reserved: Arc<AtomicU64>,
}

impl KeyStore for Store {
    fn find(&self, key: &SecretKey) -> StoreFuture<Option<Arc<KeyRecord>>> {
        let found = self.memory.find(key);
        match self.is_slow {
            true => StoreFuture::pending(async {
                yield_now().await;
                found.await
            }),
            false => found,
        }
    }
}

impl QuotaStore for Store {
    fn reserve(&self, demand: &Demand) -> StoreFuture<ReserveOutcome> {
        let (store, demand) = (self.clone(), demand.clone());
        let reserve = move || {
            let Self { memory, is_slow, reserved } = store;
            memory.reserve(&demand).map(move |outcome| match outcome {
                ReserveOutcome::Admitted { reservation, status } => {
                    reserved.fetch_add(demand.amount, Ordering::SeqCst);
                    let reservation = Box::new(Reserved { reservation, is_waiting: is_slow });
                    ReserveOutcome::Admitted { reservation, status }
                }
                exhausted => exhausted,
            })
        };
        match self.is_slow {
            true => StoreFuture::pending(async move {
                yield_now().await;
                let outcome = reserve().await;
                yield_now().await;
                outcome
            }),
            false => reserve(),
        }
    }

    fn status(&self, demand: &Demand) -> StoreFuture<QuotaStatus> {
        self.memory.status(demand)
    }
}

/// A reservation that may take a turn to become durable.
struct Reserved {
    reservation: Box<dyn Reservation>,
    is_waiting: bool,
}

impl Reservation for Reserved {
    fn poll_committed(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), StoreError>> {
        if mem::replace(&mut self.is_waiting, false) {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        self.reservation.poll_committed(cx)
    }

    fn settle(&mut self, actual: u64) -> StoreFuture<()> {
        self.reservation.settle(actual)
    }

    fn refund(&mut self, refund: Refund) -> StoreFuture<bool> {
        self.reservation.refund(refund)
    }
}

/// Refunds a response whose body is dropped, and counts the ends of bodies.
struct RefundAbandoned(Arc<AtomicU64>);

impl ChargePolicy for RefundAbandoned {
    fn at_head(&self, _: &Parts) -> ChargeDecision {
        ChargeDecision::Keep
    }

    fn at_end(&self, end: &ResponseEnd<'_>) -> ChargeDecision {
        self.0.fetch_add(1, Ordering::SeqCst);
        match end.body {
            BodyEnd::Abandoned => ChargeDecision::Refund(Refund::Always),
            BodyEnd::Complete | BodyEnd::Failed => ChargeDecision::Keep,
        }
    }
}
