//! SIGTERM ends the gateway, but not the answers that are under way.

mod common;

use std::{sync::Mutex, time::Duration};

use bytes::Bytes;
use common::{Client, Gateway, GatewayCommand, Upstream, streaming};
use http::{Method, Response};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use serde_json::json;
use tokio::sync::mpsc::UnboundedSender;
use tower::BoxError;

/// A gateway that waits so long for running answers, one of which is under way.
async fn streaming_gateway(
    grace: &str,
) -> (Upstream, Gateway, String, UnboundedSender<Result<Bytes, BoxError>>, Incoming) {
    let (feed, body) = streaming();
    let body = Mutex::new(Some(body));
    let upstream =
        Upstream::start(move |_| Response::new(body.lock().unwrap().take().unwrap())).await;
    let gateway = GatewayCommand::new()
        .env("UPSTREAM_BASE_URL", upstream.base_url())
        .env("SHUTDOWN_GRACE", grace)
        .start();
    let key = gateway.create_key(json!({"daily_limit": 5})).await;
    let authorization = format!("Bearer {key}");
    feed.send(Ok("data: 1\n\n".into())).unwrap();
    let url = gateway.url("/v1/chat/completions");
    let headers = [("authorization", authorization.as_str())];
    let answer = Client::http1().open(Method::POST, &url, &headers, "{}").await.unwrap();
    let mut body = answer.into_body();
    assert_eq!(body.frame().await.unwrap().unwrap().into_data().unwrap(), "data: 1\n\n");
    (upstream, gateway, key, feed, body)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_running_stream_finishes() {
    let (_upstream, mut gateway, _, feed, body) = streaming_gateway("20s").await;
    gateway.terminate();
    common::eventually("the listener's end", || async {
        tokio::net::TcpStream::connect(gateway.address()).await.is_err()
    })
    .await;
    feed.send(Ok("data: [DONE]\n\n".into())).unwrap();
    drop(feed);
    assert_eq!(body.collect().await.unwrap().to_bytes(), "data: [DONE]\n\n");
    assert!(gateway.wait().success());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_outlasts_the_grace_is_cut_and_recorded() {
    let (_upstream, mut gateway, key, _feed, body) = streaming_gateway("100ms").await;
    gateway.terminate();
    let cut = tokio::time::timeout(Duration::from_secs(10), body.collect()).await.unwrap();
    assert!(cut.is_err(), "it does not end as if complete");
    assert!(gateway.wait().success());
    gateway.restart();
    let usage = Client::http1().get_as(&key, &gateway.url("/usage")).await.json();
    assert_eq!((&usage["used"], &usage["requests"]["failed"]), (&json!(1), &json!(1)));
}
