//! An application with a quota for each tenant of its JWTs, counted in a store of its own: requests a day and exports a
//! month, with errors of its own.

use std::{
    collections::HashMap,
    future::pending,
    sync::{Arc, Mutex},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use axum::{
    Router,
    body::{Body, Bytes, to_bytes},
    middleware::{Next, from_fn},
    response::IntoResponse,
    routing::{get, post},
};
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, StatusCode, header, request};
use tower::{ServiceBuilder, ServiceExt};
use tower_http::{
    cors::{Any, CorsLayer},
    timeout::TimeoutLayer,
};
use tower_quota::{
    clock::{Calendar, Clock, Day, Period, rfc3339},
    error::{RejectedRequest, Rejection, reject_fn},
    key::{KeyId, Limit},
    quota::{DailyQuotaLayer, QuotaRejection, Subject},
    request::RequestContext,
    store::{
        Demand, Quota, QuotaStatus, QuotaStore, QuotaSubject, Refund, ReserveOutcome, StoreFuture,
        rate_headers::RateHeaders,
    },
};

const EXPORTS_LEFT: HeaderName = HeaderName::from_static("x-exports-left");
const REQUESTS_LEFT: HeaderName = HeaderName::from_static("x-requests-left");

/// What a JWT says.
#[derive(Clone)]
struct Claims {
    tenant: String,
    requests: u64,
    exports: u64,
}

impl Claims {
    /// Verifies `tenant.plan.signature`.
    fn verify(jwt: &str) -> Option<Self> {
        let (claims, "signed") = jwt.rsplit_once('.')? else { return None };
        let (tenant, plan) = claims.split_once('.')?;
        let (requests, exports) = if plan == "pro" { (1000, 100) } else { (4, 10) };
        Some(Self { tenant: tenant.to_owned(), requests, exports })
    }

    fn quota(&self, limit: u64) -> Subject {
        QuotaSubject::new(KeyId::from(&*self.tenant), Limit::Units(limit)).into()
    }
}

/// Verifies the JWT. Requests without one go to `/health` only.
async fn authenticate(mut request: Request<Body>, next: Next) -> axum::response::Response {
    if request.uri().path() == "/health" {
        return next.run(request).await;
    }
    let value = request.headers().get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    match value.and_then(|value| value.strip_prefix("Bearer ")).and_then(Claims::verify) {
        Some(claims) => {
            request.extensions_mut().insert(claims);
            next.run(request).await
        }
        None => StatusCode::UNAUTHORIZED.into_response(),
    }
}

#[derive(Default)]
struct Count {
    used: u64,
    refunded: u64,
}

/// Counts of each quota, subject and period.
#[derive(Clone, Default)]
struct Counts(Arc<Mutex<HashMap<(Quota, KeyId, Day), Count>>>);

impl Counts {
    fn with<T>(&self, demand: &Demand, change: impl FnOnce(&mut Count) -> T) -> T {
        let place = (demand.quota, demand.subject.clone(), demand.window(&Calendar::utc()).day);
        change(self.0.lock().unwrap().entry(place).or_default())
    }
}

fn status(demand: &Demand, used: u64) -> QuotaStatus {
    let window = demand.window(&Calendar::utc());
    QuotaStatus::new(window.day, demand.limit, used, window.end).quota(demand.quota)
}

fn fits(demand: &Demand, count: u64) -> bool {
    demand.limit.units().is_none_or(|limit| demand.amount <= limit.saturating_sub(count))
}

impl QuotaStore for Counts {
    fn reserve(&self, demand: &Demand) -> StoreFuture<ReserveOutcome> {
        let (is_admitted, used) = self.with(demand, |count| {
            let is_admitted = fits(demand, count.used);
            count.used += if is_admitted { demand.amount } else { 0 };
            (is_admitted, count.used)
        });
        let (store, status, demand) = (self.clone(), status(demand, used), demand.clone());
        let on_refund = move |refund| {
            let is_refunded = store.with(&demand, |count| {
                let is_refunded = refund == Refund::Always || fits(&demand, count.refunded);
                let amount = if is_refunded { demand.amount } else { 0 };
                (count.used, count.refunded) = (count.used - amount, count.refunded + amount);
                is_refunded
            });
            StoreFuture::ready(Ok(is_refunded))
        };
        StoreFuture::ready(Ok(match is_admitted {
            true => ReserveOutcome::admitted(status, on_refund),
            false => ReserveOutcome::Exhausted(status),
        }))
    }

    fn status(&self, demand: &Demand) -> StoreFuture<QuotaStatus> {
        StoreFuture::ready(Ok(status(demand, self.with(demand, |count| count.used))))
    }
}

/// A header for each quota.
struct Left;

impl RateHeaders for Left {
    fn insert(&self, statuses: &[QuotaStatus], _: SystemTime, headers: &mut HeaderMap) {
        for status in statuses {
            let name = if status.quota == Quota::DAILY { REQUESTS_LEFT } else { EXPORTS_LEFT };
            headers.insert(name, status.remaining().unwrap_or(u64::MAX).into());
        }
    }
}

/// Renders a rejection as JSON:API has it, or as text.
fn json_api(rejection: Rejection, request: RejectedRequest<'_>) -> Response<Bytes> {
    let accept = request.headers().and_then(|headers| headers.get(header::ACCEPT));
    let (title, resets_at) = match rejection.reason() {
        Some(QuotaRejection::Exhausted { status, .. }) => {
            (format!("no {} left", status.quota.name()), rfc3339(status.resets_at))
        }
        _ => (rejection.message.to_string(), String::new()),
    };
    if accept.is_some_and(|accept| accept.as_bytes().starts_with(b"text/")) {
        return rejection.into_response(title.into(), HeaderValue::from_static("text/plain"));
    }
    let (status, code) = (rejection.status.as_str(), rejection.code);
    let body = format!(
        r#"{{"errors":[{{"status":"{status}","code":"{code}","title":"{title}","meta":{{"resets_at":"{resets_at}"}}}}]}}"#
    );
    rejection.into_response(body.into(), HeaderValue::from_static("application/vnd.api+json"))
}

