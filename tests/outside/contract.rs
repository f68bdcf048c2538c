//! What every middleware promises to the services around it, whatever else it does.

mod scene;

use std::{
    future::{Future, Ready, ready},
    num::NonZeroU32,
    pin::pin,
    task::{Context, Poll, Waker},
};

use bytes::Bytes;
use http::{Request, Response};
use http_body::Body;
use http_body_util::{BodyExt, Full};
use tower::{Layer, Service, ServiceExt};
use tower_quota::{
    auth::TrialKeyAuthLayer,
    key::Limit,
    openai::{
        AnthropicErrorsLayer,
        stream_usage::{BufferedBody, StreamUsageLayer},
    },
    quota::{DailyQuotaLayer, FairShareLayer, InFlightLimitLayer, RateLimitLayer},
    store::memory::MemoryStore,
    usage::{DrainLayer, DrainLimits, RequestBody, UsageRecorderLayer},
};

use self::scene::{
    Fails, Failure, ROWS, Row, SCENES, Scene, Script, Seen, Wrapped, chat, other, rejected,
};
use super::Events;

/// Each middleware with each kind of scene.
fn cases() -> impl Iterator<Item = (&'static Row, fn() -> Scene)> {
    ROWS.iter().flat_map(|row| SCENES.map(|scene| (row, scene)))
}

#[tokio::test]
async fn the_inner_service_is_called_only_where_it_was_polled_ready() {
    // The inner service panics otherwise, and its clones are not ready.
    for (row, scene) in cases() {
        let mut service = (row.wrap)(&scene());
        for request in [chat, other, chat] {
            let mut clone = service.clone();
            for service in [&mut clone, &mut service] {
                let response = service.ready().await.unwrap().call(request()).await.unwrap();
                assert_eq!(response.status(), 200, "{}", row.name);
                response.into_body().collect().await.unwrap();
            }
        }
    }
}

#[tokio::test]
async fn a_thousand_rejections_leak_no_permit_of_the_inner_service() {
    for (row, scene) in cases() {
        let scene = scene();
        let is_rejected = |result: Result<Response<_>, Failure>| match result {
            Ok(response) => response.status().is_client_error(),
            // Of a layer that rejects nothing, the inner service's.
            Err(failure) => failure == Failure::OF_CALL,
        };
        let mut service = (row.wrap)(&scene);
        for _ in 0..500 {
            let result = service.clone().oneshot(rejected()).await;
            assert!(is_rejected(result), "{}", row.name);
            assert!(scene.has_permit(), "{}", row.name);
        }
        for _ in 0..500 {
            let result = service.ready().await.unwrap().call(rejected()).await;
            assert!(is_rejected(result), "{}", row.name);
        }
        let response = service.ready().await.unwrap().call(other()).await.unwrap();
        assert_eq!(response.status(), 200, "{}", row.name);
        drop(service);
        assert!(scene.has_permit(), "{}", row.name);
    }
}

#[test]
fn a_service_that_was_polled_ready_and_is_dropped_returns_the_permit() {
    for (row, scene) in cases() {
        let scene = scene();
        let mut service = (row.wrap)(&scene);
        let mut cx = Context::from_waker(Waker::noop());
        assert!(service.poll_ready(&mut cx).is_ready(), "{}", row.name);
        assert!(!scene.has_permit(), "{}", row.name);
        drop(service);
        assert!(scene.has_permit(), "{}", row.name);
    }
}

#[tokio::test]
async fn errors_of_the_inner_service_come_out_as_they_are() {
    for (row, scene) in cases() {
        let mut scene = scene();
        scene.fails(Fails::Call);
        let failure = (row.wrap)(&scene).oneshot(other()).await.unwrap_err();
        assert_eq!(failure, Failure::OF_CALL, "{}", row.name);
        assert_eq!(scene.events(), usize::from(row.records), "{}", row.name);

        scene.fails(Fails::PollReady);
        let failure = (row.wrap)(&scene).oneshot(other()).await.unwrap_err();
        assert_eq!(failure, Failure::OF_POLL_READY, "{}", row.name);
        assert_eq!(scene.events(), usize::from(row.records), "no request: {}", row.name);

        scene.fails(Fails::Body);
        let response = (row.wrap)(&scene).oneshot(other()).await.unwrap();
        let failure = response.into_body().collect().await.unwrap_err();
        assert_eq!(failure, Failure::OF_BODY, "{}", row.name);
        assert_eq!(scene.events(), 2 * usize::from(row.records), "{}", row.name);
        assert!(scene.has_permit(), "{}", row.name);
    }
}

#[tokio::test]
async fn frames_trailers_and_size_hints_pass_as_they_are() {
    let (request, response) = (Script::request(), Script::response());
    let (request, response) = (Seen::all(request).await, Seen::all(response).await);
    for (row, scene) in cases() {
        let scene = scene();
        let seen = (row.wrap)(&scene).oneshot(other()).await.unwrap();
        assert_eq!(Seen::all(seen.into_body()).await, response, "response: {}", row.name);
        assert_eq!(scene.request_body(), request, "request: {}", row.name);
    }
}

#[tokio::test]
async fn a_body_that_fails_passes_until_then() {
    let expected = Seen::all(Script::failing()).await;
    for (row, scene) in cases() {
        let mut scene = scene();
        scene.fails(Fails::Body);
        let response = (row.wrap)(&scene).oneshot(other()).await.unwrap();
        assert_eq!(Seen::all(response.into_body()).await, expected, "{}", row.name);
    }
}

