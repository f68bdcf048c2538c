//! The limit on requests in flight: it is exact, and each end of a request gives its place back.

use std::{
    collections::VecDeque,
    convert::Infallible,
    future::{self, Future},
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll, Waker},
};

use crate::zone::memory_store;
use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response, request::Parts};
use http_body::Frame;
use http_body_util::{BodyExt, Full};
use tokio::{sync::Semaphore, task::JoinSet};
use tower::{BoxError, Layer, Service, ServiceBuilder, ServiceExt, service_fn};
use tower_quota::{
    error::Rejected,
    key::{KeyId, Limit},
    quota::{DailyQuotaLayer, InFlightLimitLayer, Subject},
    store::{QuotaSubject, memory::MemoryStore},
};

type Body = Full<Bytes>;

fn tenant(name: impl Into<Arc<str>>, max: u64) -> QuotaSubject {
    QuotaSubject::new(KeyId::new(name), Limit::Units(max))
}

/// Limits the requests of one tenant.
fn limit(max: u64) -> InFlightLimitLayer {
    InFlightLimitLayer::new(Limit::Unlimited).subject(move |_| tenant("acme", max))
}

fn request(path: &str) -> Request<Body> {
    Request::get(path).body(Body::default()).unwrap()
}

async fn hello(_: Request<Body>) -> Result<Response<Body>, Infallible> {
    Ok(Response::new(Body::from("hello")))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn exactly_the_maximum_of_concurrent_requests_is_admitted() {
    const MAX: usize = 7;
    const REQUESTS: usize = 500;
    let (reached, gate) = (Arc::new(AtomicUsize::new(0)), Arc::new(Semaphore::new(0)));
    let (counter, entrance) = (reached.clone(), gate.clone());
    let service = limit(MAX as u64).layer(service_fn(move |_: Request<Body>| {
        counter.fetch_add(1, Ordering::SeqCst);
        let entrance = entrance.clone();
        async move {
            entrance.acquire().await.unwrap().forget();
            Ok::<_, Infallible>(Response::new(Body::default()))
        }
    }));
    for round in 1..=3 {
        let mut requests = JoinSet::new();
        for _ in 0..REQUESTS {
            let service = service.clone();
            requests.spawn(async move { service.oneshot(request("/")).await.unwrap().status() });
        }
        // Those beyond the maximum do not wait for the others.
        for _ in MAX..REQUESTS {
            assert_eq!(requests.join_next().await.unwrap().unwrap(), 429);
        }
        assert_eq!(reached.load(Ordering::SeqCst), MAX * round);
        gate.add_permits(MAX);
        while let Some(status) = requests.join_next().await {
            assert_eq!(status.unwrap(), 200);
        }
    }
}

/// A body of these frames, which does not know that the last one is the last.
struct Script(VecDeque<Result<Frame<Bytes>, BoxError>>);

impl http_body::Body for Script {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        Poll::Ready(self.0.pop_front())
    }
}

/// Responds as the path says.
async fn respond(request: Request<Body>) -> Result<Response<Script>, BoxError> {
    let data = || Ok(Frame::data(Bytes::from_static(b"hello")));
    let response = Response::builder();
    let (response, frames) = match request.uri().path() {
        "/length" => (response.header("content-length", 5), vec![data()]),
        "/stream" => (response, vec![data(), data()]),
        "/trailers" => (response, vec![data(), Ok(Frame::trailers(HeaderMap::new()))]),
        "/broken" => (response, vec![data(), Err("the body breaks off".into())]),
        "/empty" => (response.status(204), vec![]),
        "/error" => return Err("no response".into()),
        _ => future::pending().await,
    };
    Ok(response.body(Script(frames.into())).unwrap())
}

/// Whether another request, which ends at once, is admitted.
async fn is_free<S, B>(service: &S) -> bool
where
    S: Service<Request<Body>, Response = Response<B>, Error = BoxError> + Clone,
{
    match service.clone().oneshot(request("/empty")).await.unwrap().status().as_u16() {
        204 => true,
        429 => false,
        status => panic!("{status}"),
    }
}

#[tokio::test]
async fn each_end_of_a_body_gives_the_place_back() {
    let service = limit(1).layer(service_fn(respond));
    // The number of frames until the end, which the last one may be.
    for (path, frames) in [("/length", 1), ("/stream", 3), ("/trailers", 2), ("/broken", 2)] {
        for dropped_after in 0..frames {
            let response = service.clone().oneshot(request(path)).await.unwrap();
            let mut body = response.into_body();
            for _ in 0..dropped_after {
                body.frame().await.unwrap().unwrap();
            }
            assert!(!is_free(&service).await, "{path} after {dropped_after}");
            drop(body);
            assert!(is_free(&service).await, "{path} dropped after {dropped_after}");
        }
        let response = service.clone().oneshot(request(path)).await.unwrap();
        let mut body = response.into_body();
        for _ in 0..frames {
            body.frame().await;
        }
        assert!(is_free(&service).await, "{path} read to its end");
    }
}

#[tokio::test]
async fn a_response_without_a_body_has_given_the_place_back() {
    let service = limit(1).layer(service_fn(respond));
    let mut head = request("/length");
    *head.method_mut() = Method::HEAD;
    for request in [request("/empty"), head] {
        let response = service.clone().oneshot(request).await.unwrap();
        assert!(is_free(&service).await, "{:?}", response.headers());
    }
}