struct Noon;

impl Clock for Noon {
    fn now(&self) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(1_795_953_600)
    }
}

/// Exports the size in the query, and an index of three units.
async fn export(request: Request<Body>) -> Response<Body> {
    let reservation = request.extensions().get().and_then(RequestContext::reservation).unwrap();
    match reservation.take(3).await {
        Ok(status) => Response::new(format!("{} left", status.remaining().unwrap()).into()),
        Err(rejection) => {
            Rejection::from(&rejection).render(&reject_fn(json_api), &request).map(Body::from)
        }
    }
}

fn app() -> Router {
    let layer =
        |store| DailyQuotaLayer::new(store).headers(Left).reject(reject_fn(json_api)).clock(Noon);
    let store = Counts::default();
    let requests =
        layer(store.clone()).subject(|request| match request.extensions.get::<Claims>() {
            Some(claims) => claims.quota(claims.requests),
            None => Subject::Exempt,
        });
    let size = |request: &request::Parts| {
        request.uri.query().and_then(|size| size.parse().ok()).unwrap_or(1)
    };
    let exports = layer(store)
        .quota(Quota::new("exports", Period::Month).unwrap())
        .subject(|request| {
            let claims = request.extensions.get::<Claims>();
            claims.map_or(Subject::Unknown, |claims| claims.quota(claims.exports))
        })
        .cost(size);
    let cors = CorsLayer::new().allow_origin(Any).expose_headers([REQUESTS_LEFT, EXPORTS_LEFT]);
    let timeout =
        TimeoutLayer::with_status_code(StatusCode::GATEWAY_TIMEOUT, Duration::from_millis(50));
    Router::new()
        .route("/exports", post(export).route_layer(exports))
        .route("/health", get(async || "up"))
        .route("/work", get(async || "done"))
        .route("/fail", get(async || StatusCode::INTERNAL_SERVER_ERROR))
        .route("/slow", get(pending::<()>))
        .route_layer(ServiceBuilder::new().layer(from_fn(authenticate)).layer(requests))
        .layer(ServiceBuilder::new().layer(cors).layer(timeout))
}

/// Sends a request. Returns status, the requests and exports left, and the body.
async fn send(app: &Router, line: &str, jwt: &str, accept: &str) -> (u16, [String; 2], String) {
    let (method, path) = line.split_once(' ').unwrap();
    let request = Request::builder().method(method).uri(path).header("accept", accept);
    let request = match jwt {
        "" => request,
        jwt => request.header("authorization", format!("Bearer {jwt}")),
    };
    let response = app.clone().oneshot(request.body(Body::empty()).unwrap()).await.unwrap();
    assert_eq!(
        response.headers()["access-control-expose-headers"],
        "x-requests-left,x-exports-left"
    );
    assert!(!response.headers().contains_key("retry-after"));
    let left = |name| response.headers().get(name).map_or("", |left| left.to_str().unwrap());
    let left = [REQUESTS_LEFT, EXPORTS_LEFT].map(|name| left(name).to_owned());
    let status = response.status().as_u16();
    let body = to_bytes(response.into_body(), 1024).await.unwrap();
    (status, left, String::from_utf8(body.to_vec()).unwrap())
}

#[tokio::test]
async fn the_plan_of_a_tenant_is_its_limit() {
    let app = app();
    for (line, jwt, expected, requests) in [
        ("GET /health", "", 200, ""),
        ("GET /work", "", 401, ""),
        ("GET /work", "acme.free.forged", 401, ""),
        ("GET /work", "acme.free.signed", 200, "3"),
        ("GET /fail", "acme.free.signed", 500, "3"),
        ("GET /nowhere", "acme.free.signed", 404, ""),
        ("GET /slow", "acme.free.signed", 504, ""),
        ("GET /exports", "acme.free.signed", 405, "1"),
        ("GET /work", "acme.free.signed", 200, "0"),
        ("GET /work", "acme.free.signed", 429, "0"),
        ("GET /work", "umbrella.pro.signed", 200, "999"),
    ] {
        let (status, [left, _], _) = send(&app, line, jwt, "*/*").await;
        assert_eq!((status, &*left), (expected, requests), "{line} {jwt}");
    }
}

#[tokio::test]
async fn exports_are_counted_by_the_month_and_cost_their_size() {
    let app = app();
    let jwt = "acme.free.signed";
    let exported = send(&app, "POST /exports?4", jwt, "*/*").await;
    assert_eq!(exported, (200, ["3".into(), "3".into()], "3 left".into()));
    // The layer rejects it, and the quota outside refunds its unit.
    let body = r#"{"errors":[{"status":"429","code":"insufficient_quota","title":"no exports left","meta":{"resets_at":"2026-12-01T00:00:00Z"}}]}"#;
    let rejected = send(&app, "POST /exports?4", jwt, "*/*").await;
    assert_eq!(rejected, (429, ["".into(), "3".into()], body.into()));
    // The handler rejects it, and both quotas refund their units.
    let rejected = send(&app, "POST /exports?1", jwt, "text/plain").await;
    assert_eq!(rejected, (429, ["".into(), "3".into()], "no exports left".into()));
    assert_eq!(send(&app, "POST /exports?0", jwt, "*/*").await.2, "0 left");
}
