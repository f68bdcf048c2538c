//! One layer counts a request on several quotas: on all of them, or on none.

use std::{
    convert::Infallible,
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use http::{Request, Response, StatusCode, request::Parts};
use http_body_util::{BodyExt, Full};
use tower::{Layer, Service, ServiceExt, service_fn};
use tower_quota::{
    auth::TrialKeyAuthLayer,
    clock::{Clock, Period},
    key::{KeyId, KeyRecord, Limit, SecretKey},
    quota::{DailyQuotaLayer, QuotaRule, Subject},
    request::RequestContext,
    store::{Demand, Quota, QuotaStore, QuotaSubject, memory::MemoryStore},
};

type Body = Full<Bytes>;

fn quota(name: &str, period: Period) -> Quota {
    Quota::new(name, period).unwrap()
}

fn subject(id: &str, limit: u64) -> QuotaSubject {
    QuotaSubject::new(KeyId::from(id), Limit::Units(limit))
}

/// Noon of 22 November 2026, UTC.
#[derive(Clone)]
struct Noon;

impl Clock for Noon {
    fn now(&self) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(1_795_348_800)
    }
}

/// Limits a tenant's requests of the day and of the month, its rows of the day, and the requests of all tenants.
fn quotas(store: &MemoryStore, [daily, monthly, rows, pool]: [u64; 4]) -> DailyQuotaLayer {
    let number = |head: &Parts| head.headers.get("x-rows")?.to_str().ok()?.parse().ok();
    DailyQuotaLayer::new(store.clone())
        .clock(Noon)
        .subject(move |_| subject("acme", daily))
        .and(QuotaRule::new(quota("monthly", Period::Month), move |_| subject("acme", monthly)))
        .and(
            QuotaRule::new(quota("rows", Period::Day), move |_| subject("acme", rows))
                .cost(move |head| number(head).unwrap_or(1)),
        )
        .and(QuotaRule::new(quota("pool", Period::Day), move |head| {
            // Internal requests are not on the pool.
            match head.headers.contains_key("x-internal") {
                true => Subject::Exempt,
                false => subject("everybody", pool).into(),
            }
        }))
}

/// Returns the units that are used of each quota.
async fn used(store: &MemoryStore) -> [u64; 4] {
    let quotas = [
        ("acme", Quota::DAILY),
        ("acme", quota("monthly", Period::Month)),
        ("acme", quota("rows", Period::Day)),
        ("everybody", quota("pool", Period::Day)),
    ];
    let mut used = [0; 4];
    for (used, (id, quota)) in used.iter_mut().zip(quotas) {
        let demand = Demand::new(KeyId::from(id), Limit::Unlimited, Noon.now()).quota(quota);
        *used = store.status(&demand).await.unwrap().used;
    }
    used
}

fn request(rows: u64) -> Request<Body> {
    Request::get("/").header("x-rows", rows).body(Body::default()).unwrap()
}

/// Responds with the status that the request names, and charges the rows that it says were found.
async fn serve(request: Request<Body>) -> Result<Response<Body>, Infallible> {
    let header = |name| {
        let value = request.headers().get(name)?;
        value.to_str().ok()?.parse::<u16>().ok()
    };
    let context = request.extensions().get::<RequestContext>().unwrap();
    if let Some(found) = header("x-found") {
        let rows = context.reservation_of(quota("rows", Period::Day)).unwrap();
        rows.settle(found.into());
    }
    let mut response = Response::new(Body::from("ok"));
    *response.status_mut() = StatusCode::from_u16(header("x-status").unwrap_or(200)).unwrap();
    Ok(response)
}

async fn send<S, B>(service: S, request: Request<Body>) -> Response<Bytes>
where
    S: Service<Request<Body>, Response = Response<B>, Error = Infallible>,
    B: http_body::Body<Data = Bytes, Error: std::fmt::Debug>,
{
    let (head, body) = service.oneshot(request).await.unwrap().into_parts();
    Response::from_parts(head, body.collect().await.unwrap().to_bytes())
}

#[tokio::test]
async fn a_request_counts_on_each_quota_and_its_headers_show_all() {
    let store = MemoryStore::new();
    let service = quotas(&store, [10, 100, 50, 20]).layer(service_fn(serve));
    let response = send(service.clone(), request(7)).await;
    assert_eq!(response.status(), 200);
    assert_eq!(
        response.headers()["ratelimit-policy"],
        "\"daily\";q=10;w=86400, \"monthly\";q=100;w=2592000, \"rows\";q=50;w=86400, \"pool\";q=20;w=86400"
    );
    assert_eq!(
        response.headers()["ratelimit"],
        "\"daily\";r=9;t=43200, \"monthly\";r=99;t=734400, \"rows\";r=43;t=43200, \"pool\";r=19;t=43200"
    );
    assert_eq!(used(&store).await, [1, 1, 7, 1]);
    let mut internal = request(0);
    internal.headers_mut().insert("x-internal", "1".parse().unwrap());
    assert_eq!(send(service, internal).await.status(), 200);
    assert_eq!(used(&store).await, [2, 2, 7, 1], "no rows, and not on the pool");
}

