//! Each layer works alone, on any inner service, and in any order.

use std::{
    convert::Infallible,
    num::NonZeroU32,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll},
};

use crate::zone::memory_store;
use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response, StatusCode, request::Parts};
use http_body_util::{BodyExt, Empty, Full};
use tower::{Layer, Service, ServiceBuilder, ServiceExt, service_fn};
use tower_http::cors::CorsLayer;
use tower_quota::{
    auth::TrialKeyAuthLayer,
    error::reject_fn,
    key::{KeyId, KeyRecord, Limit, SecretKey},
    openai::{AnthropicErrorsLayer, OpenAiUsage, stream_usage::StreamUsageLayer},
    quota::{CommitPoint, DailyQuotaLayer, FairShareLayer, InFlightLimitLayer, RateLimitLayer},
    request::RequestContext,
    store::{QuotaSubject, RequestOutcome, UsageEvent, UsageSink, memory::MemoryStore},
    usage::{DrainLayer, DrainLimits, RequestBody, UsageRecorderLayer},
};

type Body = Full<Bytes>;

const KEY: &str = "trial-key-manual-123";

fn store(limit: i64) -> MemoryStore {
    let store = memory_store();
    let record = KeyRecord::new(KeyId::from("alice"), Limit::from_stored(limit).unwrap());
    store.insert(&SecretKey::parse(KEY).unwrap(), record).unwrap();
    store
}

fn request() -> Request<Body> {
    Request::get("/")
        .header("authorization", format!("Bearer {KEY}"))
        .body(Body::default())
        .unwrap()
}

#[derive(Clone, Default)]
struct Events(Arc<Mutex<Vec<UsageEvent>>>);

impl Events {
    fn outcomes(&self) -> Vec<RequestOutcome> {
        self.0.lock().unwrap().iter().map(|event| event.outcome).collect()
    }

    fn codes(&self) -> Vec<String> {
        let code = |event: &UsageEvent| event.code.as_deref().unwrap_or_default().to_owned();
        self.0.lock().unwrap().iter().map(code).collect()
    }
}

impl UsageSink for Events {
    fn record(&self, event: UsageEvent) {
        self.0.lock().unwrap().push(event);
    }
}

/// An inner service that panics when it is called without having been readied, as `tower`'s
/// contract allows, and whose clones are not ready.
#[derive(Default)]
struct ReadinessProbe {
    ready: bool,
    calls: Arc<AtomicUsize>,
}

impl Clone for ReadinessProbe {
    fn clone(&self) -> Self {
        Self { ready: false, calls: self.calls.clone() }
    }
}

impl<B> Service<Request<B>> for ReadinessProbe {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = std::future::Ready<Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.ready = true;
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Request<B>) -> Self::Future {
        assert!(std::mem::take(&mut self.ready), "called without having been readied");
        self.calls.fetch_add(1, Ordering::SeqCst);
        std::future::ready(Ok(Response::new(Body::from("ok"))))
    }
}

#[tokio::test]
async fn auth_alone_shares_the_record_and_hides_the_key() {
    let echo = service_fn(|request: Request<Body>| async move {
        assert!(request.headers().is_empty(), "the credential is scrubbed");
        let key = request.extensions().get().and_then(RequestContext::key).unwrap();
        Ok::<_, Infallible>(Response::new(Body::from(key.id.to_string())))
    });
    let service = TrialKeyAuthLayer::new(store(0)).layer(echo);
    let mut request = request();
    let context = RequestContext::of(request.extensions_mut());
    let response = service.oneshot(request).await.unwrap();
    assert_eq!(context.key().unwrap().id.as_str(), "alice", "a layer outside knows it, too");
    assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), "alice");
}

#[tokio::test]
async fn quota_alone_counts_on_the_subject_that_it_is_given() {
    let by_tenant = |request: &Parts| {
        let tenant = request.headers.get("x-tenant")?.to_str().ok()?;
        Some(QuotaSubject::new(KeyId::from(tenant), Limit::Units(2)))
    };
    let probe = ReadinessProbe::default();
    let service = DailyQuotaLayer::new(memory_store()).subject(by_tenant).layer(probe.clone());
    let send = |tenant: &str| {
        let request = Request::get("/").header("x-tenant", tenant).body(Body::default()).unwrap();
        service.clone().oneshot(request)
    };
    for expected in [200, 200, 429, 429] {
        assert_eq!(send("acme").await.unwrap().status(), expected);
    }
    assert_eq!(send("other").await.unwrap().status(), 200);
    assert_eq!(probe.calls.load(Ordering::SeqCst), 3);
}

