//! Which paths reach the upstream, what they cost, and what a list of models may be.

use crate::common::{
    Client, CollectedResponse, Gateway, GatewayCommand, Upstream, full, json_response,
};
use http::{Method, Response};
use serde_json::json;

async fn gateway(upstream: &Upstream) -> Gateway {
    GatewayCommand::before(upstream.base_url()).start()
}

async fn send(gateway: &Gateway, key: &str, method: Method, path: &str) -> CollectedResponse {
    let authorization = format!("Bearer {key}");
    let headers = [("authorization", authorization.as_str()), ("content-type", "application/json")];
    let body = if method == Method::POST { "{}" } else { "" };
    Client::http1().send(method, &gateway.url(path), &headers, body).await
}

#[tokio::test(flavor = "multi_thread")]
async fn every_resource_of_the_contract_is_found_without_v1() {
    let upstream = Upstream::start(|_| json_response("{}")).await;
    let gateway = gateway(&upstream).await;
    let key = gateway.create_key(json!({"daily_limit": 0})).await;
    for path in [
        "/chat/completions",
        "/completions",
        "/embeddings",
        "/responses",
        "/responses/resp_1",
        "/audio/speech",
        "/audio/transcriptions",
        "/images/generations",
        "/moderations",
        "/files",
        "/files/file-1",
        "/uploads",
        "/batches",
        "/fine_tuning/jobs",
        "/vector_stores",
        "/assistants",
        "/threads/thread_1/runs",
        "/messages",
        "/messages/batches",
    ] {
        assert_eq!(send(&gateway, &key, Method::POST, path).await.status, 200, "{path}");
        assert_eq!(upstream.last().uri.path(), format!("/v1{path}"));
    }
    assert_eq!(send(&gateway, &key, Method::GET, "/models/m").await.status, 200);
    assert_eq!(upstream.last().uri.path(), "/v1/models/m");
    let count = upstream.count();
    for path in ["/audio", "/filesystem", "/threadsx", "/message", "/v2/chat/completions"] {
        assert_eq!(send(&gateway, &key, Method::POST, path).await.status, 404, "{path}");
    }
    assert_eq!(upstream.count(), count);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_doubled_base_url_is_a_free_404_that_says_so() {
    let upstream = Upstream::start(|_| json_response("{}")).await;
    let gateway = gateway(&upstream).await;
    let key = gateway.create_key(json!({"daily_limit": 5})).await;
    for (path, base) in [
        ("/v1/v1/chat/completions", "/v1"),
        ("/v1/v1/models", "/v1"),
        ("/v1/v1/messages", "/v1"),
        ("/v1/chat/completions/chat/completions", "/v1/chat/completions"),
        ("/chat/completions/chat/completions", "/chat/completions"),
        ("/v1/chat/completions/models", "/v1/chat/completions"),
        ("/v1/embeddings/embeddings", "/v1/embeddings"),
        ("/v1/responses/responses", "/v1/responses"),
        ("/v1/messages/v1/messages", "/v1/messages"),
    ] {
        let rejected = send(&gateway, &key, Method::POST, path).await;
        assert_eq!(
            (rejected.status.as_u16(), rejected.code().as_str()),
            (404, "not_found"),
            "{path}"
        );
        let message = rejected.json()["error"]["message"].as_str().unwrap().to_owned();
        let said = format!("base URL already ends in `{base}`");
        assert!(message.contains(&said), "{path}: {message}");
    }
    assert_eq!(upstream.count(), 0);
    assert_eq!(gateway.used(&key).await, 0);
    // What only looks like it goes on.
    for path in ["/v1/chat/completions/chatcmpl-1/messages", "/v1/messages/batches"] {
        assert_eq!(send(&gateway, &key, Method::GET, path).await.status, 200, "{path}");
    }
    assert_eq!(gateway.used(&key).await, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn counting_tokens_and_reading_models_are_free_even_for_a_used_up_key() {
    let upstream = Upstream::start(|_| json_response(r#"{"input_tokens":3}"#)).await;
    let gateway = gateway(&upstream).await;
    let key = gateway.create_key(json!({"daily_limit": 1})).await;
    let free = [
        (Method::POST, "/v1/messages/count_tokens"),
        (Method::POST, "/v1/messages/count_tokens?beta=true"),
        (Method::POST, "/messages/count_tokens"),
        (Method::GET, "/v1/models/deepseek-chat"),
        (Method::HEAD, "/v1/models/deepseek-chat"),
        (Method::GET, "/models/org/model"),
        (Method::GET, "/v1/models?limit=2"),
    ];
    for used in [0, 1] {
        for (method, path) in &free {
            for _ in 0..3 {
                let response = send(&gateway, &key, method.clone(), path).await;
                assert_eq!(response.status, 200, "{method} {path} {response:?}");
            }
            let unknown = send(&gateway, "trial-key-guessed", method.clone(), path).await;
            assert_eq!(unknown.status, 401, "{method} {path}");
        }
        assert_eq!(gateway.used(&key).await, used);
        let chat = send(&gateway, &key, Method::POST, "/v1/chat/completions").await;
        assert_eq!(chat.status, if used == 0 { 200 } else { 429 });
    }
    // Only these: a model that is deleted, or a message that is sent, is not.
    for (method, path) in [
        (Method::DELETE, "/v1/models/ft-1"),
        (Method::POST, "/v1/models/m"),
        (Method::GET, "/v1/messages/count_tokens"),
        (Method::POST, "/v1/messages/count_tokens/x"),
        (Method::POST, "/v1/messages"),
    ] {
        let rejected = send(&gateway, &key, method.clone(), path).await;
        assert_eq!(rejected.status, 429, "{method} {path}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_of_models_is_the_requested_one() {
    let upstream = Upstream::start(|request| {
        let query = request.uri().query().unwrap_or("none");
        let version = request.headers().contains_key("anthropic-version");
        json_response(json!({"query": query, "anthropic": version}).to_string())
    })
    .await;
    let gateway = gateway(&upstream).await;
    let key = gateway.create_key(json!({"daily_limit": 5})).await;
    for _ in 0..2 {
        let list = Client::http1().get(&gateway.url("/v1/models")).await;
        assert_eq!(list.json(), json!({"query": "none", "anthropic": false}));
    }
    assert_eq!(upstream.count(), 1, "the list without a query comes from the cache");
    for query in ["limit=2", "after_id=m2", "after_id=m4&limit=2"] {
        for path in ["/v1/models", "/models"] {
            let page = send(&gateway, &key, Method::GET, &format!("{path}?{query}")).await;
            assert_eq!(page.json(), json!({"query": query, "anthropic": false}));
            let unknown = Client::http1().get(&gateway.url(&format!("{path}?{query}"))).await;
            assert_eq!(
                (unknown.status.as_u16(), unknown.code().as_str()),
                (401, "missing_api_key")
            );
        }
    }
    let headers = [("x-api-key", key.as_str()), ("anthropic-version", "2023-06-01")];
    let list = Client::http1().send(Method::GET, &gateway.url("/v1/models"), &headers, "").await;
    assert_eq!(list.json(), json!({"query": "none", "anthropic": true}));
    assert_eq!(gateway.used(&key).await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_list_of_models_is_json_or_502() {
    const PAGE: &str = "<!doctype html><script>alert(1)</script>";
    for (status, content_type, body) in [
        (200, "text/html; charset=utf-8", PAGE),
        (200, "application/json", PAGE),
        (200, "text/html", "{}"),
        (200, "", "{}"),
        (404, "text/html", PAGE),
        (200, "application/json", ""),
    ] {
        let upstream = Upstream::start(move |_| {
            let mut response = Response::builder().status(status);
            if !content_type.is_empty() {
                response = response.header("content-type", content_type);
            }
            response.body(full(body)).unwrap()
        })
        .await;
        let gateway = gateway(&upstream).await;
        let list = Client::http1().get(&gateway.url("/v1/models")).await;
        let case = format!("{status} {content_type} {body}: {list:?}");
        assert_eq!(
            (list.status.as_u16(), list.code().as_str()),
            (502, "upstream_protocol"),
            "{case}"
        );
        assert_eq!(list.header("content-type"), "application/json", "{case}");
        assert!(!list.text().contains("<script>"), "{case}");
    }
    let upstream = Upstream::start(|_| json_response(r#"{"object":"list","data":[]}"#)).await;
    let gateway = gateway(&upstream).await;
    let list = Client::http1().get(&gateway.url("/v1/models")).await;
    assert_eq!(
        (list.status.as_u16(), list.text().as_str()),
        (200, r#"{"object":"list","data":[]}"#)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn responses_forbid_sniffing_and_the_admin_page_framing() {
    let upstream = Upstream::start(|_| {
        Response::builder().header("content-type", "text/plain").body(full("<script>")).unwrap()
    })
    .await;
    let gateway = gateway(&upstream).await;
    let key = gateway.create_key(json!({"daily_limit": 5})).await;
    for path in ["/v1/files/f/content", "/v1/models/m", "/v1/models", "/usage", "/healthz", "/x"] {
        let response = send(&gateway, &key, Method::GET, path).await;
        assert_eq!(response.header("x-content-type-options"), "nosniff", "{path}");
    }
    for path in ["/admin", "/admin/keys", "/admin/nothing"] {
        let response = Client::http1().get(&gateway.url(path)).await;
        for policy in ["cross-origin-opener-policy", "cross-origin-resource-policy"] {
            assert_eq!(response.header(policy), "same-origin", "{path}");
        }
    }
}
