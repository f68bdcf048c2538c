//! Every rejection that a holder can meet, over HTTP/1 and HTTP/2, of `GET`, `POST` and `HEAD`, as
//! OpenAI's and as Anthropic's clients read it: status, code, headers, and a body or none.

use std::net::SocketAddr;

use crate::common::{
    Client, CollectedResponse, Gateway, GatewayCommand, Rogue, Upstream, eventually, free_port,
    full,
};
use bytes::Bytes;
use http::{Method, Request, Response};
use serde_json::{Value, json};

/// Statuses and waits that the upstream responds with are in the path.
fn scripted(request: Request<Bytes>) -> Response<crate::common::StubBody> {
    let mut segments = request.uri().path().rsplit('/');
    let mut next = || segments.next().unwrap_or_default();
    let (coding, retry_after, status) = (next(), next().replace("%20", " "), next());
    let mut response = Response::builder().status(status).header("x-note", "between-us");
    if retry_after != "-" {
        response = response.header("retry-after", retry_after);
    }
    if coding != "-" {
        response = response.header("content-encoding", coding);
    }
    response.header("location", "/between-us").body(full("between-us: sk-sponsor-secret")).unwrap()
}

/// One kind of rejection.
#[derive(Clone, Copy)]
struct Row {
    name: &'static str,
    status: u16,
    /// OpenAI's type; Anthropic's follows from the status.
    kind: &'static str,
    code: &'static str,
    /// Whether it says `x-should-retry: false`.
    is_final: bool,
    retry_after: &'static str,
    /// The name of the limit that it is for.
    policy: Option<&'static str>,
}

const fn row(name: &'static str, status: u16, kind: &'static str, code: &'static str) -> Row {
    Row { name, status, kind, code, is_final: true, retry_after: "", policy: None }
}

impl Row {
    /// The same request may succeed later, after this time if it says one.
    const fn passes(mut self, retry_after: &'static str) -> Self {
        self.is_final = false;
        self.retry_after = retry_after;
        self
    }

    const fn policy(mut self, policy: &'static str) -> Self {
        self.policy = Some(policy);
        self
    }

    const fn after(mut self, retry_after: &'static str) -> Self {
        self.retry_after = retry_after;
        self
    }

    /// Anthropic's type.
    fn anthropic_kind(&self) -> &'static str {
        match self.status {
            401 => "authentication_error",
            402 => "billing_error",
            403 => "permission_error",
            404 => "not_found_error",
            413 => "request_too_large",
            429 => "rate_limit_error",
            500.. => "api_error",
            _ => "invalid_request_error",
        }
    }
}

const INVALID: &str = "invalid_request_error";
const PERMISSION: &str = "permission_error";
const SERVER: &str = "server_error";
const UPSTREAM: &str = "upstream_error";
const METHODS: [Method; 3] = [Method::GET, Method::POST, Method::HEAD];

/// A request that is rejected, whatever sends it.
struct Provoked<'a> {
    gateway: SocketAddr,
    path: &'a str,
    key: Option<&'a str>,
    headers: &'a [(&'a str, &'a str)],
    body: &'a [u8],
}

impl<'a> Provoked<'a> {
    fn of(gateway: &Gateway, path: &'a str, key: &'a str) -> Self {
        Self { gateway: gateway.address(), path, key: Some(key), headers: &[], body: b"{}" }
    }

    /// Provokes the rejection in all ways.
    async fn is(&self, row: Row) {
        for http2 in [false, true] {
            for method in METHODS {
                self.sent(http2, &method, row).await;
            }
        }
    }

    async fn sent(&self, http2: bool, method: &Method, row: Row) {
        for anthropic in [false, true] {
            let client = if http2 { Client::http2() } else { Client::http1() };
            let bearer = self.key.map(|key| format!("Bearer {key}"));
            let mut headers = self.headers.to_vec();
            headers.extend(bearer.as_deref().map(|bearer| ("authorization", bearer)));
            headers.extend(anthropic.then_some(("anthropic-version", "2023-06-01")));
            let url = format!("http://{}{}", self.gateway, self.path);
            let response = client.send(method.clone(), &url, &headers, self.body.to_vec()).await;
            let way = format!("{}: {method}, HTTP/2 {http2}, Anthropic {anthropic}", row.name);
            check(&way, &row, &response, method, anthropic);
        }
    }
}