#[tokio::test]
async fn quota_without_a_subject_serves_nothing() {
    let probe = ReadinessProbe::default();
    let service = DailyQuotaLayer::new(store(0)).layer(probe.clone());
    let response = service.oneshot(request()).await.unwrap();
    assert_eq!(response.status(), StatusCode::INTERNAL_SERVER_ERROR);
    assert_eq!(probe.calls.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn the_limits_count_on_the_key_of_the_request() {
    let probe = ReadinessProbe::default();
    let service = ServiceBuilder::new()
        .layer(TrialKeyAuthLayer::new(store(0)))
        .layer(RateLimitLayer::per_minute(Limit::Units(2)))
        .layer(InFlightLimitLayer::new(Limit::Units(1)))
        .service(probe.clone());
    let mut held = Some(service.clone().oneshot(request()).await.unwrap());
    for policy in ["in_flight", "in_flight", "minute"] {
        if policy == "minute" {
            // The place is free, and the last request of the minute takes it.
            held = None;
            assert_eq!(service.clone().oneshot(request()).await.unwrap().status(), 200);
        }
        let response = service.clone().oneshot(request()).await.unwrap();
        assert_eq!(response.status(), 429);
        let body = response.into_body().collect().await.unwrap().to_bytes();
        let body = String::from_utf8(body.to_vec()).unwrap();
        assert!(body.ends_with(&format!(r#""policy":"{policy}"}}"#)), "{body}");
    }
    assert!(held.is_none());
    assert_eq!(probe.calls.load(Ordering::SeqCst), 2);
}

#[tokio::test]
async fn limits_without_a_subject_serve_nothing_unless_they_limit_nothing() {
    async fn status<L, B>(layer: L) -> u16
    where
        L: Layer<ReadinessProbe>,
        L::Service: Service<Request<Body>, Response = Response<B>, Error = Infallible>,
    {
        let Ok(response) = layer.layer(ReadinessProbe::default()).oneshot(request()).await;
        response.status().as_u16()
    }
    for (limit, expected) in [(Limit::Units(5), 500), (Limit::Unlimited, 200)] {
        assert_eq!(status(InFlightLimitLayer::new(limit)).await, expected);
        assert_eq!(status(RateLimitLayer::per_minute(limit)).await, expected);
    }
}

#[tokio::test]
async fn usage_alone_records_each_request_once() {
    let events = Events::default();
    let service = UsageRecorderLayer::new(events.clone()).layer(ReadinessProbe::default());
    let response = service.oneshot(request()).await.unwrap();
    assert!(events.outcomes().is_empty(), "the body has not ended yet");
    response.into_body().collect().await.unwrap();
    assert_eq!(events.outcomes(), [RequestOutcome::Succeeded]);
}

#[tokio::test]
async fn usage_reports_the_requested_model_and_the_bytes_that_were_read() {
    const RESPONSE: &str = r#"{"model":"m-2026","usage":{"prompt_tokens":1,"total_tokens":1}}"#;
    let events = Events::default();
    let inner = service_fn(|request: Request<RequestBody<Body>>| async {
        request.into_body().collect().await.unwrap();
        Ok::<_, Infallible>(Response::new(Body::from(RESPONSE)))
    });
    let service =
        UsageRecorderLayer::new(events.clone()).format(OpenAiUsage).watch_requests().layer(inner);
    let body = r#"{"messages":[{"model":"no"}],"model":"m"}"#;
    let response = service.oneshot(Request::post("/").body(body.into()).unwrap()).await.unwrap();
    response.into_body().collect().await.unwrap();
    let event = events.0.lock().unwrap().pop().unwrap();
    assert_eq!((event.bytes_in, event.bytes_out), (body.len() as u64, RESPONSE.len() as u64));
    assert_eq!(
        (event.requested_model.as_deref(), event.model.as_deref()),
        (Some("m"), Some("m-2026"))
    );
    assert!(event.time_to_head <= event.time_to_first_byte, "{event:?}");
    assert!(event.time_to_first_byte <= event.duration, "{event:?}");
}

#[tokio::test]
async fn a_stored_response_that_is_fetched_again_reports_no_tokens() {
    const RESPONSE: &str = r#"{"id":"resp_1","model":"m","usage":{"input_tokens":1000,
        "output_tokens":200,"total_tokens":1200}}"#;
    let events = Events::default();
    let inner = service_fn(|_: Request<Body>| async {
        Ok::<_, Infallible>(Response::new(Body::from(RESPONSE)))
    });
    let service = UsageRecorderLayer::new(events.clone()).format(OpenAiUsage).layer(inner);
    for (method, total) in [("POST", Some(1200)), ("GET", None), ("GET", None), ("DELETE", None)] {
        let request = Request::builder().method(method).uri("/v1/responses/resp_1");
        let response =
            service.clone().oneshot(request.body(Body::default()).unwrap()).await.unwrap();
        response.into_body().collect().await.unwrap();
        let event = events.0.lock().unwrap().pop().unwrap();
        assert_eq!(event.tokens.map(|tokens| tokens.total), total, "{method}");
    }
}

#[tokio::test]
async fn partial_figures_are_not_recorded_if_the_client_has_disconnected() {
    const PARTIAL: &str = "data: {\"choices\":[{}],\"usage\":{\"prompt_tokens\":3,\
        \"completion_tokens\":1,\"total_tokens\":4}}\n\n";
    let events = Events::default();
    let (gone, whole) = (RequestOutcome::ClientGone, RequestOutcome::Succeeded);
    for (last, outcome, total) in [("", gone, None), ("data: [DONE]\n\n", whole, Some(4))] {
        let stream = [PARTIAL, last].concat();
        let inner = service_fn(move |_: Request<Body>| {
            let trailers = std::future::pending::<Option<Result<HeaderMap, Infallible>>>();
            let body = Body::from(stream.clone()).with_trailers(trailers);
            async { Ok::<_, Infallible>(Response::new(body)) }
        });
        let service = UsageRecorderLayer::new(events.clone()).format(OpenAiUsage).layer(inner);
        let request = Request::post("/").body(Body::default()).unwrap();
        let mut body = service.oneshot(request).await.unwrap().into_body();
        body.frame().await.unwrap().unwrap();
        drop(body);
        let event = events.0.lock().unwrap().pop().unwrap();
        assert_eq!(event.outcome, outcome, "{last}");
        assert_eq!(event.tokens.map(|tokens| tokens.total), total, "{last}");
    }
}

#[tokio::test]
async fn a_body_that_is_dropped_early_is_a_client_that_left() {
    let events = Events::default();
    let service = UsageRecorderLayer::new(events.clone()).layer(ReadinessProbe::default());
    drop(service.oneshot(request()).await.unwrap());
    assert_eq!(events.outcomes(), [RequestOutcome::ClientGone]);
}

#[tokio::test]
async fn a_response_without_body_is_complete_without_being_polled() {
    let events = Events::default();
    let no_content = service_fn(|_: Request<Body>| async {
        Response::builder().status(204).body(Empty::<Bytes>::new())
    });
    let service = UsageRecorderLayer::new(events.clone()).layer(no_content);
    drop(service.oneshot(request()).await.unwrap());
    assert_eq!(events.outcomes(), [RequestOutcome::Succeeded]);
}

#[tokio::test]
async fn usage_outside_the_quota_reports_rejections_and_units() {
    let (events, store) = (Events::default(), store(1));
    let service = ServiceBuilder::new()
        .layer(UsageRecorderLayer::new(events.clone()))
        .layer(TrialKeyAuthLayer::new(store.clone()))
        .layer(DailyQuotaLayer::new(store))
        .service(ReadinessProbe::default());
    for _ in 0..2 {
        service.clone().oneshot(request()).await.unwrap().into_body().collect().await.unwrap();
    }
    assert_eq!(events.outcomes(), [RequestOutcome::Succeeded, RequestOutcome::Rejected]);
    assert_eq!(events.codes(), ["", "insufficient_quota"]);
    let events = events.0.lock().unwrap();
    assert_eq!([events[0].units, events[1].units], [1, 0]);
    assert!(events.iter().all(|event| event.key_id == Some(KeyId::from("alice"))));
}

#[tokio::test]
async fn a_rejection_is_reported_as_one_whatever_renders_it() {
    let (events, store) = (Events::default(), store(0));
    let bare = reject_fn(|_, _| Response::builder().status(418).body(Bytes::new()).unwrap());
    let service = ServiceBuilder::new()
        .layer(UsageRecorderLayer::new(events.clone()))
        .layer(TrialKeyAuthLayer::new(store).reject(bare))
        .service(ReadinessProbe::default());
    let response = service.oneshot(Request::new(Body::default())).await.unwrap();
    assert_eq!(response.status(), 418);
    assert_eq!(events.outcomes(), [RequestOutcome::Rejected]);
    assert_eq!(events.codes(), ["missing_api_key"]);
}

#[tokio::test]
async fn usage_inside_the_quota_records_only_admitted_requests() {
    let (events, store) = (Events::default(), store(1));
    let service = ServiceBuilder::new()
        .layer(TrialKeyAuthLayer::new(store.clone()))
        .layer(DailyQuotaLayer::new(store))
        .layer(UsageRecorderLayer::new(events.clone()))
        .service(ReadinessProbe::default());
    for _ in 0..2 {
        service.clone().oneshot(request()).await.unwrap().into_body().collect().await.unwrap();
    }
    assert_eq!(events.outcomes(), [RequestOutcome::Succeeded]);
    let events = events.0.lock().unwrap();
    assert_eq!((events[0].units, events[0].key_id.clone()), (1, Some(KeyId::from("alice"))));
}

#[tokio::test]
async fn a_service_that_replaces_the_extensions_starts_a_new_context() {
    let (events, store) = (Events::default(), store(1));
    let service = ServiceBuilder::new()
        .layer(UsageRecorderLayer::new(events.clone()))
        .map_request(|mut request: Request<Body>| {
            request.extensions_mut().clear();
            request
        })
        .layer(TrialKeyAuthLayer::new(store.clone()))
        .layer(DailyQuotaLayer::new(store))
        .service(ReadinessProbe::default());
    for status in [200, 429] {
        let response = service.clone().oneshot(request()).await.unwrap();
        assert_eq!(response.status(), status);
        response.into_body().collect().await.unwrap();
    }
    let events = events.0.lock().unwrap();
    assert!(events.iter().all(|event| (event.units, &event.key_id) == (0, &None)), "{events:?}");
}

#[tokio::test]
async fn a_listener_is_called_once_where_recorders_are_stacked() {
    let calls = Arc::new(AtomicUsize::new(0));
    let service = ServiceBuilder::new()
        .layer(UsageRecorderLayer::new(Events::default()))
        .layer(UsageRecorderLayer::new(Events::default()))
        .service(ReadinessProbe::default());
    let mut request = request();
    let listener = calls.clone();
    RequestContext::of(request.extensions_mut()).on_event(move |event| {
        assert_eq!(event.outcome, RequestOutcome::Succeeded);
        listener.fetch_add(1, Ordering::SeqCst);
    });
    let response = service.oneshot(request).await.unwrap();
    response.into_body().collect().await.unwrap();
    assert_eq!(calls.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn a_failed_response_refunds_its_unit_and_says_so() {
    let (events, store) = (Events::default(), store(1));
    let failing = service_fn(|_: Request<Body>| async {
        Response::builder().status(500).body(Body::from("broken"))
    });
    let service = ServiceBuilder::new()
        .layer(TrialKeyAuthLayer::new(store.clone()))
        .layer(UsageRecorderLayer::new(events.clone()))
        .layer(DailyQuotaLayer::new(store).commit(CommitPoint::BeforeForward))
        .service(failing);
    let response = service.clone().oneshot(request()).await.unwrap();
    let status = response.headers()["ratelimit"].to_str().unwrap();
    assert!(status.starts_with("\"daily\";r=1;t="), "{status}");
    response.into_body().collect().await.unwrap();
    let event = events.0.lock().unwrap()[0].clone();
    assert_eq!((event.outcome, event.units, event.refunded), (RequestOutcome::Failed, 0, true));
}

#[tokio::test]
async fn a_layer_that_makes_empty_responses_fits_around_each() {
    async fn preflight<L, B>(layer: L)
    where
        L: Layer<ReadinessProbe>,
        L::Service: Service<Request<Body>, Response = Response<B>, Error = Infallible>,
        B: Default,
    {
        let service = CorsLayer::permissive().layer(layer.layer(ReadinessProbe::default()));
        let mut request = Request::new(Body::default());
        *request.method_mut() = Method::OPTIONS;
        let Ok(response) = service.oneshot(request).await;
        assert!(response.headers().contains_key("access-control-allow-origin"));
    }
    preflight(TrialKeyAuthLayer::new(store(5))).await;
    preflight(DailyQuotaLayer::new(store(5))).await;
    preflight(InFlightLimitLayer::new(Limit::Units(1))).await;
    preflight(RateLimitLayer::per_minute(Limit::Units(1))).await;
    preflight(FairShareLayer::new(NonZeroU32::MIN)).await;
    preflight(UsageRecorderLayer::new(Events::default())).await;
    preflight(DrainLayer::new(DrainLimits::new())).await;
    preflight(StreamUsageLayer::new().split().0).await;
    preflight(AnthropicErrorsLayer::new()).await;
}

#[tokio::test]
async fn a_response_body_is_sync_where_the_inner_one_is() {
    async fn check<L, B>(layer: L)
    where
        L: Layer<ReadinessProbe>,
        L::Service: Service<Request<Body>, Response = Response<B>, Error = Infallible>,
        B: Sync,
    {
        let Ok(response) = layer.layer(ReadinessProbe::default()).oneshot(request()).await;
        assert_eq!(response.status(), 200);
    }
    check(TrialKeyAuthLayer::new(store(5))).await;
    let subject = |_: &Parts| Some(QuotaSubject::new(KeyId::from("alice"), Limit::Unlimited));
    check(DailyQuotaLayer::new(store(5)).subject(subject)).await;
    let subject = |_: &Parts| Some(QuotaSubject::new(KeyId::from("alice"), Limit::Units(1)));
    check(InFlightLimitLayer::new(Limit::Unlimited).subject(subject)).await;
    check(RateLimitLayer::per_minute(Limit::Unlimited).subject(subject)).await;
    check(FairShareLayer::new(NonZeroU32::MIN)).await;
}
