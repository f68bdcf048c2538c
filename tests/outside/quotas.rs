//! Subjects, costs and several quotas, written as closures without annotations.

use std::{
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, Waker},
};

use axum::body::Body;
use http::{Request, Response, StatusCode};
use tokio::sync::Semaphore;
use tower::{Service, ServiceBuilder, ServiceExt, limit::ConcurrencyLimitLayer, service_fn};
use tower_quota::{
    auth::TrialKeyAuthLayer,
    clock::Period,
    error::StoreError,
    key::{DailyLimit, KeyId},
    quota::{DailyQuotaLayer, Subject},
    request::RequestContext,
    store::{Quota, QuotaSubject, memory::MemoryStore},
    usage::UsageRecorderLayer,
};

use super::{Events, hello, request, store};

fn tenant(name: &str, limit: u32) -> QuotaSubject {
    QuotaSubject::new(KeyId::from(name), DailyLimit::new(limit).unwrap())
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

#[tokio::test]
async fn of_several_quotas_the_most_constrained_speaks() {
    let store = store(100);
    let images = Quota::new("images", Period::Day).unwrap();
    let service = ServiceBuilder::new()
        .layer(TrialKeyAuthLayer::new(store.clone()))
        .layer(DailyQuotaLayer::new(store.clone()))
        .layer(DailyQuotaLayer::new(store).quota(images).subject(|request| {
            let key = request.extensions.get().and_then(RequestContext::key)?;
            Some(QuotaSubject::new(key.id.clone(), DailyLimit::new(1).ok()?))
        }))
        .service(service_fn(hello));
    for (expected, daily) in [(200, 99), (429, 99)] {
        let response = service.clone().oneshot(request("/")).await.unwrap();
        assert_eq!(response.status(), expected);
        let headers = response.headers();
        assert_eq!(headers["ratelimit-policy"], r#""daily";q=100;w=86400, "images";q=1;w=86400"#);
        let list = headers["ratelimit"].to_str().unwrap();
        assert!(list.starts_with(&format!(r#""daily";r={daily};t="#)), "{list}");
        assert!(list.contains(r#""images";r=0;t="#), "{list}");
        assert_eq!(headers["x-ratelimit-limit-requests"], "1");
        assert_eq!(headers["x-ratelimit-remaining-requests"], "0");
    }
}
