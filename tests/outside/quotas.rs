//! Subjects, costs and several quotas, written as closures without annotations.

use std::{
    convert::Infallible,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, Waker},
    time::SystemTime,
};

use axum::body::Body;
use http::{HeaderMap, HeaderName, Request, Response, StatusCode};
use http_body_util::BodyExt;
use tokio::sync::Semaphore;
use tower::{Service, ServiceBuilder, ServiceExt, limit::ConcurrencyLimitLayer, service_fn};
use tower_quota::{
    auth::TrialKeyAuthLayer,
    clock::Period,
    error::StoreError,
    key::{KeyId, Limit},
    openai::OpenAiRateHeaders,
    quota::{CommitPoint, DailyQuotaLayer, Subject},
    request::RequestContext,
    store::{
        Demand, Quota, QuotaStatus, QuotaStore, QuotaSubject, ReserveOutcome, StoreFuture,
        memory::MemoryStore,
        rate_headers::{IetfRateHeaders, RateHeaders},
    },
    usage::UsageRecorderLayer,
};

use super::{Events, hello, request, store};

fn tenant(name: &str, limit: u64) -> QuotaSubject {
    QuotaSubject::new(KeyId::from(name), Limit::Units(limit))
}

async fn status<S, B>(service: &S, request: Request<Body>) -> StatusCode
where
    S: Service<Request<Body>, Response = Response<B>> + Clone,
{
    service.clone().oneshot(request).await.map(|response| response.status()).unwrap_or_default()
}

#[tokio::test]
async fn a_subject_is_counted_exempt_or_unknown() {
    let quota =
        DailyQuotaLayer::new(MemoryStore::new()).subject(|request| match request.uri.path() {
            "/health" => Subject::Exempt,
            "/acme" => tenant("acme", 1).into(),
            _ => Subject::Unknown,
        });
    let service = ServiceBuilder::new().layer(quota).service(service_fn(hello));
    for (path, expected) in
        [("/acme", 200), ("/acme", 429), ("/health", 200), ("/health", 200), ("/", 500)]
    {
        assert_eq!(status(&service, request(path)).await, expected, "{path}");
    }
}

#[tokio::test]
async fn a_subject_is_looked_up_asynchronously() {
    let (store, events) = (MemoryStore::new(), Events::default());
    let quota = DailyQuotaLayer::new(store).subject_async(|request| {
        let tenant = request.uri.path().trim_start_matches('/').to_owned();
        async move {
            tokio::task::yield_now().await;
            match &*tenant {
                "" => Ok(Subject::Unknown),
                "health" => Ok(Subject::Exempt),
                "down" => Err(StoreError::unavailable("the tenants' database is down")),
                _ => Ok(tenant_of(&tenant).await?.into()),
            }
        }
    });
    let service = ServiceBuilder::new()
        .layer(UsageRecorderLayer::new(events.clone()))
        .layer(quota)
        .layer(ConcurrencyLimitLayer::new(1))
        .service(service_fn(hello));
    for (path, expected) in [
        ("/acme", 200),
        ("/acme", 429),
        ("/globex", 200),
        ("/health", 200),
        ("/health", 200),
        ("/down", 503),
        ("/", 500),
    ] {
        assert_eq!(status(&service, request(path)).await, expected, "{path}");
    }
    let events = events.0.lock().unwrap();
    let units: Vec<_> = events.iter().map(|event| event.units).collect();
    assert_eq!(units, [1, 0, 1, 0, 0, 0, 0]);
    let codes: Vec<_> = events.iter().filter_map(|event| event.code.as_deref()).collect();
    assert_eq!(codes, ["insufficient_quota", "store_unavailable", "quota_subject_missing"]);
}

async fn tenant_of(name: &str) -> Result<QuotaSubject, StoreError> {
    Ok(tenant(name, 1))
}