#[track_caller]
fn check(way: &str, row: &Row, response: &CollectedResponse, method: &Method, anthropic: bool) {
    assert_eq!(response.status, row.status, "{way}: {response:?}");
    let should_retry = if row.is_final { "false" } else { "" };
    let id = response.header("x-request-id");
    for (name, value) in [
        ("x-should-retry", should_retry),
        ("retry-after", row.retry_after),
        ("cache-control", "no-store"),
        ("content-type", "application/json"),
        ("location", ""),
        ("x-note", if row.code == "upstream_refused" { "between-us" } else { "" }),
    ] {
        assert_eq!(response.header(name), value, "{way}, {name}: {response:?}");
    }
    assert!(!id.is_empty(), "{way}: {response:?}");
    if method == Method::HEAD {
        assert!(response.body.is_empty(), "{way}: {response:?}");
        return;
    }
    let mut object = response.json();
    let message = object["error"]["message"].take();
    assert!(message.as_str().is_some_and(|message| message.len() > 9), "{way}: {response:?}");
    let text = response.text();
    assert!(!text.contains("between-us") && !text.contains("sk-sponsor"), "{way}: {response:?}");
    let mut expected = match anthropic {
        false => json!({"error": {
            "message": null, "type": row.kind, "param": null, "code": row.code,
        }}),
        true => json!({
            "type": "error",
            "error": {
                "type": row.anthropic_kind(), "message": null, "param": null, "code": row.code,
            },
            "request_id": id,
        }),
    };
    if let Some(policy) = row.policy {
        expected["error"]["policy"] = json!(policy);
    }
    assert_eq!(object, expected, "{way}");
}

/// A gateway before the scripted upstream, and a key without limit.
async fn scene() -> (Upstream, Gateway, String) {
    let upstream = Upstream::start(scripted).await;
    let gateway = GatewayCommand::before(upstream.base_url()).start();
    let key = gateway.create_key(json!({"daily_limit": 0})).await;
    (upstream, gateway, key)
}

