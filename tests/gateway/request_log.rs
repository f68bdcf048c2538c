//! One log line per request, at its true end, with what an operator needs and no secrets.

use std::time::{Duration, Instant};

use crate::common::{
    ADMIN_TOKEN, Client, Gateway, GatewayCommand, Upstream, chat_json, eventually,
};
use crate::common::{json_response, streaming};
use bytes::Bytes;
use http::{Method, Response};
use http_body_util::BodyExt;
use serde_json::{Value, json};
use tokio::sync::mpsc::unbounded_channel;

/// Returns the lines of the request with this id.
fn lines(gateway: &Gateway, id: &str) -> Vec<Value> {
    let printed = gateway.printed();
    let reported = printed.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    reported.filter(|line| line["message"] == "request" && line["id"] == id).collect()
}

/// Returns the only line of the request with this id.
async fn line(gateway: &Gateway, id: &str) -> Value {
    eventually(id, || async { !lines(gateway, id).is_empty() }).await;
    let mut lines = lines(gateway, id);
    assert_eq!(lines.len(), 1, "{lines:?}");
    lines.remove(0)
}

fn has(line: &Value, expected: Value) {
    for (field, value) in expected.as_object().unwrap() {
        assert_eq!(line.get(field).unwrap_or(&Value::Null), value, "{field} of {line}");
    }
}

