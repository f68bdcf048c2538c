//! What a holder presents as a credential does not reach the upstream, whatever it is called; and of an
//! response nothing reaches the holder that is the upstream's site's or the sponsor's own.

use std::io::Write;

use crate::common::{ADMIN_TOKEN, Client, Gateway, GatewayCommand, Upstream, full, json_response};
use flate2::{Compression, write::GzEncoder};
use http::{Method, Response};
use serde_json::json;

/// Sends one request over each protocol and returns all that the upstream saw of it, as text.
async fn seen_upstream(
    gateway: &Gateway,
    upstream: &Upstream,
    path: &str,
    headers: &[(&str, &str)],
) -> String {
    let mut seen = String::new();
    for client in [Client::http1(), Client::http2()] {
        let response = client.send(Method::POST, &gateway.url(path), headers, "{}").await;
        assert_eq!(response.status, 200, "{response:?}");
        seen += &format!("{:?}\n", upstream.last());
    }
    seen
}

#[tokio::test(flavor = "multi_thread")]
async fn a_presented_key_is_never_forwarded() {
    let upstream = Upstream::start(|_| json_response("{}")).await;
    let gateway = Gateway::before(&upstream.base_url());
    let key = gateway.create_key(json!({})).await;
    let bearer = format!("Bearer {key}");
    for credential in [("authorization", &*bearer), ("x-trial-key", &*key), ("x-api-key", &*key)] {
        let headers = [
            credential,
            ("x-goog-api-key", &key),
            ("apikey", &key),
            ("x_api_key", &key),
            ("x_trial-key", &key),
            ("cookie", &bearer),
            ("x-note", &bearer),
            ("x-end", "1"),
        ];
        let path =
            format!("/v1/chat/completions?a=1&key={key}&b=%20&x={}", key.replace('-', "%2D"));
        let seen = seen_upstream(&gateway, &upstream, &path, &headers).await;
        assert!(!seen.contains(&*key), "{seen}");
        assert_eq!(seen.matches("/v1/chat/completions?a=1&b=%20,").count(), 2, "{seen}");
        assert_eq!(seen.matches("x-end").count(), 2, "all else travels: {seen}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_presented_admin_token_is_never_forwarded() {
    let upstream = Upstream::start(|_| json_response("{}")).await;
    let gateway = Gateway::before(&upstream.base_url());
    let key = gateway.create_key(json!({})).await;
    let bearer = format!("Bearer {key}");
    let headers = [
        ("authorization", &*bearer),
        ("x-admin-token", ADMIN_TOKEN),
        ("x-goog-api-key", ADMIN_TOKEN),
        ("x_admin_token", ADMIN_TOKEN),
        ("x-note", ADMIN_TOKEN),
    ];
    let path = format!("/v1/embeddings?token={ADMIN_TOKEN}");
    let seen = seen_upstream(&gateway, &upstream, &path, &headers).await;
    assert!(!seen.contains(ADMIN_TOKEN), "{seen}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_underscore_disguises_no_header() {
    let upstream = Upstream::start(|_| json_response("{}")).await;
    let gateway = Gateway::before(&upstream.base_url());
    let key = gateway.create_key(json!({})).await;
    let bearer = format!("Bearer {key}");
    let headers = [
        ("authorization", &*bearer),
        ("X_Forwarded_For", "198.51.100.7"),
        ("x_real_ip", "198.51.100.7"),
        ("openai_organization", "198.51.100.7"),
        ("keep_alive", "198.51.100.7"),
        ("proxy_connection", "198.51.100.7"),
        ("x_other_name", "1"),
    ];
    let seen = seen_upstream(&gateway, &upstream, "/v1/chat/completions", &headers).await;
    assert!(!seen.contains("198.51.100.7"), "{seen}");
    assert_eq!(seen.matches("x_other_name").count(), 2, "{seen}");
}

#[tokio::test(flavor = "multi_thread")]
async fn headers_that_act_on_the_upstreams_site_are_removed() {
    const SITE: [&str; 16] = [
        "accept-ch",
        "access-control-allow-origin",
        "clear-site-data",
        "expect-ct",
        "nel",
        "public-key-pins",
        "refresh",
        "report-to",
        "reporting-endpoints",
        "service-worker-allowed",
        "set-cookie2",
        "set_cookie",
        "x-accel-redirect",
        "x-sendfile",
        "x-should-retry",
        "x_ratelimit_limit_requests",
    ];
    let upstream = Upstream::start(|request| {
        let status = request.uri().path().rsplit('/').next().unwrap_or_default().to_owned();
        let response = SITE
            .iter()
            .fold(Response::builder(), |response, &name| response.header(name, "between-us"));
        response.status(&*status).header("x-end", "1").body(full("{}")).unwrap()
    })
    .await;
    let gateway = Gateway::before(&upstream.base_url());
    let key = gateway.create_key(json!({"daily_limit": 0})).await;
    for client in [Client::http1(), Client::http2()] {
        for status in ["200", "404"] {
            let response = client.get_as(&key, &gateway.url(&format!("/v1/x/{status}"))).await;
            assert_eq!((response.status.as_str(), response.header("x-end")), (status, "1"));
            assert!(!format!("{response:?}").contains("between-us"), "{response:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_to_the_upstream_accept_no_coding() {
    let upstream = Upstream::start(|_| json_response("{}")).await;
    let gateway = GatewayCommand::before(upstream.base_url()).env("STREAM_USAGE", "off").start();
    let key = gateway.create_key(json!({})).await;
    for client in [Client::http1(), Client::http2()] {
        for accepted in ["", "gzip, deflate, br, zstd"] {
            let bearer = format!("Bearer {key}");
            let mut headers = vec![("authorization", bearer.as_str())];
            headers
                .extend(Some(("accept-encoding", accepted)).filter(|(_, text)| !text.is_empty()));
            for (method, path) in [
                (Method::POST, "/v1/chat/completions"),
                (Method::GET, "/v1/files/f/content"),
                (Method::POST, "/v1/messages"),
            ] {
                client.send(method, &gateway.url(path), &headers, "{}").await;
                let seen: Vec<_> =
                    upstream.last().headers.get_all("accept-encoding").iter().cloned().collect();
                assert_eq!(seen, ["identity"], "{path}, {accepted:?}");
            }
        }
    }
}

fn gzip(text: &str) -> Vec<u8> {
    let mut gzip = GzEncoder::new(Vec::new(), Compression::best());
    gzip.write_all(text.as_bytes()).unwrap();
    gzip.finish().unwrap()
}

/// What a holder gets of a 4xx response in this coding.
async fn coded(
    coding: &'static str,
    body: Vec<u8>,
    etag: &'static str,
) -> crate::common::CollectedResponse {
    let upstream = Upstream::start(move |_| {
        let response = Response::builder()
            .status(416)
            .header("content-encoding", coding)
            .header("content-type", "text/plain")
            .header("etag", etag)
            .header("content-digest", "sha-256=:47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=:")
            .header("allow", "GET")
            .header("content-range", "bytes */7")
            .header("retry-after-ms", "20")
            .header("x-note", "1")
            .header("x-note", "2");
        response.body(full(body.clone())).unwrap()
    })
    .await;
    let gateway = Gateway::before(&upstream.base_url());
    let key = gateway.create_key(json!({})).await;
    let response = Client::http1().post_as(&key, &gateway.url("/v1/x"), &json!({})).await;
    assert_eq!(response.status, 416);
    for (name, value) in [
        ("allow", "GET"),
        ("content-range", "bytes */7"),
        ("retry-after-ms", "20"),
        ("content-encoding", ""),
        ("content-digest", ""),
    ] {
        assert_eq!(response.header(name), value, "{response:?}");
    }
    assert_eq!(response.headers.get_all("x-note").iter().count(), 2, "{response:?}");
    response
}

#[tokio::test(flavor = "multi_thread")]
async fn a_4xx_that_is_coded_nevertheless_keeps_its_headers() {
    let response = coded("br", b"\x8b\x03no coding at all\x00".to_vec(), "\"a\"").await;
    assert_eq!(response.code(), "upstream_refused");
    assert_eq!(response.header("content-type"), "application/json");
    assert_eq!(response.header("cache-control"), "no-store");
    assert_eq!(response.header("etag"), "");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_4xx_that_is_unpacked_loses_its_strong_etag() {
    let response = coded("gzip", gzip("reason of sk-sponsor-secret"), "\"a\"").await;
    assert_eq!(response.text(), "reason of *****************");
    assert_eq!((response.header("etag"), response.header("content-type")), ("", "text/plain"));
    let response = coded("gzip", gzip("reason"), "W/\"a\"").await;
    assert_eq!((&*response.text(), response.header("etag")), ("reason", "W/\"a\""));
}
