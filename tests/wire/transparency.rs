//! What passes through the gateway passes byte for byte, and at once.

use std::sync::Mutex;

use crate::common::{Client, Gateway, Upstream, full, json_response, streaming};
use bytes::Bytes;
use http::{
    Method, Response,
    header::{CONTENT_ENCODING, CONTENT_TYPE},
};
use http_body_util::BodyExt;
use serde_json::json;

/// Text that would change if it were parsed and serialized.
const ODD_JSON: &str = "{ \"z\":1, \"a\" : 12345678901234567890, \"unknown\":{\"x\":1e400,\"x\":2},\
    \"text\":\"\\u4f60\\/好\",\"model\":\"m\" }\n";

async fn post(
    client: &Client,
    gateway: &Gateway,
    body: impl Into<Bytes>,
) -> crate::common::CollectedResponse {
    let key = gateway.create_key(json!({})).await;
    let authorization = format!("Bearer {key}");
    let headers = [("authorization", authorization.as_str()), ("content-type", "application/json")];
    client.send(Method::POST, &gateway.url("/v1/chat/completions?q=%20a&b"), &headers, body).await
}

#[tokio::test(flavor = "multi_thread")]
async fn json_is_byte_identical_both_ways_over_http1_and_http2() {
    let upstream = Upstream::start(|_| json_response(ODD_JSON)).await;
    let gateway = Gateway::before(&upstream.base_url());
    for client in [Client::http1(), Client::http2()] {
        let response = post(&client, &gateway, ODD_JSON).await;
        assert_eq!(response.body, ODD_JSON);
        let call = upstream.last();
        assert_eq!(call.body, ODD_JSON);
        assert_eq!(call.uri, "/v1/chat/completions?q=%20a&b");
        assert_eq!(call.headers["authorization"], "Bearer sk-sponsor-secret");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_compressed_response_stays_compressed() {
    use std::io::Write;
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    encoder.write_all(ODD_JSON.as_bytes()).unwrap();
    let compressed = Bytes::from(encoder.finish().unwrap());
    let sent = compressed.clone();
    let upstream = Upstream::start(move |_| {
        Response::builder()
            .header(CONTENT_TYPE, "application/json")
            .header(CONTENT_ENCODING, "gzip")
            .body(full(sent.clone()))
            .unwrap()
    })
    .await;
    let gateway = Gateway::before(&upstream.base_url());
    let response = post(&Client::http1(), &gateway, "{}").await;
    assert_eq!(response.header("content-encoding"), "gzip");
    assert_eq!(response.body, compressed);
}

#[tokio::test(flavor = "multi_thread")]
async fn five_megabytes_go_up_and_come_back() {
    let upstream = Upstream::start(|request| Response::new(full(request.into_body()))).await;
    let gateway = Gateway::before(&upstream.base_url());
    let body: Bytes =
        (0..5_u32 << 20).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    for client in [Client::http1(), Client::http2()] {
        let response = post(&client, &gateway, body.clone()).await;
        assert!(response.body == body, "{} bytes came back", response.body.len());
        assert!(upstream.last().body == body);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_event_arrives_before_the_upstream_sends_the_next() {
    for client in [Client::http1(), Client::http2()] {
        let (feed, body) = streaming();
        let body = Mutex::new(Some(body));
        let upstream = Upstream::start(move |_| {
            let body = body.lock().unwrap().take().expect("one request");
            Response::builder().header(CONTENT_TYPE, "text/event-stream").body(body).unwrap()
        })
        .await;
        let gateway = Gateway::before(&upstream.base_url());
        let key = gateway.create_key(json!({})).await;
        let authorization = format!("Bearer {key}");
        let headers = [("authorization", authorization.as_str())];
        let url = gateway.url("/v1/chat/completions");
        feed.send(Ok(": first\n\n".into())).unwrap();
        let response = client.open(Method::POST, &url, &headers, "{}").await.unwrap();
        assert_eq!(response.headers()["x-ratelimit-remaining-requests"], "199");
        let mut body = response.into_body();
        assert_eq!(next(&mut body).await, ": first\n\n");
        for event in ["data: {\"n\":1}\n\n", "data: {\"n\":2}\n\n", "data: [DONE]\n\n"] {
            feed.send(Ok(event.into())).unwrap();
            assert_eq!(next(&mut body).await, event);
        }
        drop(feed);
        assert_eq!(body.collect().await.unwrap().to_bytes(), "");
    }
}

async fn next(body: &mut hyper::body::Incoming) -> Bytes {
    body.frame().await.unwrap().unwrap().into_data().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_response_that_breaks_off_never_ends_as_if_complete() {
    for client in [Client::http1(), Client::http2()] {
        let (feed, body) = streaming();
        let body = Mutex::new(Some(body));
        let upstream =
            Upstream::start(move |_| Response::new(body.lock().unwrap().take().unwrap()));
        let upstream = upstream.await;
        let gateway = Gateway::before(&upstream.base_url());
        let key = gateway.create_key(json!({})).await;
        let authorization = format!("Bearer {key}");
        let headers = [("authorization", authorization.as_str())];
        let url = gateway.url("/v1/chat/completions");
        feed.send(Ok("data: 1\n\n".into())).unwrap();
        let mut body = client.open(Method::POST, &url, &headers, "{}").await.unwrap().into_body();
        assert_eq!(next(&mut body).await, "data: 1\n\n");
        feed.send(Err("broken".into())).unwrap();
        assert!(body.frame().await.expect("an error, not the end").is_err());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn identities_of_holder_and_sponsor_are_not_forwarded() {
    let upstream = Upstream::start(|_| {
        let mut response = json_response("{}");
        for (name, value) in [
            ("set-cookie", "a=b"),
            ("openai-organization", "sponsor"),
            ("x-ratelimit-remaining-requests", "1"),
            ("server", "upstream"),
            ("x-upstream", "kept"),
        ] {
            response.headers_mut().insert(name, value.parse().unwrap());
        }
        response
    })
    .await;
    let gateway = Gateway::before(&upstream.base_url());
    let key = gateway.create_key(json!({})).await;
    let headers = [
        ("x-api-key", key.as_str()),
        ("cookie", "session=1"),
        ("openai-organization", "holder"),
        ("x-forwarded-for", "1.2.3.4"),
        ("connection", "x-hop"),
        ("x-hop", "1"),
        ("x-kept", "yes"),
    ];
    let url = gateway.url("/chat/completions");
    let response = Client::http1().send(Method::POST, &url, &headers, "{}").await;
    assert_eq!(response.header("x-upstream"), "kept");
    assert_eq!(response.header("x-ratelimit-remaining-requests"), "199");
    for name in ["set-cookie", "openai-organization", "server"] {
        assert_eq!(response.header(name), "", "{name}");
    }
    let seen = upstream.last();
    assert_eq!(
        (seen.uri.path(), &seen.headers["x-kept"]),
        ("/v1/chat/completions", &"yes".parse().unwrap())
    );
    for name in ["x-api-key", "cookie", "openai-organization", "x-forwarded-for", "x-hop"] {
        assert!(!seen.headers.contains_key(name), "{name}");
    }
    assert!(!format!("{seen:?}").contains(&key));
}
