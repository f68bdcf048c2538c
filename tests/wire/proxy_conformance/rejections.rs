//! Requests that the gateway rejects before the upstream sees them and any unit is charged.

use serde_json::json;

use super::{
    common::{Client, Gateway},
    http1,
    message::{Message, PROTOCOLS, Protocol, exchange},
    upstream::Upstream,
};

/// A gateway, its upstream, and a key with five requests a day.
struct Scene {
    upstream: Upstream,
    gateway: Gateway,
    key: String,
}

impl Scene {
    async fn new() -> Self {
        let upstream = Upstream::responding(Protocol::Http1, Message::new("200")).await;
        let gateway = Gateway::before(&format!("{}/v1", upstream.url));
        let key = gateway.create_key(json!({"daily_limit": 5})).await;
        Self { upstream, gateway, key }
    }

    fn request(&self, start: &str) -> Message {
        Message::new(start).header("authorization", &format!("Bearer {}", self.key))
    }

    /// Sends these lines and the key, and reads until the gateway closes.
    async fn raw(&self, lines: &str) -> String {
        let head = format!("{lines}Authorization: Bearer {}\r\n\r\n", self.key);
        http1::raw(&self.gateway.url(""), head).await
    }

    /// Nothing has reached the upstream, and nothing is counted.
    async fn is_untouched(&mut self) {
        self.upstream.saw_no_more();
        let usage = Client::http1().get_as(&self.key, &self.gateway.url("/usage")).await.json();
        assert_eq!(usage["used"], 0);
    }
}

/// Asserts that a single response was read until the end: an error object, after which the gateway closed.
#[track_caller]
fn assert_closing(response: &str, status: &str, code: &str) {
    assert!(response.starts_with(&format!("HTTP/1.1 {status} ")), "{response}");
    assert_eq!(response.matches("HTTP/1.1 ").count(), 1, "{response}");
    for part in [&*format!("\"code\":\"{code}\""), "cache-control: no-store", "x-request-id: "] {
        assert!(response.contains(part), "{part}: {response}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_repeated_or_malformed_host_closes_the_connection() {
    let mut scene = Scene::new().await;
    for hosts in ["", "Host: a\r\nHost: a\r\n", "Host: a b\r\n", "Host: u@a\r\n", "Host: \r\n"] {
        let response = scene.raw(&format!("GET /v1/x HTTP/1.1\r\n{hosts}")).await;
        assert_closing(&response, "400", "invalid_host");
    }
    for (authority, host) in [("a", "b"), ("u@a", "")] {
        let mut request = scene.request("GET /v1/x").header(":authority", authority);
        if !host.is_empty() {
            request = request.header("host", host);
        }
        let response = exchange(Protocol::Http2, &scene.gateway.url(""), &request).await;
        assert_eq!((&*response.start, &*response.code()), ("400", "invalid_host"));
    }
    scene.is_untouched().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bytes_after_an_ambiguous_request_are_not_read() {
    let mut scene = Scene::new().await;
    let smuggled = "GET /v1/smuggled HTTP/1.1\r\nHost: a\r\n";
    for framing in [
        "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n",
        "Content-Length: 0\r\nContent-Length: 5\r\n\r\n",
    ] {
        let lines = format!("POST /v1/x HTTP/1.1\r\nHost: a\r\n{framing}{smuggled}");
        assert_closing(&scene.raw(&lines).await, "400", "ambiguous_framing");
    }
    scene.is_untouched().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn trace_and_connect_are_rejected() {
    let mut scene = Scene::new().await;
    let trace = scene.raw("TRACE /v1/x HTTP/1.1\r\nHost: a\r\n").await;
    assert_closing(&trace, "405", "method_not_allowed");
    let connect = scene.raw("CONNECT a:80 HTTP/1.1\r\nHost: a:80\r\n").await;
    assert_closing(&connect, "400", "invalid_target");
    let trace = scene.request("TRACE /v1/x");
    let response = exchange(Protocol::Http2, &scene.gateway.url(""), &trace).await;
    assert_eq!((&*response.start, &*response.code()), ("405", "method_not_allowed"));
    scene.is_untouched().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn websockets_are_not_supported() {
    let mut scene = Scene::new().await;
    let request = scene.request("GET /v1/realtime").headers(&[
        ("connection", "Upgrade"),
        ("upgrade", "websocket"),
        ("sec-websocket-version", "13"),
        ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
    ]);
    let response = exchange(Protocol::Http1, &scene.gateway.url(""), &request).await;
    assert_eq!((&*response.start, &*response.code()), ("501", "upgrade_not_supported"));
    scene.is_untouched().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_in_the_url_is_no_credential() {
    let mut scene = Scene::new().await;
    for protocol in PROTOCOLS {
        for name in ["api_key", "key", "access_token"] {
            let request = Message::new(&format!("GET /v1/x?{name}={}", scene.key));
            let response = exchange(protocol, &scene.gateway.url(""), &request).await;
            assert_eq!((&*response.start, &*response.code()), ("401", "missing_api_key"));
        }
    }
    scene.is_untouched().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn targets_and_heads_are_limited_in_size() {
    let mut scene = Scene::new().await;
    let url = scene.gateway.url("");
    let target = format!("GET /v1/{} HTTP/1.1\r\nHost: a\r\n", "x".repeat(9_000));
    assert_closing(&scene.raw(&target).await, "414", "uri_too_long");
    let long = format!("GET /v1/x HTTP/1.1\r\nHost: a\r\nx-long: {}\r\n", "x".repeat(70_000));
    assert_closing(&scene.raw(&long).await, "431", "headers_too_large");
    let many = format!("GET /v1/x HTTP/1.1\r\nHost: a\r\n{}", "x-many: 1\r\n".repeat(101));
    assert_closing(&scene.raw(&many).await, "431", "headers_too_large");

    let target = scene.request(&format!("GET /v1/{}", "x".repeat(9_000)));
    let response = exchange(Protocol::Http2, &url, &target).await;
    assert_eq!((&*response.start, &*response.code()), ("414", "uri_too_long"));
    let many =
        (0..101).fold(scene.request("GET /v1/x"), |request, _| request.header("x-many", "1"));
    let response = exchange(Protocol::Http2, &url, &many).await;
    assert_eq!((&*response.start, &*response.code()), ("431", "headers_too_large"));
    let long = scene.request("GET /v1/x").header("x-long", &"x".repeat(70_000));
    // hyper's HTTP/2 server rejects this one itself, without a body.
    assert_eq!(exchange(Protocol::Http2, &url, &long).await.start, "431");
    scene.is_untouched().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rejections_are_not_cached_and_have_a_request_id() {
    let scene = Scene::new().await;
    for protocol in PROTOCOLS {
        for (start, status) in [
            ("GET /healthz", "200"),
            ("GET /readyz", "200"),
            ("GET /usage", "200"),
            ("GET /nothing", "404"),
            ("PUT /healthz", "405"),
            ("GET /metrics", "401"),
            ("GET /admin/keys", "401"),
            ("GET /v1//x", "400"),
        ] {
            let response = exchange(protocol, &scene.gateway.url(""), &scene.request(start)).await;
            assert_eq!(response.start, status, "{start}");
            assert_eq!(response.one("cache-control"), "no-store", "{start}");
            assert!(!response.one("x-request-id").is_empty(), "{start}");
        }
        let named = scene.request("GET /v1/x").header("x-request-id", "named-by-the-client");
        let response = exchange(protocol, &scene.gateway.url(""), &named).await;
        assert_eq!(
            (&*response.start, response.one("x-request-id")),
            ("200", "named-by-the-client")
        );
    }
}