async fn send(gateway: &Gateway, id: &str, method: Method, path: &str, key: &str, body: &str) {
    let authorization = format!("Bearer {key}");
    let headers = [("x-request-id", id), ("authorization", authorization.as_str())];
    Client::http1().send(method, &gateway.url(path), &headers, body.to_owned()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn each_request_is_one_line_at_its_end() {
    let (feeders, mut fed) = unbounded_channel();
    let upstream = Upstream::start(move |request| match request.uri().path() {
        "/v1/completions" => {
            let (feeder, body) = streaming();
            feeders.send(feeder).unwrap();
            Response::new(body)
        }
        "/v1/responses" => Response::builder().status(500).body(crate::common::full("no")).unwrap(),
        _ => json_response(chat_json().to_string()),
    })
    .await;
    let gateway = GatewayCommand::before(upstream.base_url())
        .env("RUST_LOG", "info")
        .env("LOG_FORMAT", "json")
        .start();
    let made = json!({"label": "secret-label", "daily_limit": 4});
    let made = gateway.admin(Method::POST, "/admin/keys", &made).await;
    let (key, key_id) = (made["key"].as_str().unwrap(), &made["id"]);

    let body = json!({"model": "secret-body"}).to_string();
    send(&gateway, "chat", Method::POST, "/v1/chat/completions", key, &body).await;
    let chat = line(&gateway, "chat").await;
    has(
        &chat,
        json!({
            "level": "INFO", "method": "POST", "path": "/v1/chat/completions", "key_id": key_id,
            "status": 200, "outcome": "succeeded", "reason": null, "units": 1, "refunded": false,
            "bytes_in": body.len(), "bytes_out": chat_json().to_string().len(),
            "prompt_tokens": 2, "completion_tokens": 3, "total_tokens": 5, "cached_tokens": null,
        }),
    );
    assert!(chat["time_to_head_ms"].as_f64().unwrap() <= chat["duration_ms"].as_f64().unwrap());

    // A stream is logged when its last byte is sent, not when its head is.
    let authorization = format!("Bearer {key}");
    let credential = ("authorization", authorization.as_str());
    let client = Client::http1();
    let url = gateway.url("/v1/completions");
    let headers = [("x-request-id", "stream"), credential];
    let mut response = client.open(Method::GET, &url, &headers, "").await.unwrap();
    let feeder = fed.recv().await.unwrap();
    feeder.send(Ok(Bytes::from_static(b"1234"))).unwrap();
    response.body_mut().frame().await.unwrap().unwrap();
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(lines(&gateway, "stream"), [] as [Value; 0]);
    drop(feeder);
    response.into_body().collect().await.unwrap();
    let stream = line(&gateway, "stream").await;
    has(&stream, json!({"outcome": "succeeded", "bytes_out": 4, "total_tokens": null}));
    assert!(stream["duration_ms"].as_f64().unwrap() > 100.0);

    let headers = [("x-request-id", "gone"), credential];
    let mut response = client.open(Method::GET, &url, &headers, "").await.unwrap();
    let feeder = fed.recv().await.unwrap();
    feeder.send(Ok(Bytes::from_static(b"12"))).unwrap();
    response.body_mut().frame().await.unwrap().unwrap();
    drop((response, client));
    let gone = line(&gateway, "gone").await;
    has(&gone, json!({"status": 200, "outcome": "client_gone", "bytes_out": 2, "units": 1}));

    for (id, path, key, expected) in [
        (
            "failed",
            "/v1/responses",
            key,
            json!({"status": 500, "outcome": "failed", "reason": "upstream_failed",
                   "refunded": true, "units": 0, "key_id": key_id}),
        ),
        (
            "unknown",
            "/v1/x",
            "trial-nobody",
            json!({"status": 401, "outcome": "rejected", "reason": "invalid_api_key",
                   "key_id": null, "units": 0}),
        ),
        (
            "nowhere",
            "/x",
            key,
            json!({"status": 404, "outcome": "rejected", "reason": "not_found"}),
        ),
        (
            "usage",
            "/usage",
            key,
            json!({"status": 200, "outcome": "succeeded", "key_id": key_id, "bytes_in": null}),
        ),
        ("admin", "/admin/keys", ADMIN_TOKEN, json!({"path": "/admin/keys", "status": 200})),
        ("metrics", "/metrics", key, json!({"level": "INFO", "status": 401})),
    ] {
        send(&gateway, id, Method::GET, path, key, "").await;
        has(&line(&gateway, id).await, expected);
    }
    let printed = gateway.printed();
    let printed = printed.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let warnings = printed.filter(|line| line["level"] == "WARN");
    let named: Vec<_> = warnings.map(|line| line["request_id"].clone()).collect();
    assert_eq!(named, ["failed", "metrics"], "other lines name their request");
    send(&gateway, "health", Method::GET, "/healthz", key, "").await;
    send(&gateway, "last", Method::GET, "/usage", key, "").await;
    line(&gateway, "last").await;
    assert_eq!(lines(&gateway, "health"), [] as [Value; 0], "routine requests are logged at debug");
    let printed = gateway.printed();
    for secret in [key, "secret-label", "secret-body", ADMIN_TOKEN, "trial-nobody"] {
        assert!(!printed.contains(secret), "{secret}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drained_response_is_one_line() {
    let (feeders, mut fed) = unbounded_channel();
    let upstream = Upstream::start(move |_| {
        let (feeder, body) = streaming();
        feeders.send(feeder).unwrap();
        Response::builder().header("content-type", "text/event-stream").body(body).unwrap()
    })
    .await;
    let gateway = GatewayCommand::before(upstream.base_url())
        .env("RUST_LOG", "info")
        .env("LOG_FORMAT", "json")
        .env("ON_CLIENT_GONE", "drain")
        .start();
    let key = gateway.create_key(json!({})).await;
    let authorization = format!("Bearer {key}");
    let headers = [("x-request-id", "gone"), ("authorization", authorization.as_str())];
    let client = Client::http1();
    let url = gateway.url("/v1/x");
    let begun = Instant::now();
    let mut response = client.open(Method::POST, &url, &headers, "").await.unwrap();
    let feeder = fed.recv().await.unwrap();
    feeder.send(Ok(Bytes::from_static(b"data: {}\n\n"))).unwrap();
    response.body_mut().frame().await.unwrap().unwrap();
    drop((response, client));
    tokio::time::sleep(Duration::from_secs(1)).await;
    let whole = begun.elapsed().as_secs_f64() * 1000.0;
    let usage = json!({"prompt_tokens": 2, "completion_tokens": 3, "total_tokens": 5});
    feeder.send(Ok(format!("data: {}\n\n", json!({"usage": usage})).into())).unwrap();
    drop(feeder);
    let gone = line(&gateway, "gone").await;
    has(&gone, json!({"outcome": "client_gone", "bytes_out": 10, "total_tokens": 5}));
    assert!(gone["duration_ms"].as_f64().unwrap() < whole, "as long as the client was there");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_text_format_has_the_fields_of_json() {
    let gateway = GatewayCommand::new().arg("--demo").env("RUST_LOG", "debug").start();
    let key = gateway.create_key(json!({"label": "secret-label"})).await;
    send(&gateway, "text-id", Method::POST, "/v1/chat/completions", &key, "{\"a\":1}").await;
    send(&gateway, "health-id", Method::GET, "/healthz", "", "").await;
    let of = |id: &str| {
        let (printed, id) = (gateway.printed(), format!("id=\"{id}\""));
        let reported =
            printed.lines().filter(|line| line.contains(" request ") && line.contains(&id));
        reported.map(str::to_owned).collect::<Vec<_>>()
    };
    eventually("the lines", || async { !of("text-id").is_empty() && !of("health-id").is_empty() })
        .await;
    let lines = of("text-id");
    assert_eq!(lines.len(), 1, "{lines:?}");
    for field in [
        "INFO",
        "key_id=",
        "method=\"POST\"",
        "status=200",
        "outcome=\"succeeded\"",
        "time_to_head_ms=",
        "duration_ms=",
        "bytes_in=7",
        "bytes_out=",
        "units=1",
        "refunded=false",
        "prompt_tokens=",
        "completion_tokens=",
        "total_tokens=",
    ] {
        assert!(lines[0].contains(field), "{field}: {}", lines[0]);
    }
    let lines = of("health-id");
    assert!(lines.len() == 1 && lines[0].contains("DEBUG"), "{lines:?}");
    assert!(!gateway.printed().contains(&key) && !gateway.printed().contains("secret-label"));
}
