//! `/metrics` reports exactly what was sent, and identifies no key or client.

use std::{collections::BTreeMap, fs, sync::Mutex};

use crate::common::{
    Client, Figures, Gateway, GatewayCommand, StubBody, Upstream, chat_json, eventually, full,
    json_response, streaming,
};
use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body_util::BodyExt;
use serde_json::{Value, json};
use tokio::{net::TcpListener, sync::mpsc::UnboundedSender};
use tower::BoxError;

type Feeder = UnboundedSender<Result<Bytes, BoxError>>;

const REQUESTS: &str = "tower_quota_requests_total";
const IN_FLIGHT: &str = "tower_quota_requests_in_flight";
const STREAM: &str = "data: {\"model\":\"deepseek-chat\",\"choices\":[{}]}\n\n\
    data: {\"model\":\"deepseek-chat\",\"choices\":[],\"usage\":{\"prompt_tokens\":10,\
    \"completion_tokens\":20,\"total_tokens\":30,\"prompt_tokens_details\":{\"cached_tokens\":4},\
    \"completion_tokens_details\":{\"reasoning_tokens\":7}}}\n\ndata: [DONE]\n\n";

/// Ends of streams that are kept open.
static OPEN: Mutex<Vec<Feeder>> = Mutex::new(Vec::new());

fn respond(request: Request<Bytes>) -> Response<StubBody> {
    let stream = |piece: &'static str, open: bool| {
        let (feeder, body) = streaming();
        feeder.send(Ok(Bytes::from_static(piece.as_bytes()))).unwrap();
        if open {
            OPEN.lock().unwrap().push(feeder);
        }
        Response::builder().header("content-type", "text/event-stream").body(body).unwrap()
    };
    let status = |status: u16| {
        let mut response = json_response("{}");
        *response.status_mut() = StatusCode::from_u16(status).unwrap();
        response
    };
    match request.uri().path() {
        "/v1/stream" => stream(STREAM, false),
        "/v1/open" => stream("data: {}\n\n", true),
        "/v1/silent" => Response::new(full("no tokens")),
        // Some servers report the model of the request.
        "/v1/echo" => {
            let request: Value = serde_json::from_slice(request.body()).unwrap();
            let mut reported = chat_json();
            reported["model"] = request["model"].clone();
            json_response(reported.to_string())
        }
        path => match path.strip_prefix("/v1/status/") {
            Some(number) => status(number.parse().unwrap()),
            None => json_response(chat_json().to_string()),
        },
    }
}

/// What was sent, by outcome and reason.
#[derive(Default)]
struct Sent(BTreeMap<(String, String), f64>);

impl Sent {
    fn note(&mut self, outcome: &str, reason: &str) {
        *self.0.entry((outcome.to_owned(), reason.to_owned())).or_default() += 1.0;
    }

    /// The figures, once they are what was sent.
    async fn reported(&self, gateway: &Gateway) -> Figures {
        eventually("all is counted", || async {
            let figures = Figures::of(gateway).await;
            figures.by(REQUESTS, ["outcome", "reason"]) == self.0
                && figures.sum(IN_FLIGHT, &[]) == 0.0
        })
        .await;
        Figures::of(gateway).await
    }
}

async fn post(gateway: &Gateway, key: &str, path: &str) -> StatusCode {
    let (url, authorization) = (gateway.url(path), format!("Bearer {key}"));
    let headers = [("authorization", authorization.as_str())];
    let body = json!({"model": "deepseek-chat"}).to_string();
    let response = Client::http1().open(Method::POST, &url, &headers, body).await.unwrap();
    let status = response.status();
    // Broken bodies are part of the test.
    let _ = response.into_body().collect().await;
    status
}