#[tokio::test]
async fn a_request_dropped_while_its_subject_is_looked_up_costs_nothing() {
    let store = MemoryStore::new();
    let lookups = Arc::new(Semaphore::new(0));
    let waits = lookups.clone();
    let quota = DailyQuotaLayer::new(store.clone()).subject_async(move |_| {
        let lookups = waits.clone();
        async move {
            lookups.acquire().await.map_err(StoreError::unavailable)?.forget();
            Ok(tenant("acme", 1))
        }
    });
    let service = ServiceBuilder::new().layer(quota).service(service_fn(hello));
    let mut dropped = Box::pin(service.clone().oneshot(request("/")));
    assert!(poll_once(dropped.as_mut()).is_pending());
    drop(dropped);
    lookups.add_permits(2);
    for expected in [200, 429] {
        assert_eq!(status(&service, request("/")).await, expected);
    }
}

fn poll_once<F: Future>(future: Pin<&mut F>) -> Poll<F::Output> {
    future.poll(&mut Context::from_waker(Waker::noop()))
}

#[tokio::test]
async fn a_request_costs_what_the_application_says() {
    let quota = DailyQuotaLayer::new(MemoryStore::new())
        .headers(OpenAiRateHeaders)
        .subject(|_| tenant("acme", 10))
        .cost(|request| if request.uri.path() == "/images" { 4 } else { 0 });
    let service = ServiceBuilder::new().layer(quota).service(service_fn(hello));
    for (path, expected, remaining) in [
        ("/images", 200, "6"),
        ("/models", 200, "6"),
        ("/images", 200, "2"),
        ("/images", 429, "2"),
        ("/models", 200, "2"),
    ] {
        let response = service.clone().oneshot(request(path)).await.unwrap();
        assert_eq!(response.status(), expected, "{path}");
        assert_eq!(response.headers()["x-ratelimit-remaining-requests"], remaining, "{path}");
    }
}

/// The values of the rate limit headers, without the seconds to the reset.
fn rate_headers<B>(response: &Response<B>) -> Vec<String> {
    let names = ["ratelimit-policy", "ratelimit", "x-ratelimit-limit-requests", "x-left"];
    let values = names.iter().filter_map(|name| response.headers().get(*name));
    let without_reset = |value: &str| value.split(";t=").next().unwrap_or_default().to_owned();
    values.map(|value| without_reset(value.to_str().unwrap())).collect()
}

#[tokio::test]
async fn the_application_chooses_the_rate_limit_headers() {
    struct Left;

    impl RateHeaders for Left {
        fn insert(&self, statuses: &[QuotaStatus], _: SystemTime, headers: &mut HeaderMap) {
            let left = QuotaStatus::most_constrained(statuses).and_then(QuotaStatus::remaining);
            headers.extend(left.map(|left| (HeaderName::from_static("x-left"), left.into())));
        }
    }

    let policy = "\"daily\";q=1;w=86400";
    let quota = || DailyQuotaLayer::new(MemoryStore::new()).subject(|_| tenant("acme", 1));
    for (quota, expected) in [
        (quota(), &[policy, "\"daily\";r=0"][..]),
        (quota().headers(OpenAiRateHeaders), &[policy, "\"daily\";r=0", "1"]),
        (quota().headers(Left), &["0"]),
        (quota().without_headers(), &[]),
    ] {
        let service = ServiceBuilder::new().layer(quota).service(service_fn(hello));
        for status in [200, 429] {
            let response = service.clone().oneshot(request("/")).await.unwrap();
            assert_eq!(response.status(), status);
            assert_eq!(rate_headers(&response), expected);
        }
    }
}