#[tokio::test]
async fn a_request_that_one_quota_rejects_counts_on_none() {
    for (limits, name) in [
        ([1, 9, 99, 9], "\"daily\""),
        ([9, 1, 99, 9], "\"monthly\""),
        ([9, 9, 8, 9], "\"rows\""),
        ([9, 9, 99, 1], "\"pool\""),
    ] {
        let store = MemoryStore::new();
        let service = quotas(&store, limits).layer(service_fn(serve));
        assert_eq!(send(service.clone(), request(5)).await.status(), 200);
        let rejected = send(service, request(5)).await;
        assert_eq!(rejected.status(), 429, "{name}");
        let shown = rejected.headers()["ratelimit"].to_str().unwrap();
        assert!(shown.starts_with(name) && !shown.contains(','), "{shown}");
        assert_eq!(used(&store).await, [1, 1, 5, 1]);
    }
}

#[tokio::test]
async fn a_rejection_speaks_of_the_quota_that_resets_last() {
    let service = quotas(&MemoryStore::new(), [0, 0, 0, 0]).layer(service_fn(serve));
    let rejected = send(service, request(1)).await;
    let text = String::from_utf8_lossy(rejected.body()).into_owned();
    assert!(text.contains("`monthly`") && text.contains("2026-12-01T00:00:00Z"), "{text}");
    let service = quotas(&MemoryStore::new(), [0, 1, 0, 0]).layer(service_fn(serve));
    let text = send(service, request(1)).await.into_body();
    let text = String::from_utf8_lossy(&text).into_owned();
    assert!(text.contains("Today's quota of 0 requests"), "the first of them: {text}");
}

#[tokio::test]
async fn a_failed_request_is_refunded_on_each_quota_and_one_alone_can_be_settled() {
    let store = MemoryStore::new();
    let service = quotas(&store, [9, 9, 99, 9]).layer(service_fn(serve));
    let mut failing = request(5);
    failing.headers_mut().insert("x-status", 500.into());
    assert_eq!(send(service.clone(), failing).await.status(), 500);
    assert_eq!(used(&store).await, [0, 0, 0, 0]);
    let mut cheap = request(50);
    cheap.headers_mut().insert("x-found", 3.into());
    assert_eq!(send(service, cheap).await.status(), 200);
    assert_eq!(used(&store).await, [1, 1, 3, 1]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_concurrent_requests_as_many_pass_as_the_smallest_quota_allows() {
    let store = MemoryStore::new();
    let service = quotas(&store, [100, 60, 35, 80]).layer(service_fn(serve));
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..300 {
        let service = service.clone();
        tasks.spawn(async move { send(service, request(1)).await.status() });
    }
    let statuses = tasks.join_all().await;
    assert_eq!(statuses.iter().filter(|status| **status == 200).count(), 35);
    assert_eq!(used(&store).await, [35, 35, 35, 35]);
}

#[tokio::test]
async fn a_key_has_the_limits_of_its_record() {
    let store = MemoryStore::new();
    for (key, id, limit) in [("trial-small", "small", 2), ("trial-large", "large", 5)] {
        let record = KeyRecord::new(KeyId::from(id), Limit::Units(limit));
        store.insert(&SecretKey::parse(key).unwrap(), record).unwrap();
    }
    // Twice the daily limit a month, unless the key is the small one.
    let monthly = QuotaRule::of_key(quota("monthly", Period::Month), |key| {
        (key.id.as_str() != "small").then(|| Limit::Units(key.daily_limit.units().unwrap() - 2))
    });
    let service = TrialKeyAuthLayer::new(store.clone())
        .layer(DailyQuotaLayer::new(store).and(monthly).layer(service_fn(serve)));
    for (key, policies, admitted) in [("trial-small", 1, 2), ("trial-large", 2, 3)] {
        let mut passed = 0;
        for _ in 0..6 {
            let request = Request::get("/").header("x-api-key", key).body(Body::default()).unwrap();
            let response = send(service.clone(), request).await;
            if response.status() == 200 {
                let policy = response.headers()["ratelimit-policy"].to_str().unwrap();
                assert_eq!(policy.split(", ").count(), policies, "{policy}");
                passed += 1;
            }
        }
        assert_eq!(passed, admitted, "{key}");
    }
}

#[tokio::test]
async fn a_request_without_a_subject_of_one_quota_is_rejected_and_counts_on_none() {
    let store = MemoryStore::new();
    let unknown = QuotaRule::new(quota("pool", Period::Day), |_| Subject::Unknown);
    let service = quotas(&store, [9, 9, 9, 9]).and(unknown).layer(service_fn(serve));
    assert_eq!(send(service, request(1)).await.status(), 500);
    assert_eq!(used(&store).await, [0, 0, 0, 0]);
}

#[tokio::test]
async fn the_reservation_of_a_request_is_that_of_the_layers_own_quota() {
    let store = MemoryStore::new();
    let report = service_fn(|request: Request<Body>| async move {
        let context = request.extensions().get::<RequestContext>().unwrap();
        let reservation = context.reservation().unwrap();
        reservation.take(4).await.unwrap();
        reservation.settle(3);
        Ok::<_, Infallible>(Response::new(Body::from("ok")))
    });
    let service = quotas(&store, [9, 9, 99, 9]).layer(report);
    assert_eq!(send(service, request(2)).await.status(), 200);
    assert_eq!(used(&store).await, [3, 1, 2, 1]);
}
