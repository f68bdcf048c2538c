//! What belongs to one hop ends there, and trailers do not.

use super::{
    gateway::{SPONSOR, gateway},
    message::{
        Message, PAIRS,
        Protocol::{Http1, Http2},
        exchange,
    },
    upstream::Upstream,
};

#[tokio::test]
async fn headers_that_any_connection_line_of_a_request_nominates_are_removed() {
    for server in [Http1, Http2] {
        let mut upstream = Upstream::responding(server, Message::new("200")).await;
        let gateway = gateway(&upstream.url).await;
        let request = Message::new("GET /v1/x").headers(&[
            ("connection", "x-hop"),
            ("Connection", "keep-alive, X-Other-Hop"),
            ("x-hop", "1"),
            ("X-Other-Hop", "1"),
            ("keep-alive", "timeout=5"),
            ("proxy-connection", "keep-alive"),
            ("upgrade", "h2c"),
            ("te", "gzip"),
            ("x-end", "1"),
        ]);
        exchange(Http1, &gateway, &request).await;
        let seen = upstream.seen().await;
        assert_eq!(seen.one("x-end"), "1");
        let gone =
            ["connection", "x-hop", "x-other-hop", "keep-alive", "proxy-connection", "upgrade"];
        for name in gone.into_iter().chain(["te", "transfer-encoding"]) {
            assert!(seen.all(name).is_empty(), "{name}: {seen:?}");
        }
    }
}

#[tokio::test]
async fn headers_that_any_connection_line_of_a_response_nominates_are_removed() {
    for client in [Http1, Http2] {
        let response = Message::new("200").body("ok").headers(&[
            ("connection", "x-hop"),
            ("connection", "keep-alive, X-Other-Hop"),
            ("x-hop", "1"),
            ("x-other-hop", "1"),
            ("keep-alive", "timeout=5"),
            ("proxy-authenticate", "Basic"),
            ("x-end", "1"),
        ]);
        let upstream = Upstream::responding(Http1, response).await;
        let gateway = gateway(&upstream.url).await;
        let response = exchange(client, &gateway, &Message::new("GET /v1/x")).await;
        assert_eq!((response.one("x-end"), &*response.text()), ("1", "ok"));
        for name in ["connection", "x-hop", "x-other-hop", "keep-alive", "proxy-authenticate"] {
            assert!(response.all(name).is_empty(), "{name}: {response:?}");
        }
    }
}

#[tokio::test]
async fn only_te_trailers_is_forwarded() {
    for (client, server) in PAIRS {
        let mut upstream = Upstream::responding(server, Message::new("200")).await;
        let gateway = gateway(&upstream.url).await;
        let te = match client {
            Http1 => "gzip;q=0.5, Trailers",
            Http2 => "trailers",
        };
        exchange(client, &gateway, &Message::new("GET /v1/x").header("te", te)).await;
        assert_eq!(upstream.seen().await.one("te"), "trailers");
    }
}

#[tokio::test]
async fn trailers_are_forwarded_both_ways() {
    for (client, server) in PAIRS {
        let response = Message::new("200").header("trailer", "x-end").body("down");
        let mut upstream = Upstream::responding(server, response.trailer("x-end", "1")).await;
        let gateway = gateway(&upstream.url).await;
        let request = Message::new("POST /v1/x")
            .headers(&[("te", "trailers"), ("trailer", "x-sum")])
            .body("up")
            .trailer("x-sum", "2");
        let response = exchange(client, &gateway, &request).await;
        let seen = upstream.seen().await;
        assert_eq!((&*seen.text(), &*response.text()), ("up", "down"));
        let sum = [("x-sum".to_owned(), "2".to_owned())];
        assert_eq!(seen.trailers, sum, "{client:?} to {server:?}");
        let end = [("x-end".to_owned(), "1".to_owned())];
        assert_eq!(response.trailers, end, "{client:?} from {server:?}");
    }
}

#[tokio::test]
async fn fields_that_are_not_allowed_in_trailers_are_removed() {
    let own = [("x-forwarded-for", "203.0.113.7"), ("authorization", "Bearer trial")];
    let echo = format!("it was {SPONSOR}");
    let sponsors = [("set-cookie", "a=b"), ("server", "x"), ("x-echo", &echo)];
    for (client, server) in PAIRS {
        let mut response = Message::new("200").header("trailer", "x-end").body("down");
        for (name, value) in sponsors.into_iter().chain([("x-end", "1")]) {
            response = response.trailer(name, value);
        }
        let mut upstream = Upstream::responding(server, response).await;
        let gateway = gateway(&upstream.url).await;
        let mut request = Message::new("POST /v1/x")
            .headers(&[("te", "trailers"), ("trailer", "x-sum, authorization, x-forwarded-for")])
            .body("up");
        for (name, value) in own.into_iter().chain([("x-sum", "2"), ("cookie", "a=b")]) {
            request = request.trailer(name, value);
        }
        let response = exchange(client, &gateway, &request).await;
        let seen = upstream.seen().await;
        let names = |message: &Message| -> Vec<String> {
            message.trailers.iter().map(|(name, _)| name.clone()).collect()
        };
        assert_eq!(names(&seen), ["x-sum"], "{client:?} to {server:?}");
        assert_eq!(names(&response), ["x-end"], "{client:?} from {server:?}");
    }
}
