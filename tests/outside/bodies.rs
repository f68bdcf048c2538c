//! Response bodies: layers that need a default, and services and bodies that are boxed.

use std::{convert::Infallible, time::Duration};

use axum::{Router, body::Body, routing::get};
use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use tower::{Service, ServiceBuilder, ServiceExt, service_fn, util::BoxCloneSyncService};
use tower_http::{cors::CorsLayer, timeout::TimeoutLayer};
use tower_quota::{
    auth::TrialKeyAuthLayer, openai::AnthropicErrorsLayer, quota::DailyQuotaLayer,
    usage::UsageRecorderLayer,
};

use super::{hello, request, store};

#[tokio::test]
async fn cors_and_timeout_fit_around_the_layers_of_an_axum_app() {
    let store = store(1);
    let layers = ServiceBuilder::new()
        .layer(CorsLayer::permissive())
        .layer(TimeoutLayer::with_status_code(StatusCode::GATEWAY_TIMEOUT, Duration::from_secs(1)))
        .layer(TrialKeyAuthLayer::new(store.clone()))
        .layer(UsageRecorderLayer::new(store.clone()))
        .layer(DailyQuotaLayer::new(store));
    let app = Router::new().route("/", get(async || "hello")).route_layer(layers);
    for status in [200, 429] {
        let response = app.clone().oneshot(request("/")).await.unwrap();
        assert_eq!(response.status(), status);
        assert_eq!(response.headers()["access-control-allow-origin"], "*");
    }
    assert_eq!(app.oneshot(request("/other")).await.unwrap().status(), 404, "costs nothing");
}

#[tokio::test]
async fn services_and_their_bodies_can_be_boxed() {
    let store = store(5);
    let hello = service_fn(async |_: Request<Body>| {
        Ok::<_, Infallible>(Response::new(Full::<Bytes>::from("hello")))
    });
    let service = ServiceBuilder::new()
        .layer(AnthropicErrorsLayer::new())
        .layer(TrialKeyAuthLayer::new(store.clone()))
        .layer(UsageRecorderLayer::new(store.clone()))
        .layer(DailyQuotaLayer::new(store))
        .service(hello)
        .map_response(|response| response.map(|body| body.boxed()));
    let service = BoxCloneSyncService::new(service);
    let response = service.oneshot(request("/")).await.unwrap();
    assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), "hello");
}

/// The type of a layer is its name: a struct can hold it.
#[derive(Clone)]
struct Layers {
    auth: TrialKeyAuthLayer,
    quota: DailyQuotaLayer,
}

#[tokio::test]
async fn the_inner_service_can_be_reached() {
    let (store, inner) = (store(1), service_fn(hello));
    let layers =
        Layers { auth: TrialKeyAuthLayer::new(store.clone()), quota: DailyQuotaLayer::new(store) };
    let Layers { auth, quota } = layers.clone();
    let mut service = ServiceBuilder::new().layer(auth).layer(quota).service(inner);
    let inner = service.get_mut().get_mut();
    assert_eq!(inner.call(Request::default()).await.unwrap().status(), 200, "uncounted");
    let response = service.into_inner().into_inner().oneshot(Request::default()).await.unwrap();
    assert_eq!(response.status(), 200);
}
