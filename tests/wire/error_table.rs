//! Every row of the error table: status, type, code, headers, and what it costs.

use crate::common::{
    ADMIN_TOKEN, Client, CollectedResponse, Figures, Gateway, GatewayCommand, Upstream, eventually,
    free_port, full,
};
use http::{Method, Response};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// An error response of the gateway's own making.
#[track_caller]
fn assert_error(response: &CollectedResponse, status: u16, kind: &str, code: &str) {
    assert_eq!(response.status, status, "{response:?}");
    let error = &response.json()["error"];
    assert_eq!((&error["type"], &error["code"]), (&json!(kind), &json!(code)), "{response:?}");
    assert!(error["message"].as_str().is_some_and(|message| !message.is_empty()));
    assert_eq!(error["param"], Value::Null);
    assert_eq!(response.header("content-type"), "application/json");
    assert_eq!(response.header("cache-control"), "no-store");
    assert!(!response.header("x-request-id").is_empty());
}

async fn post(gateway: &Gateway, key: &str) -> CollectedResponse {
    let url = gateway.url("/v1/chat/completions");
    Client::http1().post_as(key, &url, &json!({"model": "m"})).await
}

async fn used(gateway: &Gateway, key: &str) -> Value {
    Client::http1().get_as(key, &gateway.url("/usage")).await.json()["used"].clone()
}

/// A gateway before an upstream that responses everything with this status and header.
async fn before(status: u16, header: (&'static str, &'static str)) -> (Upstream, Gateway, String) {
    let upstream = Upstream::start(move |_| {
        let response = Response::builder().status(status).header(header.0, header.1);
        response.body(full("upstream says sk-sponsor-secret")).unwrap()
    })
    .await;
    let gateway = Gateway::before(&upstream.base_url());
    let key = gateway.create_key(json!({"daily_limit": 5})).await;
    (upstream, gateway, key)
}