#[tokio::test]
async fn an_inner_error_and_a_dropped_future_give_the_place_back() {
    let mut service = limit(1).layer(service_fn(respond));
    let mut failing = Box::pin(service.call(request("/error")));
    assert!(!is_free(&service).await);
    assert!(failing.as_mut().await.is_err());
    assert!(is_free(&service).await, "before the future is dropped");

    for polls in [0, 1] {
        let mut pending = Box::pin(service.call(request("/never")));
        for _ in 0..polls {
            let mut cx = Context::from_waker(Waker::noop());
            assert!(pending.as_mut().poll(&mut cx).is_pending());
        }
        assert!(!is_free(&service).await);
        drop(pending);
        assert!(is_free(&service).await, "dropped after {polls} polls");
    }
}

#[tokio::test]
async fn each_subject_has_a_maximum_of_its_own() {
    let limit = InFlightLimitLayer::new(Limit::Units(1)).subject(|request| {
        match request.uri.path().trim_start_matches('/') {
            "health" => Subject::Exempt,
            "" => Subject::Unknown,
            "free" => QuotaSubject::new(KeyId::from("free"), Limit::Unlimited).into(),
            name => tenant(name, name.len() as u64 - 1).into(),
        }
    });
    let service = limit.layer(service_fn(hello));
    let mut responses = Vec::new();
    for (path, admitted, rejected) in
        [("/a", 0, 429), ("/ab", 1, 429), ("/abc", 2, 429), ("/free", 9, 200), ("/", 0, 500)]
    {
        for _ in 0..admitted {
            let response = service.clone().oneshot(request(path)).await.unwrap();
            assert_eq!(response.status(), 200, "{path}");
            responses.push(response);
        }
        let response = service.clone().oneshot(request(path)).await.unwrap();
        assert_eq!(response.status(), rejected, "{path}");
        let response = service.clone().oneshot(request("/health")).await.unwrap();
        responses.push(response);
        assert_eq!(responses.last().unwrap().status(), 200, "beside {path}");
    }
}

#[tokio::test]
async fn the_services_of_a_layer_and_its_clones_count_together() {
    let layer = limit(1);
    let [first, second, third] =
        [&layer, &layer, &layer.clone()].map(|layer| layer.layer(service_fn(hello)));
    let (alone, mut clone) = (limit(1).layer(service_fn(hello)), first.clone());
    let held = clone.ready().await.unwrap().call(request("/")).await.unwrap();
    for service in [first.clone(), second, third, clone] {
        assert_eq!(service.oneshot(request("/")).await.unwrap().status(), 429);
    }
    assert_eq!(alone.oneshot(request("/")).await.unwrap().status(), 200);
    drop(held);
    assert_eq!(first.oneshot(request("/")).await.unwrap().status(), 200);
}

#[tokio::test]
async fn only_subjects_with_requests_in_flight_take_memory() {
    let name: Arc<str> = "acme".into();
    let subject = name.clone();
    let service = InFlightLimitLayer::new(Limit::Unlimited)
        .subject(move |request: &Parts| {
            let max = request.uri.path().trim_start_matches('/').parse().unwrap();
            tenant(subject.clone(), max)
        })
        .layer(service_fn(hello));
    let unused = Arc::strong_count(&name);
    let rejected = service.clone().oneshot(request("/0")).await.unwrap();
    assert_eq!((rejected.status().as_u16(), Arc::strong_count(&name)), (429, unused));
    let response = service.clone().oneshot(request("/1")).await.unwrap();
    assert!(Arc::strong_count(&name) > unused);
    response.into_body().collect().await.unwrap();
    assert_eq!(Arc::strong_count(&name), unused);
}

/// Returns the units that are left of the tenant's 10 after a rejected request.
async fn left_after_rejection<S, B>(service: S) -> String
where
    S: Service<Request<Body>, Response = Response<B>, Error = Infallible> + Clone,
{
    let held = service.clone().oneshot(request("/")).await.unwrap();
    let rejected = service.clone().oneshot(request("/")).await.unwrap();
    assert_eq!((held.status().as_u16(), rejected.status().as_u16()), (200, 429));
    let reason = rejected.extensions().get::<Rejected>().unwrap();
    assert_eq!(reason.policy.as_deref(), Some("in_flight"));
    assert_eq!(rejected.headers()["retry-after"], "1");
    drop(held);
    let next = service.oneshot(request("/")).await.unwrap();
    let left = next.headers()["ratelimit"].to_str().unwrap();
    left.split(';').nth(1).unwrap().to_owned()
}

#[tokio::test]
async fn a_rejected_request_costs_no_unit_of_a_quota_outside_or_inside() {
    let quota = |store: MemoryStore| DailyQuotaLayer::new(store).subject(|_| tenant("acme", 10));
    let outside = ServiceBuilder::new()
        .layer(limit(1))
        .layer(quota(memory_store()))
        .service(service_fn(hello));
    assert_eq!(left_after_rejection(outside).await, "r=8");
    let inside = ServiceBuilder::new()
        .layer(quota(memory_store()))
        .layer(limit(1))
        .service(service_fn(hello));
    assert_eq!(left_after_rejection(inside).await, "r=8");
}
