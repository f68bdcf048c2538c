//! The sponsor's key never comes back, even if the upstream echoes it.

use std::io::Write;

use flate2::{Compression, write::GzEncoder};

use super::{
    gateway::{SPONSOR, gateway},
    message::{Message, PAIRS, Protocol::Http1, exchange},
    upstream::Upstream,
};

fn gzip(text: &[u8]) -> Vec<u8> {
    let mut gzip = GzEncoder::new(Vec::new(), Compression::best());
    gzip.write_all(text).unwrap();
    gzip.finish().unwrap()
}

#[tokio::test]
async fn an_echoed_credential_is_masked() {
    let text = format!("bad key Bearer {SPONSOR} in request");
    let masked = format!("bad key Bearer {} in request", "*".repeat(SPONSOR.len()));
    for (client, server) in PAIRS {
        for (coding, body) in [("identity", text.clone().into()), ("gzip", gzip(text.as_bytes()))] {
            let echo = Message::new("400").header("content-encoding", coding).body(body);
            let echo = echo.header("x-echo", &format!("Bearer {SPONSOR}"));
            let upstream = Upstream::responding(server, echo).await;
            let gateway = gateway(&upstream.url).await;
            let response = exchange(client, &gateway, &Message::new("POST /v1/x")).await;
            assert_eq!((&*response.start, &*response.text()), ("400", &*masked), "{coding}");
            assert!(response.all("x-echo").is_empty());
        }
    }
}

#[tokio::test]
async fn an_error_that_cannot_be_searched_is_replaced() {
    for (client, server) in PAIRS {
        let echo = Message::new("400").header("content-encoding", "br").body("whatever");
        let upstream = Upstream::responding(server, echo).await;
        let gateway = gateway(&upstream.url).await;
        let response = exchange(client, &gateway, &Message::new("POST /v1/x")).await;
        assert_eq!((&*response.start, &*response.code()), ("400", "upstream_refused"));
    }
}

#[tokio::test]
async fn no_response_header_contains_the_credential() {
    for (client, server) in PAIRS {
        for status in ["200", "404", "429", "500"] {
            let response = Message::new(status)
                .body("text")
                .headers(&[("x-echo", &format!("Bearer {SPONSOR}")), ("retry-after", SPONSOR)]);
            let upstream = Upstream::responding(server, response).await;
            let gateway = gateway(&upstream.url).await;
            let response = exchange(client, &gateway, &Message::new("POST /v1/x")).await;
            assert!(!format!("{response:?}").contains(SPONSOR), "{response:?}");
        }
    }
}

#[tokio::test]
async fn a_connection_header_does_not_hide_the_content_coding() {
    let echo = Message::new("422")
        .headers(&[("content-encoding", "gzip"), ("connection", "content-encoding")])
        .body(gzip(format!("bad key {SPONSOR}").as_bytes()));
    let upstream = Upstream::responding(Http1, echo).await;
    let gateway = gateway(&upstream.url).await;
    let response = exchange(Http1, &gateway, &Message::new("POST /v1/x")).await;
    assert_eq!(response.text(), format!("bad key {}", "*".repeat(SPONSOR.len())));
}

#[tokio::test]
async fn a_list_of_codings_does_not_hide_the_credential() {
    let masked = format!("bad key {}", "*".repeat(SPONSOR.len()));
    for (codings, is_read) in [
        ("gzip, identity", true),
        ("identity, gzip", true),
        ("gzip,", true),
        ("gzip, gzip", false),
        ("br, gzip", false),
    ] {
        let body = gzip(format!("bad key {SPONSOR}").as_bytes());
        let echo = Message::new("422").header("content-encoding", codings).body(body);
        let upstream = Upstream::responding(Http1, echo).await;
        let gateway = gateway(&upstream.url).await;
        let response = exchange(Http1, &gateway, &Message::new("POST /v1/x")).await;
        if is_read {
            assert_eq!(response.text(), masked, "{codings}");
        } else {
            assert_eq!(response.code(), "upstream_refused", "{codings}");
        }
    }
}
