//! Where a request goes: one judgement of its target, joined onto the base path to the byte.

use http::Request;

use super::{
    common::DEADLINE,
    gateway::gateway,
    http1, http2,
    message::{Message, PAIRS, Protocol, exchange, in_time},
    upstream::Upstream,
};

#[tokio::test]
async fn paths_join_where_a_segment_ends_and_queries_are_kept_to_the_byte() {
    for (client, server) in PAIRS {
        let mut upstream = Upstream::responding(server, Message::new("200")).await;
        let gateway = gateway(&upstream.url).await;
        for (target, seen) in [
            ("/v1/chat/completions", "/api/chat/completions"),
            ("/v1/x?x=%2e&y=//&z=..&&=&a=%zz", "/api/x?x=%2e&y=//&z=..&&=&a=%zz"),
            ("/v1/x?", "/api/x?"),
            ("/v1/a%2Fb%20c", "/api/a%2Fb%20c"),
            ("/v1", "/api"),
            ("/v1/", "/api/"),
            ("/v10/x", "/api/v10/x"),
            ("/x/v1/y", "/api/x/v1/y"),
        ] {
            let response =
                exchange(client, &gateway, &Message::new(&format!("GET {target}"))).await;
            assert_eq!(response.start, "200", "{target}");
            assert_eq!(upstream.seen().await.start, format!("GET {seen}"), "{client:?} {server:?}");
        }
        upstream.saw_no_more();
    }
}

#[tokio::test]
async fn an_ambiguous_target_is_never_forwarded() {
    for (client, server) in PAIRS {
        let mut upstream = Upstream::responding(server, Message::new("200")).await;
        let gateway = gateway(&upstream.url).await;
        for target in [
            "/v1/../admin",
            "/v1/./x",
            "/v1/%2e%2e/admin",
            "/v1/.%2E/admin",
            "/v1/%252e%252e/x",
            "/v1//x",
            "/v1/a%5cb",
            "/v1/a%00b",
            "/v1/a%0d%0ab",
            "/v1/a%zz",
        ] {
            let response =
                exchange(client, &gateway, &Message::new(&format!("GET {target}"))).await;
            assert_eq!((&*response.start, &*response.code()), ("400", "invalid_path"), "{target}");
        }
        exchange(client, &gateway, &Message::new("GET /v1/good")).await;
        assert_eq!(upstream.seen().await.start, "GET /api/good");
        upstream.saw_no_more();
    }
}

#[tokio::test]
async fn only_the_origin_form_is_accepted() {
    let mut upstream = Upstream::responding(Protocol::Http1, Message::new("200")).await;
    let gateway = gateway(&upstream.url).await;
    for line in ["GET http://a/v1/x", "OPTIONS *", "GET a:80", "CONNECT a:80"] {
        let request = format!("{line} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
        let response = http1::raw(&gateway, request).await;
        assert!(response.starts_with("HTTP/1.1 400 "), "{line}: {response}");
    }
    let mut connection = http2::Connection::open(&gateway).await;
    let connect = Request::connect("a:80").body(()).unwrap();
    let response = connection.send_head(connect).await;
    assert_eq!(in_time(DEADLINE, response).await.unwrap().status(), 400);
    upstream.saw_no_more();
}

#[tokio::test]
async fn trace_is_rejected() {
    for (client, server) in PAIRS {
        let mut upstream = Upstream::responding(server, Message::new("200")).await;
        let gateway = gateway(&upstream.url).await;
        let response = exchange(client, &gateway, &Message::new("TRACE /v1/x")).await;
        assert_eq!((&*response.start, &*response.code()), ("405", "method_not_allowed"));
        assert!(response.one("allow").contains("POST"));
        upstream.saw_no_more();
    }
}
