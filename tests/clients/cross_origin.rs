//! Pages of other origins in browsers: with `CORS_ALLOW_ORIGINS` they use the API, without it they
//! do not, and the admin API is none of theirs.

use std::sync::Mutex;

use crate::common::{
    Client, CollectedResponse, Gateway, GatewayCommand, Upstream, chat_json, full, json_response,
    streaming,
};
use http::{Method, Response};
use serde_json::json;

const APP: &str = "https://app.example.com";
/// What openai-node sends from a browser.
const SDK_HEADERS: &str = "authorization,content-type,x-stainless-arch,x-stainless-lang,\
                           x-stainless-os,x-stainless-package-version,x-stainless-retry-count,\
                           x-stainless-runtime,x-stainless-runtime-version,x-stainless-timeout";

async fn preflight(gateway: &Gateway, path: &str, origin: &str) -> CollectedResponse {
    let headers = [
        ("origin", origin),
        ("access-control-request-method", "POST"),
        ("access-control-request-headers", SDK_HEADERS),
    ];
    Client::http1().send(Method::OPTIONS, &gateway.url(path), &headers, "").await
}

async fn from(
    gateway: &Gateway,
    origin: &str,
    method: Method,
    path: &str,
    key: &str,
) -> CollectedResponse {
    let authorization = format!("Bearer {key}");
    let headers = [("origin", origin), ("authorization", authorization.as_str())];
    let body = if method == Method::POST { "{}" } else { "" };
    Client::http1().send(method, &gateway.url(path), &headers, body).await
}

fn cors_headers(response: &CollectedResponse) -> Vec<&str> {
    let names = response.headers.keys().map(|name| name.as_str());
    names.filter(|name| name.starts_with("access-control-")).collect()
}

fn varies_by_origin(response: &CollectedResponse) -> bool {
    response.headers.get_all("vary").iter().any(|vary| vary.to_str().unwrap().contains("origin"))
}