#[tokio::test]
async fn of_several_quotas_the_most_constrained_speaks() {
    let store = store(100);
    let named = |name, limit| {
        let quota = Quota::new(name, Period::Day).unwrap();
        DailyQuotaLayer::new(store.clone()).quota(quota).subject(move |request| {
            let key = request.extensions.get().and_then(RequestContext::key)?;
            Some(QuotaSubject::new(key.id.clone(), Limit::Units(limit)))
        })
    };
    let service = ServiceBuilder::new()
        .layer(TrialKeyAuthLayer::new(store.clone()))
        .layer(DailyQuotaLayer::new(store.clone()).headers(OpenAiRateHeaders))
        .layer(named("hidden", 2).without_headers())
        .layer(named("images", 1).headers(OpenAiRateHeaders))
        .service(service_fn(async |request: Request<Body>| {
            let context = request.extensions().get::<RequestContext>().unwrap();
            let statuses = context.quota_statuses();
            let used = |status: &QuotaStatus| format!("{} {}", status.quota, status.used);
            let text = statuses.iter().map(used).collect::<Vec<_>>().join(", ");
            Ok::<_, Infallible>(Response::new(Body::from(text)))
        }));
    let response = service.clone().oneshot(request("/")).await.unwrap();
    assert_eq!(
        response.headers()["ratelimit-policy"],
        r#""daily";q=100;w=86400, "images";q=1;w=86400"#
    );
    let list = response.headers()["ratelimit"].to_str().unwrap();
    assert!(
        list.starts_with(r#""daily";r=99;t="#) && list.contains(r#""images";r=0;t="#),
        "{list}"
    );
    assert_eq!(response.headers()["x-ratelimit-limit-requests"], "1");
    assert_eq!(response.headers()["x-ratelimit-remaining-requests"], "0");
    let body = response.into_body().collect().await.unwrap().to_bytes();
    assert_eq!(body, "daily 1, hidden 1, images 1");

    // A rejection shows the exhausted quota, whatever is outside of it.
    let images = ["\"images\";q=1;w=86400", "\"images\";r=0", "1"];
    let response = service.clone().oneshot(request("/")).await.unwrap();
    assert_eq!(
        (response.status().as_u16(), rate_headers(&response)),
        (429, images.map(String::from).to_vec())
    );
}

#[tokio::test]
async fn the_headers_of_a_rejection_are_those_of_its_quota() {
    // Fewer units are left of the outer quota than of the exhausted one.
    let inner = Quota::new("images", Period::Day).unwrap();
    let store = MemoryStore::new();
    let service = ServiceBuilder::new()
        .layer(
            DailyQuotaLayer::new(store.clone())
                .headers(OpenAiRateHeaders)
                .subject(|_| tenant("acme", 1)),
        )
        .layer(DailyQuotaLayer::new(store).quota(inner).cost(|_| 6).subject(|_| tenant("acme", 5)))
        .service(service_fn(hello));
    let response = service.oneshot(request("/")).await.unwrap();
    assert_eq!(rate_headers(&response), ["\"images\";q=5;w=86400", "\"images\";r=5"]);
}

#[tokio::test]
async fn a_rejection_names_a_quota_that_is_not_the_daily_one() {
    let store = MemoryStore::new();
    let layer = || DailyQuotaLayer::new(store.clone()).cost(|_| 6).subject(|_| tenant("acme", 5));
    let rows = Quota::new("rows", Period::Day).unwrap();
    for (layer, expected) in [
        (layer(), "Today's quota of 5 requests is used up. It resets at "),
        (
            layer().quota(rows),
            "The quota `rows` has 5 of 5 units left, fewer than this request needs. It resets at ",
        ),
    ] {
        let service = ServiceBuilder::new().layer(layer).service(service_fn(hello));
        let response = service.oneshot(request("/")).await.unwrap();
        assert_eq!(response.status(), 429);
        let body = response.into_body().collect().await.unwrap().to_bytes();
        let body = String::from_utf8(body.to_vec()).unwrap();
        assert!(body.contains(&format!(r#""detail":"{expected}2"#)), "{body}");
    }
}

/// A store that has failed.
struct Failed;

impl QuotaStore for Failed {
    fn reserve(&self, _: &Demand) -> StoreFuture<ReserveOutcome> {
        StoreFuture::pending(async { Err(StoreError::unavailable("the disk is full")) })
    }

    fn status(&self, _: &Demand) -> StoreFuture<QuotaStatus> {
        StoreFuture::ready(Err(StoreError::unavailable("the disk is full")))
    }
}

#[tokio::test]
async fn a_shadow_counts_and_rejects_nobody() {
    let (store, events) = (MemoryStore::new(), Events::default());
    let shadow = || DailyQuotaLayer::new(store.clone()).shadow(true);
    let service = |layer: DailyQuotaLayer| {
        ServiceBuilder::new()
            .layer(UsageRecorderLayer::new(events.clone()))
            .layer(layer.subject(|_| tenant("acme", 2)))
            .service(service_fn(async |request: Request<Body>| {
                let context = request.extensions().get::<RequestContext>().unwrap();
                assert!(context.quota_status().is_none(), "no quota rejects requests");
                let status = context.quota_statuses()[0];
                let reservation = context.reservation().unwrap();
                assert_eq!(reservation.take(1).await.unwrap().limit, Limit::Units(2));
                Ok::<_, Infallible>(Response::new(Body::from(status.used.to_string())))
            }))
    };
    let mut bodies = Vec::new();
    for used in ["1", "3", "5"] {
        let response = service(shadow()).oneshot(request("/")).await.unwrap();
        assert_eq!((response.status(), rate_headers(&response).len()), (StatusCode::OK, 0));
        let mut body = response.into_body();
        let frame = body.frame().await.unwrap().unwrap();
        assert_eq!(frame.into_data().unwrap(), used);
        bodies.push(body);
    }
    let response = service(shadow().headers(IetfRateHeaders)).oneshot(request("/")).await.unwrap();
    assert_eq!(rate_headers(&response), ["\"daily\";q=2;w=86400", "\"daily\";r=0"]);
    drop((bodies, response));
    let units: Vec<_> = events.0.lock().unwrap().iter().map(|event| event.units).collect();
    assert_eq!(units, [2; 4]);
}

#[tokio::test]
async fn a_shadow_that_cannot_count_passes_requests() {
    let down = || Err::<Subject, _>(StoreError::unavailable("the tenants' database is down"));
    let failed = || DailyQuotaLayer::new(Failed).shadow(true);
    for quota in [
        failed().subject(|_| tenant("acme", 1)),
        failed().subject(|_| tenant("acme", 1)).commit(CommitPoint::BeforeForward),
        failed().subject(|_| tenant("acme", 1)).cost(|_| 0),
        failed().subject(|_| Subject::Unknown),
        failed().subject_async(move |_| async move { down() }),
    ] {
        let service = ServiceBuilder::new().layer(quota).service(service_fn(hello));
        assert_eq!(status(&service, request("/")).await, 200);
    }
}

#[tokio::test]
async fn a_shadow_changes_nothing_of_another_quota() {
    let (store, events) = (store(2), Events::default());
    let trial = Quota::new("trial", Period::Day).unwrap();
    let service = ServiceBuilder::new()
        .layer(UsageRecorderLayer::new(events.clone()))
        .layer(TrialKeyAuthLayer::new(store.clone()))
        .layer(
            DailyQuotaLayer::new(store.clone())
                .quota(trial)
                .shadow(true)
                .cost(|_| 5)
                .subject(|_| tenant("acme", 1)),
        )
        .layer(DailyQuotaLayer::new(store.clone()))
        .service(service_fn(hello));
    let daily = "\"daily\";q=2;w=86400";
    for (expected, left, units) in [(200, 1, 1), (200, 0, 1), (429, 0, 0)] {
        let response = service.clone().oneshot(request("/")).await.unwrap();
        assert_eq!(response.status(), expected);
        assert_eq!(rate_headers(&response), [daily, &format!("\"daily\";r={left}")]);
        drop(response);
        assert_eq!(events.0.lock().unwrap().last().unwrap().units, units);
    }
    let demand = Demand::new(KeyId::from("acme"), Limit::Units(1), SystemTime::now()).quota(trial);
    assert_eq!(store.status(&demand).await.unwrap().used, 10, "the rejected request is refunded");
}