/// Polls the future of a call this often and drops it. Returns whether it was ready by then.
async fn call_and_drop(service: &Wrapped, polls: usize) -> bool {
    let mut service = service.clone();
    let mut future = pin!(service.ready().await.unwrap().call(chat()));
    let mut cx = Context::from_waker(Waker::noop());
    (0..polls).any(|_| future.as_mut().poll(&mut cx).is_ready())
}

/// Calls the service, reads as many frames as said, and drops the body. Returns whether the body was over
/// by then.
async fn read_and_drop(service: &Wrapped, frames: usize) -> bool {
    let mut body = service.clone().oneshot(chat()).await.unwrap().into_body();
    for _ in 0..frames {
        if body.frame().await.is_none() {
            return true;
        }
    }
    false
}

#[tokio::test]
async fn a_future_dropped_at_any_point_is_one_event_and_returns_the_permit() {
    for (row, scene) in cases() {
        let mut drops = 0;
        for polls in 0.. {
            let scene = scene();
            let service = (row.wrap)(&scene);
            let is_over = call_and_drop(&service, polls).await;
            let at = format!("{} after {polls} polls", row.name);
            scene.finish().await;
            assert!(scene.has_permit(), "{at}");
            assert_eq!(scene.events(), usize::from(row.records), "{at}");
            // What the store has reserved stays charged, as nobody knows what the inner service has done;
            // the policy decides once there is a body. It refunds one that is dropped.
            let has_body = row.counts && (is_over || row.drains);
            let refunded = u64::from(has_body && !row.drains);
            assert_eq!(scene.ends(), u64::from(has_body), "{at}");
            assert_eq!(scene.used(), scene.reserved() - refunded, "{at}");
            assert_eq!(service.oneshot(other()).await.unwrap().status(), 200, "next: {at}");
            if is_over {
                break;
            }
            drops += 1;
        }
        // The inner service takes some turns for the request's body, and one for itself.
        assert!(drops > 3, "{}: {drops}", row.name);
    }
}

#[tokio::test]
async fn a_body_dropped_after_any_frame_is_one_event_and_counts_as_the_policy_says() {
    for (row, scene) in cases() {
        let mut drops = 0;
        for frames in 0.. {
            let scene = scene();
            let service = (row.wrap)(&scene);
            let is_over = read_and_drop(&service, frames).await;
            let at = format!("{} after {frames} frames", row.name);
            scene.finish().await;
            assert!(scene.has_permit(), "{at}");
            assert_eq!(scene.events(), usize::from(row.records), "{at}");
            let counted = u64::from(row.counts);
            assert_eq!((scene.reserved(), scene.ends()), (counted, counted), "{at}");
            // Trailers are the end, also of a body that is not polled again.
            let is_refunded = counted == 1 && frames < Script::STREAM_FRAMES && !row.drains;
            assert_eq!(scene.used(), counted - u64::from(is_refunded), "{at}");
            assert_eq!(service.oneshot(other()).await.unwrap().status(), 200, "next: {at}");
            if is_over {
                break;
            }
            drops += 1;
        }
        // The frame with usage may be hidden.
        assert!(drops >= Script::STREAM_FRAMES - 1, "{}: {drops}", row.name);
    }
}

/// An inner service of which everything is `Send` and `Sync`.
#[derive(Clone)]
struct Plain;

impl<B> Service<Request<B>> for Plain {
    type Response = Response<Full<Bytes>>;
    type Error = Failure;
    type Future = Ready<Result<Self::Response, Failure>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Failure>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Request<B>) -> Self::Future {
        ready(Ok(Response::default()))
    }
}

#[test]
fn all_is_send_sync_and_static_where_the_inner_service_is() {
    fn body<B: Body + Default + Send + Sync + 'static>() {}

    fn layer<L, B>(_: L)
    where
        L: Layer<Plain> + Clone + Send + Sync + 'static,
        L::Service: Service<Request<Full<Bytes>>, Response = Response<B>, Error = Failure>,
        L::Service: Clone + Send + Sync + 'static,
        <L::Service as Service<Request<Full<Bytes>>>>::Future: Send + Sync + 'static,
        B: Body<Data = Bytes> + Default + Send + Sync + 'static,
    {
        assert!(B::default().is_end_stream());
        assert_eq!(B::default().size_hint().exact(), Some(0));
    }

    layer(TrialKeyAuthLayer::new(MemoryStore::new()));
    layer(DailyQuotaLayer::new(MemoryStore::new()));
    layer(InFlightLimitLayer::new(Limit::Unlimited));
    layer(RateLimitLayer::per_minute(Limit::Unlimited));
    layer(UsageRecorderLayer::new(Events::default()));
    layer(UsageRecorderLayer::new(Events::default()).watch_requests());
    layer(StreamUsageLayer::new());
    layer(StreamUsageLayer::new().split().0);
    layer(StreamUsageLayer::new().split().1);
    layer(AnthropicErrorsLayer::new());
    layer(DrainLayer::new(DrainLimits::new()));
    layer(FairShareLayer::new(NonZeroU32::MIN));
    body::<RequestBody<Full<Bytes>>>();
    body::<BufferedBody<Full<Bytes>>>();
}