async fn upstream() -> Upstream {
    Upstream::start(|_| {
        let mut response = json_response(chat_json().to_string());
        // The upstream's word about pages is not the gateway's.
        response.headers_mut().insert("access-control-allow-origin", "*".parse().unwrap());
        response
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_preflight_of_an_allowed_origin_succeeds_before_auth_and_costs_nothing() {
    let upstream = upstream().await;
    let gateway = GatewayCommand::before(upstream.base_url())
        .env("CORS_ALLOW_ORIGINS", "https://App.Example.com:443/, app://obsidian.md")
        .start();
    for path in ["/v1/chat/completions", "/chat/completions", "/usage", "/v1/models", "/v1/none"] {
        for origin in [APP, "app://obsidian.md"] {
            let allowed = preflight(&gateway, path, origin).await;
            assert_eq!(allowed.status, 204, "{path}");
            assert_eq!(allowed.header("access-control-allow-origin"), origin);
            assert_eq!(allowed.header("access-control-allow-methods"), "POST");
            assert_eq!(allowed.header("access-control-allow-headers"), SDK_HEADERS);
            assert_eq!(allowed.header("access-control-max-age"), "600");
            assert_eq!(allowed.header("access-control-allow-credentials"), "");
            assert!(varies_by_origin(&allowed) && allowed.body.is_empty());
        }
        let other = preflight(&gateway, path, "https://attacker.example").await;
        assert_eq!(other.header("access-control-allow-origin"), "", "{path}");
    }
    for path in ["/admin/keys", "/admin", "/metrics", "/healthz", "/claim", "/"] {
        let admin = preflight(&gateway, path, APP).await;
        assert_ne!(admin.status, 204, "{path}");
        assert!(cors_headers(&admin).is_empty(), "{path} {admin:?}");
    }
    assert_eq!(upstream.count(), 0);
    // What only looks like a preflight is a request like any other.
    for headers in [vec![], vec![("origin", APP)], vec![("access-control-request-method", "POST")]]
    {
        let url = gateway.url("/v1/chat/completions");
        let response = Client::http1().send(Method::OPTIONS, &url, &headers, "").await;
        assert_eq!(response.code(), "missing_api_key", "{headers:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_response_of_the_api_may_be_read_and_none_of_the_admin_api() {
    let upstream = upstream().await;
    for (origins, shown) in [(APP, APP), ("*", "*")] {
        let gateway = GatewayCommand::before(upstream.base_url())
            .env("CORS_ALLOW_ORIGINS", origins)
            .env("MAX_BODY_BYTES", "1KiB")
            .start();
        let key = gateway.create_key(json!({"daily_limit": 1})).await;
        let mut responses = Vec::new();
        for (method, path, key, status) in [
            (Method::POST, "/v1/chat/completions", &*key, 200),
            (Method::POST, "/v1/chat/completions", &key, 429),
            (Method::POST, "/chat/completions", "trial-key-nobody", 401),
            (Method::GET, "/usage", &key, 200),
            (Method::GET, "/usage", "", 401),
            (Method::DELETE, "/usage", &key, 405),
            (Method::GET, "/v1/models", "", 200),
            (Method::GET, "/v1/models/m", &key, 200),
            (Method::POST, "/v1/v1/chat/completions", &key, 404),
            (Method::GET, "/v1", &key, 404),
        ] {
            let response = from(&gateway, APP, method, path, key).await;
            assert_eq!(response.status, status, "{path}");
            responses.push(response);
        }
        let large = "x".repeat(2000);
        let url = gateway.url("/v1/chat/completions");
        let large = Client::http1().send(Method::POST, &url, &[("origin", APP)], large).await;
        assert_eq!(large.status, 413);
        responses.push(large);
        for response in &responses {
            assert_eq!(response.header("access-control-allow-origin"), shown, "{response:?}");
            let exposed = response.header("access-control-expose-headers");
            for name in
                ["ratelimit", "x-ratelimit-remaining-requests", "x-request-id", "retry-after"]
            {
                assert!(exposed.split(',').any(|exposed| exposed.trim() == name), "{exposed}");
            }
            assert_eq!(varies_by_origin(response), shown != "*", "{response:?}");
        }
        for path in ["/admin", "/admin/keys", "/healthz", "/metrics", "/claim", "/nothing"] {
            let response = from(&gateway, APP, Method::GET, path, crate::common::ADMIN_TOKEN).await;
            assert!(cors_headers(&response).is_empty(), "{path} {response:?}");
        }
        if origins == APP {
            let other =
                from(&gateway, "https://attacker.example", Method::GET, "/v1/models", "").await;
            assert_eq!(other.header("access-control-allow-origin"), "");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_setting_a_preflight_is_204_and_allows_no_origin() {
    let upstream = upstream().await;
    let gateway = GatewayCommand::before(upstream.base_url()).start();
    let key = gateway.create_key(json!({"daily_limit": 5})).await;
    for path in ["/v1/chat/completions", "/chat/completions", "/usage"] {
        let response = preflight(&gateway, path, APP).await;
        assert_eq!(response.status, 204, "{path}");
        assert!(cors_headers(&response).is_empty(), "{response:?}");
        assert!(!response.header("x-request-id").is_empty());
    }
    assert_eq!(upstream.count(), 0);
    let chat = from(&gateway, APP, Method::POST, "/v1/chat/completions", &key).await;
    assert_eq!(chat.status, 200);
    assert!(cors_headers(&chat).is_empty(), "{chat:?}");
    assert_eq!(gateway.used(&key).await, 1);
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs Chromium and Node with playwright-core and axe-core"]
async fn a_page_of_another_origin_streams_a_response_and_reads_the_quota() {
    let held = Mutex::new(None);
    let upstream = Upstream::start(move |request| match request.uri().path() {
        "/" => {
            let page = Response::builder().header("content-type", "text/html");
            page.body(full("<!doctype html><title>app</title>")).unwrap()
        }
        // The page requests the second event when it has read the first.
        "/next" => {
            let (sender, event) = held.lock().unwrap().take().unwrap();
            let sender: tokio::sync::mpsc::UnboundedSender<_> = sender;
            sender.send(Ok(event)).unwrap();
            json_response("{}")
        }
        _ => {
            let (sender, body) = streaming();
            sender.send(Ok("data: {\"n\":1}\n\n".into())).unwrap();
            *held.lock().unwrap() = Some((sender, "data: [DONE]\n\n".into()));
            Response::builder().header("content-type", "text/event-stream").body(body).unwrap()
        }
    })
    .await;
    let app = format!("http://{}", upstream.address());
    let open = GatewayCommand::before(upstream.base_url()).env("CORS_ALLOW_ORIGINS", &app).start();
    let closed = GatewayCommand::before(upstream.base_url()).start();
    let key = open.create_key(json!({"daily_limit": 1})).await;
    let output = tokio::task::spawn_blocking({
        let mut node = crate::common::node("cross_origin.cjs");
        node.env("APP_URL", app).env("KEY", key).env("ADMIN_TOKEN", crate::common::ADMIN_TOKEN);
        node.env("OPEN_URL", open.url("")).env("CLOSED_URL", closed.url(""));
        move || node.arg("fetches").output().unwrap()
    });
    let output = output.await.unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{errors}\n{}", open.printed());
}