#[tokio::test(flavor = "multi_thread")]
async fn key_codes_are_sent_over_http1_and_http2() {
    let (upstream, gateway, key) = scene().await;
    let path = "/v1/chat/completions";
    let missing = Provoked { key: None, ..Provoked::of(&gateway, path, "") };
    missing.is(row("no key", 401, INVALID, "missing_api_key")).await;
    let unknown = Provoked::of(&gateway, path, "trial-nobody-manual");
    unknown.is(row("an unknown key", 401, INVALID, "invalid_api_key")).await;
    let other = [("x-api-key", "another")];
    let two = Provoked { headers: &other, ..Provoked::of(&gateway, path, &key) };
    two.is(row("two keys", 400, INVALID, "conflicting_api_keys")).await;

    let record = format!("/admin/keys/{key}");
    let change = async |change: Value| gateway.admin(Method::PATCH, &record, &change).await;
    let rejected = Provoked::of(&gateway, path, &key);
    change(json!({"expires_at": "2020-01-01T00:00:00Z"})).await;
    rejected.is(row("an expired key", 403, PERMISSION, "key_expired")).await;
    change(json!({"disabled": true})).await;
    rejected.is(row("a disabled key", 403, PERMISSION, "key_disabled")).await;
    gateway.admin(Method::DELETE, &record, &Value::Null).await;
    rejected.is(row("a deleted key", 401, INVALID, "invalid_api_key")).await;

    let bad = "INSERT INTO api_keys (key, daily_limit) VALUES ('trial-key-bad-limit', 'many')";
    rusqlite::Connection::open(gateway.dir().join("quota.db")).unwrap().execute_batch(bad).unwrap();
    let misconfigured = Provoked::of(&gateway, path, "trial-key-bad-limit");
    misconfigured.is(row("a bad limit", 503, SERVER, "key_misconfigured").passes("")).await;
    assert_eq!(upstream.count(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn quota_codes_are_sent_over_http1_and_http2() {
    for (setting, status) in [("", 429), ("429", 429), ("402", 402)] {
        let upstream = Upstream::start(|_| crate::common::json_response("{}")).await;
        let gateway = GatewayCommand::before(upstream.base_url())
            .env("QUOTA_EXHAUSTED_STATUS", setting)
            .start();
        let key = gateway.create_key(json!({"daily_limit": 1})).await;
        let path = "/v1/chat/completions";
        let admitted = Client::http1().post_as(&key, &gateway.url(path), &json!({})).await;
        assert_eq!(admitted.status, 200);
        let used_up = row("the day is used up", status, "insufficient_quota", "insufficient_quota");
        Provoked::of(&gateway, path, &key).is(used_up.policy("daily")).await;
        let rejected = Client::http1().post_as(&key, &gateway.url(path), &json!({})).await;
        assert_eq!(rejected.header("x-ratelimit-remaining-requests"), "0");
        assert!(rejected.text().contains("It resets at "), "{rejected:?}");
        assert_eq!(upstream.count(), 1);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn concurrency_codes_are_sent_over_http1_and_http2() {
    let upstream = Upstream::holding(|_| crate::common::json_response("{}")).await;
    let gateway =
        GatewayCommand::before(upstream.base_url()).env("MAX_IN_FLIGHT_PER_KEY", "1").start();
    let key = gateway.create_key(json!({})).await;
    let path = "/v1/chat/completions";
    let (url, holder) = (gateway.url(path), key.clone());
    let mut running = tokio::task::JoinSet::new();
    running.spawn(async move { Client::http1().post_as(&holder, &url, &json!({})).await });
    upstream.reached_by(1).await;
    let limited = row("too many at once", 429, "rate_limit_error", "rate_limit_exceeded");
    Provoked::of(&gateway, path, &key).is(limited.passes("1").policy("in_flight")).await;
    upstream.release(1);
    assert_eq!(running.join_next().await.unwrap().unwrap().status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn request_codes_are_sent_over_http1_and_http2() {
    let upstream = Upstream::start(scripted).await;
    let gateway = GatewayCommand::before(upstream.base_url()).env("MAX_BODY_BYTES", "100").start();
    let key = gateway.create_key(json!({"daily_limit": 1})).await;
    let large = Provoked { body: &[b'x'; 101], ..Provoked::of(&gateway, "/v1/x", &key) };
    large.is(row("too large", 413, INVALID, "request_too_large")).await;
    for (path, row) in [
        ("/v1//x", row("an empty segment", 400, INVALID, "invalid_path")),
        ("/v1/%2e%2e/admin", row("a dot segment", 400, INVALID, "invalid_path")),
        ("/nothing/here", row("an unknown path", 404, INVALID, "not_found")),
    ] {
        Provoked::of(&gateway, path, &key).is(row).await;
    }
    let wrong = row("a wrong method", 405, INVALID, "method_not_allowed");
    for http2 in [false, true] {
        for path in ["/usage", "/healthz"] {
            Provoked::of(&gateway, path, &key).sent(http2, &Method::DELETE, wrong).await;
        }
        let trace = Provoked { body: b"", ..Provoked::of(&gateway, "/v1/x", &key) };
        trace.sent(http2, &Method::TRACE, wrong).await;
    }
    let long = format!("/v1/{}", "x".repeat(9000));
    for client in [Client::http1(), Client::http2()] {
        // Whose API it was for is not read of a head that is too long.
        let response = client.get(&gateway.url(&long)).await;
        let long = row("a long target", 414, INVALID, "uri_too_long");
        check(long.name, &long, &response, &Method::GET, false);
    }
    // HTTP/2 has no upgrades of this kind.
    let upgrade = [("connection", "upgrade"), ("upgrade", "websocket")];
    let websocket = row("a websocket", 501, INVALID, "upgrade_not_supported");
    let provoked = Provoked { headers: &upgrade, ..Provoked::of(&gateway, "/v1/x", &key) };
    provoked.sent(false, &Method::GET, websocket).await;
    assert_eq!((upstream.count(), gateway.used(&key).await), (0, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn store_codes_are_sent_over_http1_and_http2() {
    let (upstream, gateway, key) = scene().await;
    let limited = gateway.create_key(json!({"daily_limit": 100_000})).await;
    let path = "/v1/x/200/-/-";
    let other = rusqlite::Connection::open(gateway.dir().join("quota.db")).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let url = gateway.url(path);
    for key in [&key, &limited] {
        eventually("the lock is noticed", || async {
            Client::http1().post_as(key, &url, &json!({})).await.status == 503
        })
        .await;
    }
    let reached = upstream.count();
    let down = row("no store", 503, SERVER, "store_unavailable").passes("1");
    Provoked::of(&gateway, path, &limited).is(down).await;
    assert_eq!(upstream.count(), reached);
}

#[tokio::test(flavor = "multi_thread")]
async fn upstream_codes_are_sent_over_http1_and_http2() {
    let (_upstream, gateway, key) = scene().await;
    let rejected =
        |status| row("the sponsor is rejected", status, UPSTREAM, "upstream_credentials");
    let limited = row("the sponsor is limited", 503, UPSTREAM, "upstream_rate_limited");
    let redirect = row("a redirect", 502, UPSTREAM, "upstream_redirect");
    let failed = |status| row("a failure", status, UPSTREAM, "upstream_failed");
    for (path, row) in [
        ("403/7/-", rejected(502)),
        ("429/-/-", limited.passes("")),
        ("429/17/-", limited.passes("17")),
        ("429/60/-", limited.passes("60")),
        ("429/61/-", limited.after("60")),
        ("429/3600/-", limited.after("60")),
        ("429/Sat, 06 Nov 2094 08:49:37 GMT/-", limited.after("60")),
        ("429/between-us/-", limited.passes("")),
        ("301/3/-", redirect),
        ("304/-/-", redirect),
        ("308/-/-", redirect),
        ("500/-/-", failed(500).passes("")),
        ("501/-/-", failed(501).passes("")),
        ("503/3/-", failed(503).passes("3")),
        ("504/-/-", failed(504).passes("")),
        ("529/-/gzip", failed(529).passes("")),
        ("503/3600/-", failed(503).after("60")),
        ("400/-/br", row("a coded rejection", 400, UPSTREAM, "upstream_refused")),
    ] {
        let path = format!("/v1/x/{}", path.replace(' ', "%20"));
        let provoked = Provoked::of(&gateway, &path, &key);
        match row.code {
            // One of HEAD has no body that could hide anything, and passes.
            "upstream_refused" => {
                for http2 in [false, true] {
                    provoked.sent(http2, &Method::POST, row).await;
                }
            }
            _ => provoked.is(row).await,
        }
    }
    // These are remembered.
    for status in [401, 402] {
        let (_upstream, gateway, key) = scene().await;
        let path = format!("/v1/x/{status}/3600/-");
        Provoked::of(&gateway, &path, &key).is(rejected(502)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn missing_response_codes_are_sent_over_http1_and_http2() {
    let closed = format!("http://127.0.0.1:{}/v1", free_port());
    let gateway = GatewayCommand::before(closed).start();
    let key = gateway.create_key(json!({"daily_limit": 0})).await;
    let unreachable = row("nobody is there", 502, UPSTREAM, "upstream_unreachable");
    Provoked::of(&gateway, "/v1/x", &key).is(unreachable.passes("")).await;

    let rogue = Rogue::start().await;
    let gateway =
        GatewayCommand::before(rogue.base_url()).env("UPSTREAM_HEAD_TIMEOUT", "1s").start();
    let key = gateway.create_key(json!({"daily_limit": 0})).await;
    let nonsense = row("nonsense", 502, UPSTREAM, "upstream_protocol").passes("");
    let nonsense_sent = Provoked { body: b"nonsense", ..Provoked::of(&gateway, "/v1/x", &key) };
    let slow = row("no head in time", 504, UPSTREAM, "upstream_timeout");
    let slow_sent = Provoked { body: b"hang", ..Provoked::of(&gateway, "/v1/x", &key) };
    for http2 in [false, true] {
        nonsense_sent.sent(http2, &Method::POST, nonsense).await;
        slow_sent.sent(http2, &Method::POST, slow).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn anthropic_paths_get_anthropic_errors() {
    let gateway = Gateway::demo();
    for path in ["/v1/messages", "/messages", "/v1/messages/batches?limit=2"] {
        let response = Client::http1().get_as("trial-nobody", &gateway.url(path)).await;
        let object = response.json();
        assert_eq!(object["type"], "error", "{path}: {response:?}");
        assert_eq!(object["error"]["type"], "authentication_error", "{path}: {response:?}");
        assert_eq!(object["request_id"], response.header("x-request-id"), "{path}");
    }
    let response =
        Client::http1().get_as("trial-nobody", &gateway.url("/v1/threads/t/messages")).await;
    assert_eq!(response.json()["type"], Value::Null, "that is OpenAI's");
}

/// The admin API and the pages for holders say it, too.
#[tokio::test(flavor = "multi_thread")]
async fn the_gateways_own_paths_forbid_retries() {
    let gateway = Gateway::demo();
    for (method, path, status) in [
        (Method::GET, "/admin/keys", 401),
        (Method::PUT, "/admin/keys", 401),
        (Method::GET, "/metrics", 401),
        (Method::GET, "/usage", 401),
        (Method::PATCH, "/claim", 405),
        (Method::GET, "/nothing", 404),
    ] {
        for client in [Client::http1(), Client::http2()] {
            let response = client.send(method.clone(), &gateway.url(path), &[], "").await;
            assert_eq!(response.status, status, "{path}: {response:?}");
            assert_eq!(response.header("x-should-retry"), "false", "{path}: {response:?}");
            assert_eq!(response.header("retry-after"), "", "{path}: {response:?}");
        }
    }
}