async fn in_flight(gateway: &Gateway, expected: f64) {
    eventually("requests are under way", || async {
        Figures::of(gateway).await.sum(IN_FLIGHT, &[]) == expected
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_outcome_is_counted_once() {
    let upstream = Upstream::start(respond).await;
    let gateway =
        GatewayCommand::before(upstream.base_url()).env("MAX_IN_FLIGHT_PER_KEY", "1").start();
    let mut sent = Sent::default();
    let figures = sent.reported(&gateway).await;
    for (outcome, reason) in
        [("failed", "upstream_unreachable"), ("rejected", "insufficient_quota")]
    {
        assert_eq!(figures.sum(REQUESTS, &[("outcome", outcome), ("reason", reason)]), 0.0);
    }
    let key = gateway.create_key(json!({"label": "secret-label", "daily_limit": 20})).await;

    for path in ["/v1/chat/completions", "/v1/stream", "/v1/silent"] {
        assert_eq!(post(&gateway, &key, path).await, 200);
        sent.note("succeeded", "none");
    }
    for (status, reported, reason) in [
        (403, 502, "upstream_credentials"),
        (404, 404, "status_4xx"),
        (429, 503, "upstream_rate_limited"),
        (302, 502, "upstream_redirect"),
        (500, 500, "upstream_failed"),
    ] {
        assert_eq!(post(&gateway, &key, &format!("/v1/status/{status}")).await, reported);
        sent.note("failed", reason);
    }
    let authorization = format!("Bearer {key}");
    let credential = [("authorization", authorization.as_str())];
    let open = Client::http1();
    let url = gateway.url("/v1/open");
    let mut broken = open.open(Method::GET, &url, &credential, "").await.unwrap();
    broken.body_mut().frame().await.unwrap().unwrap();
    let feeder = OPEN.lock().unwrap().pop().unwrap();
    feeder.send(Err("broken".into())).unwrap();
    broken.into_body().collect().await.unwrap_err();
    sent.note("failed", "body_broken");

    let mut opened = open.open(Method::GET, &url, &credential, "").await.unwrap();
    opened.body_mut().frame().await.unwrap().unwrap();
    in_flight(&gateway, 1.0).await;
    assert_eq!(post(&gateway, &key, "/v1/x").await, 429);
    sent.note("rejected", "rate_limit_exceeded");
    drop((opened, open));
    sent.note("client_gone", "in_body");
    in_flight(&gateway, 0.0).await;

    let figures = sent.reported(&gateway).await;
    let charged = figures.sum("tower_quota_units_charged_total", &[]);
    assert_eq!(charged, gateway.used(&key).await as f64);
    assert_eq!(charged, 6.0);
    assert_eq!(figures.sum("tower_quota_units_refunded_total", &[]), 4.0);
    let model = ("model", "deepseek-chat");
    assert_eq!(figures.sum("tower_quota_tokens_total", &[("type", "prompt"), model]), 12.0);
    assert_eq!(figures.sum("tower_quota_tokens_total", &[("type", "completion"), model]), 23.0);
    assert_eq!(figures.sum("tower_quota_tokens_cached_total", &[model]), 4.0);
    assert_eq!(figures.sum("tower_quota_tokens_reasoning_total", &[model]), 7.0);
    assert_eq!(figures.sum("tower_quota_requests_without_tokens_total", &[]), 1.0);
    let bodies = json!({"model": "deepseek-chat"}).to_string().len() * 8;
    assert_eq!(figures.sum("tower_quota_request_body_bytes_total", &[]), bodies as f64);
    let ended = figures.sum("tower_quota_request_duration_seconds_count", &[]);
    assert_eq!(ended, sent.0.values().sum::<f64>());
    let heads = figures.sum("tower_quota_time_to_head_seconds_count", &[]);
    assert_eq!(heads, ended - 1.0, "all but the rejection");
    assert!(figures.sum("tower_quota_store_commit_duration_seconds_count", &[]) > 0.0);
    assert!(figures.sum("tower_quota_store_sync_duration_seconds_count", &[]) > 0.0);
    let upstreams = [("route", "upstream")];
    assert_eq!(figures.sum("tower_quota_http_responses_total", &upstreams), ended);
    assert_eq!(figures.sum("tower_quota_up", &[]), 1.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn rejections_are_counted_by_reason_without_identifying_anyone() {
    let upstream = Upstream::start(respond).await;
    let gateway = GatewayCommand::before(upstream.base_url()).start();
    let mut sent = Sent::default();
    let mut secrets = Vec::new();
    let mut issue = async |request: Value| {
        let made = gateway.admin(Method::POST, "/admin/keys", &request).await;
        let text = |field: &str| made[field].as_str().unwrap().to_owned();
        secrets.extend([text("key"), text("id"), text("label")]);
        (text("key"), format!("/admin/keys/{}", text("id")))
    };
    let (one, _) = issue(json!({"label": "one-a-day", "daily_limit": 1})).await;
    let (off, path) = issue(json!({"label": "switched-off"})).await;
    gateway.admin(Method::PATCH, &path, &json!({"disabled": true})).await;
    let (late, path) = issue(json!({"label": "too-late"})).await;
    gateway.admin(Method::PATCH, &path, &json!({"expires_at": "2020-01-01T00:00:00Z"})).await;
    let (odd, path) = issue(json!({"label": "odd-row"})).await;
    let file = rusqlite::Connection::open(gateway.dir().join("quota.db")).unwrap();
    let id = path.rsplit('/').next().unwrap();
    file.execute("UPDATE api_keys SET daily_limit = 'many' WHERE id = ?1", [id]).unwrap();

    let echo = json!({"model": one}).to_string();
    let headers = [("authorization", format!("Bearer {one}"))];
    let headers = headers.each_ref().map(|(name, value)| (*name, value.as_str()));
    let url = gateway.url("/v1/echo");
    assert_eq!(Client::http1().send(Method::POST, &url, &headers, echo).await.status, 200);
    sent.note("succeeded", "none");
    assert_eq!(post(&gateway, &one, "/v1/x").await, 429);
    sent.note("rejected", "insufficient_quota");
    for (key, status, reason) in [
        (&*off, 403, "key_disabled"),
        (&*late, 403, "key_expired"),
        ("trial-nobody", 401, "invalid_api_key"),
    ] {
        assert_eq!(post(&gateway, key, "/v1/x").await, status, "{reason}");
        sent.note("rejected", reason);
    }
    assert_eq!(Client::http1().get(&gateway.url("/v1/x")).await.status, 401);
    sent.note("rejected", "missing_api_key");
    let two = [headers[0], ("x-api-key", "another")];
    let url = gateway.url("/v1/x");
    assert_eq!(Client::http1().send(Method::GET, &url, &two, "").await.status, 400);
    sent.note("rejected", "conflicting_api_keys");
    eventually("the edit is seen", || async {
        let (limit, path) = (StatusCode::SERVICE_UNAVAILABLE, "/usage");
        Client::http1().get_as(&odd, &gateway.url(path)).await.status == limit
    })
    .await;
    assert_eq!(post(&gateway, &odd, "/v1/x").await, 503);
    sent.note("rejected", "key_misconfigured");

    let figures = sent.reported(&gateway).await;
    assert_eq!(figures.sum("tower_quota_tokens_total", &[("model", "unknown")]), 5.0);
    assert_eq!(figures.sum("tower_quota_store_up", &[]), 1.0);
    assert_eq!(figures.sum("tower_quota_keys", &[]), 4.0);
    for value in figures.label_values() {
        for secret in &secrets {
            assert!(!value.contains(secret.as_str()), "{value}");
        }
    }
    for percent in ["80", "95", "100"] {
        eventually("the key is near its limit", || async {
            let figures = Figures::of(&gateway).await;
            figures.sum("tower_quota_keys_near_limit", &[("percent", percent)]) == 1.0
        })
        .await;
    }
    assert_eq!(figures.sum("tower_quota_http_responses_total", &[("route", "admin")]), 6.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_silent_or_absent_upstream_and_an_unavailable_store_are_reported() {
    let silent = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let base = format!("http://{}/v1", silent.local_addr().unwrap());
    let gateway = GatewayCommand::before(base).env("UPSTREAM_HEAD_TIMEOUT", "1s").start();
    let key = gateway.create_key(json!({})).await;
    let mut sent = Sent::default();

    // The client leaves when its request has got to the upstream.
    let _held = tokio::select! {
        status = post(&gateway, &key, "/v1/x") => panic!("{status}"),
        accepted = silent.accept() => accepted.unwrap(),
    };
    sent.note("client_gone", "before_head");
    in_flight(&gateway, 0.0).await;
    let figures = Figures::of(&gateway).await;
    assert_eq!(figures.sum("tower_quota_units_charged_total", &[]), 1.0);
    assert_eq!(gateway.usage(&key).await["requests"]["failed"], 1, "whose it was is known");
    assert_eq!(post(&gateway, &key, "/v1/x").await, 504);
    sent.note("failed", "upstream_timeout");
    drop(silent);
    assert_eq!(post(&gateway, &key, "/v1/x").await, 502);
    sent.note("failed", "upstream_unreachable");
    sent.reported(&gateway).await;

    let (file, away) = (gateway.dir().join("quota.db"), gateway.dir().join("away.db"));
    fs::rename(&file, &away).unwrap();
    let store_is = async |up: f64| {
        eventually("the store is down, or up", || async {
            Figures::of(&gateway).await.sum("tower_quota_store_up", &[]) == up
        })
        .await;
    };
    store_is(0.0).await;
    assert_eq!(post(&gateway, &key, "/v1/x").await, 503);
    sent.note("rejected", "store_unavailable");
    fs::rename(&away, &file).unwrap();
    store_is(1.0).await;
    sent.reported(&gateway).await;
}
