//! Renderers of rejections, which see the request and the typed reason.

use std::{
    error::Error,
    sync::{Arc, Mutex},
    task::{Context, Poll},
};

use axum::body::Body;
use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::BodyExt;
use tower::{ServiceBuilder, ServiceExt, service_fn};
use tower_quota::{
    auth::{AuthRejection, MalformedCredential, TrialKeyAuthLayer},
    error::{Reject, RejectedRequest, Rejection, StoreError, StoreErrorKind, catalog, reject_fn},
    quota::{DailyQuotaLayer, QuotaRejection},
    request::RequestContext,
    store::{
        Demand, QuotaStatus, QuotaStore, Refund, Reservation, ReserveOutcome, StoreFuture,
        memory::MemoryStore,
    },
};

use super::{KEY, hello, request, store};

fn text(status: StatusCode, text: impl Into<Bytes>) -> Response<Bytes> {
    let mut response = Response::new(text.into());
    *response.status_mut() = status;
    response
}

#[tokio::test]
async fn a_closure_without_annotations_renders_by_the_request_and_the_reason() {
    let plain = reject_fn(|rejection, request| {
        let reason = match rejection.reason() {
            Some(AuthRejection::Malformed(MalformedCredential::OtherScheme)) => "another scheme",
            Some(AuthRejection::MissingKey) => "no key",
            _ => "other",
        };
        let language = request.headers().and_then(|headers| headers.get("accept-language"));
        let language = language.and_then(|value| value.to_str().ok()).unwrap_or_default();
        let path = request.uri().map_or("", |uri| uri.path());
        text(rejection.status, format!("{} {path} {language}: {reason}", request.method()))
    });
    let auth = TrialKeyAuthLayer::new(store(1)).reject(plain);
    let service = ServiceBuilder::new().layer(auth).service(service_fn(hello));
    for (authorization, expected) in [
        ("", "POST /files zh: no key"),
        ("Basic dXNlcg==", "POST /files zh: another scheme"),
        ("Bearer trial-key-guessed", "POST /files zh: other"),
    ] {
        let request = Request::post("/files?page=1")
            .header("accept-language", "zh")
            .header("authorization", authorization);
        let response = service.clone().oneshot(request.body(Body::empty()).unwrap()).await.unwrap();
        assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), expected);
    }
}

/// What a renderer has seen of a rejected request: whether it was exhausted, failed in the store, its
/// URI, and the key in its context.
type Seen = (bool, bool, Option<String>, Option<String>);

#[derive(Clone, Default)]
struct Recorder(Arc<Mutex<Vec<Seen>>>);

impl Reject for Recorder {
    fn reject(&self, rejection: Rejection, request: RejectedRequest<'_>) -> Response<Bytes> {
        let reason = rejection.reason();
        let key = request.extensions().get().and_then(RequestContext::key);
        assert_eq!(request.uri().is_some(), request.headers().is_some());
        self.0.lock().unwrap().push((
            matches!(reason, Some(QuotaRejection::Exhausted { status, .. }) if status.used == 1),
            matches!(reason, Some(QuotaRejection::Store(error)) if error.kind() == StoreErrorKind::Unavailable),
            request.uri().map(ToString::to_string),
            key.map(|key| key.id.to_string()),
        ));
        text(rejection.status, "")
    }
}

#[tokio::test]
async fn a_quota_rejects_with_its_reason_the_request_and_its_key() {
    let (recorder, store) = (Recorder::default(), store(1));
    let service = ServiceBuilder::new()
        .layer(TrialKeyAuthLayer::new(store.clone()))
        .layer(DailyQuotaLayer::new(store).reject(recorder.clone()))
        .service(service_fn(hello));
    for expected in [200, 429] {
        let response = service.clone().oneshot(request("/images?n=2")).await.unwrap();
        assert_eq!(response.status(), expected);
    }
    let alice = Some("alice".to_owned());
    assert_eq!(*recorder.0.lock().unwrap(), [(true, false, Some("/images?n=2".into()), alice)]);
}

/// A store that cannot make any reservation durable.
struct NotDurable(MemoryStore);

struct Lost;

impl Reservation for Lost {
    fn poll_committed(&mut self, _: &mut Context<'_>) -> Poll<Result<(), StoreError>> {
        Poll::Ready(Err(StoreError::new(StoreErrorKind::Unavailable)))
    }

    fn settle(&mut self, _: u64) -> StoreFuture<()> {
        StoreFuture::ready(Ok(()))
    }

    fn refund(&mut self, _: Refund) -> StoreFuture<bool> {
        StoreFuture::ready(Ok(false))
    }
}

impl QuotaStore for NotDurable {
    fn reserve(&self, demand: &Demand) -> StoreFuture<ReserveOutcome> {
        self.0.status(demand).map(|status| {
            let reservation: Box<dyn Reservation> = Box::new(Lost);
            ReserveOutcome::Admitted { reservation, status }
        })
    }

    fn status(&self, demand: &Demand) -> StoreFuture<QuotaStatus> {
        self.0.status(demand)
    }
}

/// The request's head has gone with it; its context is still there.
#[tokio::test]
async fn after_the_inner_service_was_called_a_renderer_sees_what_is_left_of_the_request() {
    let (recorder, store) = (Recorder::default(), store(1));
    let service = ServiceBuilder::new()
        .layer(TrialKeyAuthLayer::new(store.clone()))
        .layer(DailyQuotaLayer::new(NotDurable(store)).reject(recorder.clone()))
        .service(service_fn(hello));
    assert_eq!(service.oneshot(request("/")).await.unwrap().status(), 503);
    assert_eq!(*recorder.0.lock().unwrap(), [(false, true, None, Some("alice".into()))]);
}

#[test]
fn debug_shows_neither_the_request_nor_the_reason() {
    struct Secret;
    let rejection = catalog::KEY_DISABLED.rejection().with_reason((Secret, KEY));
    assert!(rejection.reason::<(Secret, &str)>().is_some());
    assert!(rejection.reason::<&str>().is_none(), "of another type");
    let request = Request::get(format!("/?key={KEY}")).header("x-api-key", KEY).body(()).unwrap();
    let shown = format!("{rejection:?} {:?}", RejectedRequest::from(&request));
    assert!(!shown.contains(KEY), "{shown}");
}

#[test]
fn the_typed_reasons_are_errors_with_sources() {
    let failure = || StoreError::new(StoreErrorKind::Unavailable);
    let auth: Box<dyn Error> = Box::new(AuthRejection::Store(failure()));
    let quota: Box<dyn Error> = Box::new(QuotaRejection::Store(failure()));
    for (reason, text) in [(auth, "key store failed"), (quota, "quota store failed")] {
        assert_eq!(reason.to_string(), text);
        assert!(reason.source().is_some_and(|source| source.is::<StoreError>()), "{reason}");
    }
    let malformed = AuthRejection::Malformed(MalformedCredential::OtherScheme);
    let source = malformed.source().map(ToString::to_string);
    assert!(source.is_some_and(|text| text.contains("another scheme than `Bearer`")));
}
