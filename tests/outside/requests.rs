//! Request bodies, which pass as they are.

use std::convert::Infallible;

use axum::{Router, body::Body, extract::Request, middleware::from_fn, routing::post};
use bytes::Bytes;
use http::Response;
use http_body_util::{BodyExt, Full};
use tower::{ServiceBuilder, ServiceExt, service_fn, util::BoxCloneSyncService};
use tower_quota::usage::{RequestBody, UsageRecorderLayer};

use super::Events;

#[tokio::test]
async fn functions_and_handlers_of_axum_work_inside_the_recorder() {
    let events = Events::default();
    let layers = ServiceBuilder::new().layer(UsageRecorderLayer::new(events.clone())).layer(
        from_fn(async |request: Request, next: axum::middleware::Next| next.run(request).await),
    );
    let app = Router::new().route("/", post(async |body: Bytes| body)).route_layer(layers);
    let response = app.oneshot(Request::post("/").body(Body::from("echo")).unwrap()).await.unwrap();
    assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), "echo");
    assert_eq!(events.0.lock().unwrap()[0].bytes_out, 4);
}

#[tokio::test]
async fn typed_and_boxed_services_work_inside_the_recorder() {
    let typed = service_fn(async |request: Request<Full<Bytes>>| {
        Ok::<_, Infallible>(Response::new(request.into_body()))
    });
    let boxed = BoxCloneSyncService::new(typed);
    let service = UsageRecorderLayer::new(Events::default());
    let service = ServiceBuilder::new().layer(service).service(boxed);
    let response = service.oneshot(Request::new(Full::from("echo"))).await.unwrap();
    assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), "echo");
}

#[tokio::test]
async fn request_bodies_are_watched_on_demand() {
    let events = Events::default();
    let service = ServiceBuilder::new()
        .layer(UsageRecorderLayer::new(events.clone()).watch_requests())
        .service(service_fn(async |request: Request<RequestBody<Full<Bytes>>>| {
            let body = request.into_body().collect().await?.to_bytes();
            Ok::<_, Infallible>(Response::new(Full::new(body)))
        }));
    const BODY: &str = r#"{"model":"m"}"#;
    let response =
        service.oneshot(Request::post("/").body(Full::from(BODY)).unwrap()).await.unwrap();
    assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), BODY);
    let events = events.0.lock().unwrap();
    assert_eq!(events[0].requested_model.as_deref(), Some("m"));
    assert_eq!(events[0].bytes_in, BODY.len() as u64);
}