#[tokio::test(flavor = "multi_thread")]
async fn missing_unknown_deleted_disabled_and_expired_keys_are_rejected() {
    let gateway = Gateway::demo();
    let missing =
        Client::http1().send(Method::POST, &gateway.url("/v1/chat/completions"), &[], "{}").await;
    assert_error(&missing, 401, "invalid_request_error", "missing_api_key");
    assert_eq!(missing.header("www-authenticate"), "Bearer");

    let unknown = post(&gateway, "trial-nobody").await;
    assert_error(&unknown, 401, "invalid_request_error", "invalid_api_key");
    assert_eq!(unknown.header("www-authenticate"), "Bearer error=\"invalid_token\"");

    let key = gateway.create_key(json!({})).await;
    assert_eq!(post(&gateway, &key).await.status, 200);
    let mut typo = key.clone();
    typo.replace_range(key.len() - 1.., if key.ends_with('x') { "y" } else { "x" });
    let mistyped = post(&gateway, &typo).await;
    assert_error(&mistyped, 401, "invalid_request_error", "invalid_api_key");
    assert!(mistyped.text().contains("mistyped"), "{mistyped:?}");

    let path = format!("/admin/keys/{key}");
    gateway.admin(Method::PATCH, &path, &json!({"disabled": true})).await;
    assert_error(&post(&gateway, &key).await, 403, "permission_error", "key_disabled");

    let expired = json!({"disabled": false, "expires_at": "2020-01-01T00:00:00Z"});
    gateway.admin(Method::PATCH, &path, &expired).await;
    assert_error(&post(&gateway, &key).await, 403, "permission_error", "key_expired");

    gateway.admin(Method::DELETE, &path, &Value::Null).await;
    let deleted = post(&gateway, &key).await;
    assert_error(&deleted, 401, "invalid_request_error", "invalid_api_key");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_exhausted_quota_is_reported_with_its_reset() {
    let gateway = Gateway::demo();
    let key = gateway.create_key(json!({"daily_limit": 1})).await;
    let first = post(&gateway, &key).await;
    assert_eq!(first.status, 200);
    assert_eq!(first.header("ratelimit-policy"), "\"daily\";q=1;w=86400");
    assert_eq!(first.header("x-ratelimit-remaining-requests"), "0");

    let rejected = post(&gateway, &key).await;
    assert_error(&rejected, 429, "insufficient_quota", "insufficient_quota");
    assert_eq!(rejected.header("x-should-retry"), "false");
    assert_eq!(rejected.header("retry-after"), "", "clients sleep by it, for hours");
    assert!(rejected.text().contains("It resets at "), "{rejected:?}");
    assert!(rejected.header("ratelimit").starts_with("\"daily\";r=0;t="), "{rejected:?}");
    assert_eq!(rejected.header("x-ratelimit-limit-requests"), "1");
    assert!(!rejected.header("x-ratelimit-reset-requests").is_empty());
    assert_eq!(used(&gateway, &key).await, 1, "a rejection costs nothing");
    let usage = Client::http1().get_as(&key, &gateway.url("/usage")).await;
    assert_eq!(usage.header("x-ratelimit-remaining-requests"), "0", "here too");
}

#[tokio::test(flavor = "multi_thread")]
async fn too_many_concurrent_requests_of_one_key_are_rejected() {
    let upstream = Upstream::holding(|_| crate::common::json_response("{}")).await;
    let gateway = GatewayCommand::new()
        .env("UPSTREAM_BASE_URL", upstream.base_url())
        .env("MAX_IN_FLIGHT_PER_KEY", "2")
        .start();
    let (key, other) = (gateway.create_key(json!({})).await, gateway.create_key(json!({})).await);
    let mut running = tokio::task::JoinSet::new();
    for key in [&key, &key, &other] {
        let (url, key) = (gateway.url("/v1/chat/completions"), key.clone());
        running.spawn(async move { Client::http1().post_as(&key, &url, &json!({})).await });
    }
    upstream.reached_by(3).await;
    let rejected = post(&gateway, &key).await;
    assert_error(&rejected, 429, "rate_limit_error", "rate_limit_exceeded");
    assert_eq!(rejected.header("retry-after"), "1");
    assert_eq!(used(&gateway, &key).await, 2, "a rejection costs nothing");

    // Clients that leave give their places back.
    running.shutdown().await;
    upstream.release(10);
    eventually("a place", || async { post(&gateway, &key).await.status == 200 }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_different_credentials_are_rejected() {
    let gateway = Gateway::demo();
    let key = gateway.create_key(json!({})).await;
    let authorization = format!("Bearer {key}");
    let headers = [("authorization", authorization.as_str()), ("x-api-key", "another")];
    let url = gateway.url("/v1/chat/completions");
    let response = Client::http1().send(Method::POST, &url, &headers, "{}").await;
    assert_error(&response, 400, "invalid_request_error", "conflicting_api_keys");
    let twice = [("authorization", authorization.as_str()), ("x-api-key", key.as_str())];
    assert_eq!(Client::http1().send(Method::POST, &url, &twice, "{}").await.status, 200);
    let basic = [("authorization", "Basic dTpw"), ("x-api-key", key.as_str())];
    assert_eq!(Client::http1().send(Method::POST, &url, &basic, "{}").await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_is_too_large_costs_nothing() {
    let upstream = Upstream::start(|_| crate::common::json_response("{}")).await;
    let gateway = GatewayCommand::new()
        .env("UPSTREAM_BASE_URL", upstream.base_url())
        .env("MAX_BODY_BYTES", "1000")
        .start();
    let key = gateway.create_key(json!({"daily_limit": 5})).await;
    let authorization = format!("Bearer {key}");
    let headers = [("authorization", authorization.as_str())];
    let url = gateway.url("/v1/chat/completions");
    let response = Client::http1().send(Method::POST, &url, &headers, vec![b'x'; 1001]).await;
    assert_error(&response, 413, "invalid_request_error", "request_too_large");
    assert_eq!(upstream.count(), 0);
    assert_eq!(used(&gateway, &key).await, 0);

    let chunked = chunked_request(&gateway, &key, 1001).await;
    assert!(chunked.starts_with("HTTP/1.1 413 "), "{chunked}");
    assert_eq!(used(&gateway, &key).await, 0);
    let whole = Client::http1().send(Method::POST, &url, &headers, vec![b'x'; 1000]).await;
    assert_eq!(whole.status, 200);
}

/// Sends a chunked body with this number of bytes and returns the start of the response.
async fn chunked_request(gateway: &Gateway, key: &str, bytes: usize) -> String {
    let mut socket = tokio::net::TcpStream::connect(gateway.address()).await.unwrap();
    let request = format!(
        "POST /v1/chat/completions HTTP/1.1\r\nHost: gateway\r\nAuthorization: Bearer {key}\r\n\
         Transfer-Encoding: chunked\r\n\r\n{bytes:x}\r\n{}\r\n0\r\n\r\n",
        "x".repeat(bytes)
    );
    socket.write_all(request.as_bytes()).await.unwrap();
    let mut head = [0; 64];
    let read = socket.read(&mut head).await.unwrap();
    String::from_utf8_lossy(&head[..read]).into_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_body_that_is_malformed_costs_nothing() {
    let upstream = Upstream::start(|_| crate::common::json_response("{}")).await;
    let gateway = Gateway::before(&upstream.base_url());
    let key = gateway.create_key(json!({"daily_limit": 5})).await;
    let mut socket = tokio::net::TcpStream::connect(gateway.address()).await.unwrap();
    let request = format!(
        "POST /v1/chat/completions HTTP/1.1\r\nHost: gateway\r\nAuthorization: Bearer {key}\r\n\
         Transfer-Encoding: chunked\r\n\r\n2\r\n{{}}\r\nzz\r\n"
    );
    socket.write_all(request.as_bytes()).await.unwrap();
    let mut response = String::new();
    socket.read_to_string(&mut response).await.unwrap();
    assert!(response.starts_with("HTTP/1.1 400 "), "{response}");
    assert!(response.contains("invalid_request_error"), "{response}");
    assert_eq!(used(&gateway, &key).await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn invalid_usage_in_a_response_does_not_stop_the_gateway() {
    let huge = r#"{"model":"m","usage":{"prompt_tokens":1,"total_tokens":18446744073709551615}}"#;
    let upstream = Upstream::start(move |_| crate::common::json_response(huge)).await;
    let gateway = Gateway::before(&upstream.base_url());
    let key = gateway.create_key(json!({})).await;
    for counted in 1..=3 {
        let response = post(&gateway, &key).await;
        assert_eq!((response.status.as_u16(), response.text().as_str()), (200, huge));
        assert_eq!(used(&gateway, &key).await, counted);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_malformed_target_is_rejected_before_any_charge() {
    let upstream = Upstream::start(|_| crate::common::json_response("{}")).await;
    let gateway = Gateway::before(&upstream.base_url());
    let key = gateway.create_key(json!({"daily_limit": 5})).await;
    for path in ["/v1/../admin", "/v1/%2e%2e/admin", "/v1//chat", "/v1/%252e%252e/x", "/v1/a%5cb"] {
        let request = format!(
            "POST {path} HTTP/1.1\r\nHost: gateway\r\nAuthorization: Bearer {key}\r\n\
             Content-Length: 0\r\nConnection: close\r\n\r\n"
        );
        let mut socket = tokio::net::TcpStream::connect(gateway.address()).await.unwrap();
        socket.write_all(request.as_bytes()).await.unwrap();
        let mut response = String::new();
        socket.read_to_string(&mut response).await.unwrap();
        assert!(response.starts_with("HTTP/1.1 400 "), "{path}: {response}");
        assert!(response.contains("invalid_request_error"), "{path}: {response}");
    }
    assert_eq!(upstream.count(), 0);
    assert_eq!(used(&gateway, &key).await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_is_locked_is_503_and_recovers_alone() {
    let upstream = Upstream::start(|_| crate::common::json_response("{}")).await;
    let gateway = Gateway::before(&upstream.base_url());
    let key = gateway.create_key(json!({"daily_limit": 100_000})).await;
    assert_eq!(post(&gateway, &key).await.status, 200);

    let other = rusqlite::Connection::open(gateway.dir().join("quota.db")).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    // What the journal holds is counted, until it is known that it cannot be checkpointed.
    eventually("the lock is noticed", || async { post(&gateway, &key).await.status != 200 }).await;
    let rejected = post(&gateway, &key).await;
    assert_error(&rejected, 503, "server_error", "store_unavailable");
    assert_eq!(rejected.header("retry-after"), "1");
    let reached = upstream.count();
    assert_eq!(post(&gateway, &key).await.status, 503);
    assert_eq!(upstream.count(), reached, "nothing is forwarded once the failure is known");
    assert_eq!(Client::http1().get(&gateway.url("/healthz")).await.status, 200);
    assert_eq!(Client::http1().get(&gateway.url("/readyz")).await.status, 503);

    other.execute_batch("ROLLBACK").unwrap();
    eventually("service again", || async { post(&gateway, &key).await.status == 200 }).await;
    assert_eq!(used(&gateway, &key).await, upstream.count(), "completed requests are counted");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_with_a_bad_limit_is_never_served() {
    let gateway = Gateway::demo();
    let other = rusqlite::Connection::open(gateway.dir().join("quota.db")).unwrap();
    for (number, limit) in ["'many'", "-1", "1.5", "1000000001"].into_iter().enumerate() {
        let key = format!("trial-key-bad-limit-{number}");
        let sql = format!("INSERT INTO api_keys (key, daily_limit) VALUES ('{key}', {limit})");
        other.execute_batch(&sql).unwrap();
        assert_error(&post(&gateway, &key).await, 503, "server_error", "key_misconfigured");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upstream_that_cannot_be_reached_costs_nothing() {
    let gateway = Gateway::before(&format!("http://127.0.0.1:{}/v1", free_port()));
    let key = gateway.create_key(json!({"daily_limit": 5})).await;
    let response = post(&gateway, &key).await;
    assert_error(&response, 502, "upstream_error", "upstream_unreachable");
    assert_eq!(response.header("x-ratelimit-remaining-requests"), "5");
    assert_eq!(used(&gateway, &key).await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upstream_that_speaks_no_http_is_a_protocol_error() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let gateway = Gateway::before(&format!("http://{}/v1", listener.local_addr().unwrap()));
    let key = gateway.create_key(json!({"daily_limit": 5})).await;
    let garbage = async {
        let (mut socket, _) = listener.accept().await.unwrap();
        socket.write_all(b"what do you want?\r\n\r\n").await.unwrap();
    };
    let (response, ()) = tokio::join!(post(&gateway, &key), garbage);
    assert_error(&response, 502, "upstream_error", "upstream_protocol");
    assert_eq!(used(&gateway, &key).await, 1, "it may have done the work");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upstream_that_rejects_the_sponsor_costs_nothing() {
    for status in [401, 402, 403] {
        let (_upstream, gateway, key) = before(status, ("www-authenticate", "Bearer")).await;
        let response = post(&gateway, &key).await;
        assert_error(&response, 502, "upstream_error", "upstream_credentials");
        assert_eq!(response.header("www-authenticate"), "");
        assert!(!response.text().contains("sponsor"));
        assert_eq!(used(&gateway, &key).await, 0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upstream_that_limits_the_sponsor_costs_nothing() {
    let (_upstream, gateway, key) = before(429, ("retry-after", "17")).await;
    let response = post(&gateway, &key).await;
    assert_error(&response, 503, "upstream_error", "upstream_rate_limited");
    assert_eq!(response.header("retry-after"), "17");
    assert_eq!(used(&gateway, &key).await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_waits_too_long_for_the_upstream_costs_nothing() {
    let upstream = Upstream::holding(|_| crate::common::json_response("{}")).await;
    let gateway = GatewayCommand::new()
        .env("UPSTREAM_BASE_URL", upstream.base_url())
        .env("UPSTREAM_MAX_IN_FLIGHT", "1")
        .env("UPSTREAM_WAIT_TIMEOUT", "200ms")
        .start();
    let (key, other) = (gateway.create_key(json!({})).await, gateway.create_key(json!({})).await);
    let mut running = tokio::task::JoinSet::new();
    let (url, holder) = (gateway.url("/v1/chat/completions"), key.clone());
    running.spawn(async move { Client::http1().post_as(&holder, &url, &json!({})).await });
    upstream.reached_by(1).await;
    let rejected = post(&gateway, &other).await;
    assert_error(&rejected, 503, "upstream_error", "upstream_rate_limited");
    assert_eq!(rejected.header("retry-after"), "1");
    assert_eq!(rejected.header("x-should-retry"), "");
    // Requests that cost no unit need a place, too.
    let free = Client::http1().get_as(&other, &gateway.url("/v1/models/m")).await;
    assert_error(&free, 503, "upstream_error", "upstream_rate_limited");
    assert_eq!(used(&gateway, &other).await, 0);
    let figures = Figures::of(&gateway).await;
    let labels = [("outcome", "rejected"), ("reason", "upstream_rate_limited")];
    assert_eq!(figures.sum("tower_quota_requests_total", &labels), 1.0, "it is no failure");
    assert_eq!(upstream.count(), 1);

    // A client that leaves gives its place back.
    running.shutdown().await;
    upstream.release(10);
    eventually("a place", || async { post(&gateway, &other).await.status == 200 }).await;
    assert_eq!(used(&gateway, &key).await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upstream_that_redirects_is_not_followed() {
    for status in [301, 302, 307, 308] {
        let (upstream, gateway, key) = before(status, ("location", "http://127.0.0.1:1/")).await;
        let response = post(&gateway, &key).await;
        assert_error(&response, 502, "upstream_error", "upstream_redirect");
        assert_eq!(response.header("location"), "");
        assert_eq!(upstream.count(), 1);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upstream_that_switches_protocols_is_a_protocol_error() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let gateway = Gateway::before(&format!("http://{}/v1", listener.local_addr().unwrap()));
    let key = gateway.create_key(json!({"daily_limit": 5})).await;
    let switching = async {
        let (mut socket, _) = listener.accept().await.unwrap();
        let head = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n";
        socket.write_all(head).await.unwrap();
        socket
    };
    let (response, _socket) = tokio::join!(post(&gateway, &key), switching);
    assert_error(&response, 502, "upstream_error", "upstream_protocol");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upstream_that_fails_gives_the_unit_back_up_to_the_limit() {
    for status in [500, 502, 503, 529] {
        let (upstream, gateway, key) = before(status, ("retry-after", "3")).await;
        for _ in 0..5 {
            let response = post(&gateway, &key).await;
            assert_error(&response, status, "upstream_error", "upstream_failed");
            assert_eq!(response.header("retry-after"), "3");
            assert!(!response.text().contains("sponsor"), "the upstream's text stays inside");
        }
        assert_eq!(used(&gateway, &key).await, 0);
        for _ in 0..5 {
            post(&gateway, &key).await;
        }
        assert_eq!(used(&gateway, &key).await, 5);
        assert_eq!(post(&gateway, &key).await.status, 429);
        assert_eq!(upstream.count(), 10);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upstream_that_is_too_slow_times_out_and_is_charged() {
    let upstream = Upstream::holding(|_| crate::common::json_response("{}")).await;
    let gateway = GatewayCommand::new()
        .env("UPSTREAM_BASE_URL", upstream.base_url())
        .env("UPSTREAM_HEAD_TIMEOUT", "200ms")
        .start();
    let key = gateway.create_key(json!({"daily_limit": 5})).await;
    let response = post(&gateway, &key).await;
    assert_error(&response, 504, "upstream_error", "upstream_timeout");
    assert_eq!(used(&gateway, &key).await, 1, "it may have done the work");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_4xx_response_is_forwarded_with_the_sponsors_key_masked() {
    let (_upstream, gateway, key) = before(422, ("x-upstream", "yes")).await;
    let response = post(&gateway, &key).await;
    assert_eq!((response.status.as_u16(), response.header("x-upstream")), (422, "yes"));
    assert_eq!(response.text().len(), "upstream says sk-sponsor-secret".len());
    assert!(!response.text().contains("sponsor-secret"), "{response:?}");
    assert_eq!(used(&gateway, &key).await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn unknown_paths_are_404_and_wrong_methods_405() {
    let gateway = Gateway::demo();
    let client = Client::http1();
    let unknown = client.get(&gateway.url("/nothing/here")).await;
    assert_error(&unknown, 404, "invalid_request_error", "not_found");
    let wrong = client.send(Method::DELETE, &gateway.url("/healthz"), &[], "").await;
    assert_error(&wrong, 405, "invalid_request_error", "method_not_allowed");
    assert!(wrong.header("allow").contains("GET"), "{wrong:?}");
    let admin = client.get(&gateway.url("/admin/keys")).await;
    assert_eq!(admin.status, 401);
    assert_eq!(client.get_as(ADMIN_TOKEN, &gateway.url("/admin/keys")).await.status, 200);
}
