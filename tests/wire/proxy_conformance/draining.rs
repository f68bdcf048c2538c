//! SIGTERM ends the gateway once the responses in flight are complete.

use std::{sync::Mutex, time::Duration};

use bytes::Bytes;
use http::{Method, Response};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use serde_json::json;
use tokio::sync::mpsc::UnboundedSender;
use tower::BoxError;

use super::{
    common::{Client, DEADLINE, Gateway, GatewayCommand, Upstream, eventually, streaming},
    frames,
    message::in_time,
};

/// A gateway with this grace period, and a response in flight.
async fn streaming_gateway(
    client: Client,
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
    let response = client.open(Method::POST, &url, &headers, "{}").await.unwrap();
    let mut body = response.into_body();
    assert_eq!(body.frame().await.unwrap().unwrap().into_data().unwrap(), "data: 1\n\n");
    (upstream, gateway, key, feed, body)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_in_flight_finishes() {
    for client in [Client::http1(), Client::http2()] {
        let (_upstream, mut gateway, _, feed, body) = streaming_gateway(client, "20s").await;
        gateway.terminate();
        eventually("the listener's end", || async {
            tokio::net::TcpStream::connect(gateway.address()).await.is_err()
        })
        .await;
        feed.send(Ok("data: [DONE]\n\n".into())).unwrap();
        drop(feed);
        assert_eq!(body.collect().await.unwrap().to_bytes(), "data: [DONE]\n\n");
        assert!(gateway.wait().success());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_outlasts_the_grace_period_is_cut_and_recorded() {
    for client in [Client::http1(), Client::http2()] {
        let (_upstream, mut gateway, key, _feed, body) = streaming_gateway(client, "100ms").await;
        gateway.terminate();
        let cut = tokio::time::timeout(Duration::from_secs(10), body.collect()).await.unwrap();
        assert!(cut.is_err(), "it does not end as if complete");
        assert!(gateway.wait().success());
        gateway.restart();
        let usage = Client::http1().get_as(&key, &gateway.url("/usage")).await.json();
        assert_eq!((&usage["used"], &usage["requests"]["failed"]), (&json!(1), &json!(1)));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn readyz_fails_on_an_open_connection() {
    let (_upstream, mut gateway, _, feed, body) = streaming_gateway(Client::http1(), "20s").await;
    let mut connection = frames::Connection::open(gateway.address()).await;
    connection.get("/readyz").await;
    assert_eq!(in_time(DEADLINE, connection.data()).await, r#"{"ok":true}"#);

    gateway.terminate();
    in_time(DEADLINE, connection.going_away()).await;
    connection.get("/readyz").await;
    let not_ready = r#"{"ok":false,"reason":"shutting down"}"#;
    assert_eq!(in_time(DEADLINE, connection.data()).await, not_ready);
    connection.confirm().await;
    in_time(DEADLINE, connection.closed()).await;

    drop((feed, body));
    assert!(gateway.wait().success());
}
