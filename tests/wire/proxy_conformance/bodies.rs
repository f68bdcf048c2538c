//! Bodies pass as they are, and where there is none, none is waited for.

use serde_json::json;
use tokio::net::TcpListener;
use tower_quota::proxy::ProxyRules;

use super::{
    common::{Client, Gateway},
    gateway::{gateway, proxy, serve},
    http1::{self, Socket},
    message::{
        Message, PAIRS, PROTOCOLS,
        Protocol::{self, Http1},
        exchange,
    },
    upstream::Upstream,
};

#[tokio::test]
async fn bodies_are_forwarded_byte_for_byte_in_their_coding() {
    let bytes: Vec<u8> =
        (0..200_000_u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    for (client, server) in PAIRS {
        let response = Message::new("200").header("content-encoding", "br").body(&*bytes);
        let mut upstream = Upstream::responding(server, response).await;
        let gateway = gateway(&upstream.url).await;
        let request = Message::new("POST /v1/x")
            .headers(&[("content-encoding", "zstd"), ("accept-encoding", "br;q=1")])
            .body(&*bytes);
        let response = exchange(client, &gateway, &request).await;
        let seen = upstream.seen().await;
        assert!(seen.body == bytes && response.body == bytes, "{client:?} {server:?}");
        assert_eq!(
            (seen.one("content-encoding"), seen.one("accept-encoding")),
            ("zstd", "identity")
        );
        assert_eq!(response.one("content-encoding"), "br");
    }
}

#[tokio::test]
async fn responses_without_a_body_keep_their_content_length() {
    for (client, server) in PAIRS {
        for (request, response, length) in [
            ("HEAD /v1/x", Message::new("200").body("12345"), "5"),
            ("GET /v1/x", Message::new("204"), ""),
            ("GET /v1/x", Message::new("304").header("content-length", "7"), "7"),
            ("GET /v1/x", Message::new("200"), "0"),
        ] {
            let status = response.start.clone();
            let upstream = Upstream::responding(server, response).await;
            let gateway = serve(proxy(&upstream.url).rules(ProxyRules::new())).await;
            let response = exchange(client, &gateway, &Message::new(request)).await;
            let seen = (&*response.start, response.one("content-length"), response.body.len());
            // hyper's HTTP/1 server leaves it away in a 304, as it may (RFC 9110, section 15.4.5).
            let length = if client == Http1 && status == "304" { "" } else { length };
            assert_eq!(seen, (&*status, length, 0), "{client:?} {server:?}");
        }
    }
}

#[tokio::test]
async fn a_connection_is_reused_after_responses_without_a_body() {
    for server in [Http1, Protocol::Http2] {
        let mut upstream = Upstream::responding(server, Message::new("200").body("12345")).await;
        let mut socket = Socket::connect(&gateway(&upstream.url).await).await;
        for method in ["HEAD", "GET", "HEAD", "GET"] {
            let request = Message::new(&format!("{method} /v1/x"));
            socket.send(http1::request(&request)).await;
            let response = socket.message(method == "GET").await.unwrap();
            assert_eq!(response.one("content-length"), "5");
            assert_eq!(upstream.seen().await.start, format!("{method} /api/x"));
        }
    }
}

#[tokio::test]
async fn interim_responses_are_not_forwarded() {
    for (client, server) in PAIRS {
        let response = Message::new("200").after(100).after(103).body("final");
        let upstream = Upstream::responding(server, response).await;
        let gateway = gateway(&upstream.url).await;
        let response = exchange(client, &gateway, &Message::new("GET /v1/x")).await;
        assert_eq!((&*response.start, &*response.text()), ("200", "final"));
        assert!(
            response.interim.is_empty() && response.all("x-interim").is_empty(),
            "{response:?}"
        );
    }
}

#[tokio::test]
async fn expect_is_not_forwarded() {
    for (client, server) in PAIRS {
        let mut upstream = Upstream::responding(server, Message::new("200")).await;
        let gateway = gateway(&upstream.url).await;
        let request = Message::new("POST /v1/x").header("expect", "100-continue").body("body");
        assert_eq!(exchange(client, &gateway, &request).await.start, "200");
        let seen = upstream.seen().await;
        assert_eq!((seen.one("expect"), &*seen.text()), ("", "body"));
    }
}

/// Announces a body of five bytes and waits for `100 Continue`.
async fn announcing(gateway: &Gateway, key: &str) -> Socket {
    let mut socket = Socket::connect(&gateway.url("")).await;
    let request = Message::new("POST /v1/x").headers(&[
        ("authorization", &format!("Bearer {key}")),
        ("content-length", "5"),
        ("expect", "100-continue"),
    ]);
    socket.send(http1::request(&request)).await;
    socket
}

#[tokio::test(flavor = "multi_thread")]
async fn continue_is_sent_only_when_the_request_is_admitted() {
    let mut upstream = Upstream::responding(Http1, Message::new("200")).await;
    let gateway = Gateway::before(&format!("{}/v1", upstream.url));
    let key = gateway.create_key(json!({"daily_limit": 1})).await;

    let mut socket = announcing(&gateway, &key).await;
    assert_eq!(socket.head().await.unwrap().start, "100");
    socket.send("hello").await;
    assert_eq!(socket.message(true).await.unwrap().start, "200");
    assert_eq!(upstream.seen().await.text(), "hello");

    for (key, status) in [("trial-nobody", "401"), (&*key, "429")] {
        let mut socket = announcing(&gateway, key).await;
        let response = socket.message(true).await.unwrap();
        assert_eq!((&*response.start, response.interim.len()), (status, 0));
    }
    upstream.saw_no_more();
    let usage = Client::http1().get_as(&key, &gateway.url("/usage")).await.json();
    assert_eq!(usage["used"], 1);
}

#[tokio::test]
async fn bodies_are_forwarded_for_every_method_and_framing() {
    for (client, server) in PAIRS {
        for method in ["GET", "DELETE", "OPTIONS", "POST"] {
            let mut upstream = Upstream::responding(server, Message::new("200")).await;
            let gateway = gateway(&upstream.url).await;
            // Trailers make it chunked over HTTP/1, and of no declared length over HTTP/2.
            let request = Message::new(&format!("{method} /v1/x")).body("text").trailer("x", "y");
            assert_eq!(exchange(client, &gateway, &request).await.start, "200");
            assert_eq!(upstream.seen().await.text(), "text", "{method} {client:?} {server:?}");
        }
    }
}

#[tokio::test]
async fn an_early_response_arrives_even_if_the_upstream_closes() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let gateway = gateway(&format!("http://{}", listener.local_addr().unwrap())).await;
    let reject = async {
        loop {
            let mut socket = Socket::new(listener.accept().await.unwrap().0);
            socket.head().await.unwrap();
            socket.send("HTTP/1.1 413 Too Large\r\ncontent-length: 5\r\n\r\nlarge").await;
        }
    };
    let send = async {
        for client in PROTOCOLS {
            for _ in 0..10 {
                let request = Message::new("POST /v1/x").body(vec![b'x'; 2 << 20]).with_length();
                let response = exchange(client, &gateway, &request).await;
                assert_eq!((&*response.start, &*response.text()), ("413", "large"), "{client:?}");
            }
        }
    };
    tokio::select! {
        () = send => {}
        () = reject => {}
    }
}
