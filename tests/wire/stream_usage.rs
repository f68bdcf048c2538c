//! `STREAM_USAGE=ask`, which is the default: the usage of every streamed chat is known, and who did not ask for it does not
//! see it.

use std::sync::Mutex;

use crate::common::{
    Client, CollectedResponse, Gateway, GatewayCommand, StubBody, Upstream, Wire, eventually, full,
    streaming,
};
use bytes::Bytes;
use http::{Method, Request, Response, header::CONTENT_TYPE};
use http_body_util::BodyExt;
use serde_json::json;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

/// Text that would change if it were parsed and serialized.
const ODD: &str = "{ \"z\":1, \"a\" : 12345678901234567890, \"x\":{\"x\":1e400,\"x\":2},\r\n\
    \"text\":\"\\u4f60\\/好\",\"model\":\"m\" ,\"stream\" :true ,\"stream\\u005f\":[] }\n";
const QUESTION: &str = ",\"stream_options\":{\"include_usage\":true}";

const CONTENT: &str =
    "data: {\"model\":\"m\",\"choices\":[{\"delta\":{\"content\":\"你\"}}],\"usage\":null}\r\n\r\n";
const USAGE: &str = "data: {\"model\":\"m\",\"choices\":[],\"usage\":{\"prompt_tokens\":11,\
    \"completion_tokens\":7,\"total_tokens\":18}}\r\n\r\n";
const DONE: &str = ": bye\r\n\r\ndata: [DONE]\r\n\r\n";
/// The usage on the last content frame.
const LAST: &str = "data: {\"model\":\"m\",\"choices\":[{\"delta\":{},\"finish_reason\":\"stop\"}],\
    \"usage\":{\"prompt_tokens\":11,\"completion_tokens\":7,\"total_tokens\":18}}\n\n";

fn odd_asking() -> String {
    ODD.replace("\"stream\" :true", &format!("\"stream\" :true{QUESTION}"))
}

fn stream(body: StubBody) -> Response<StubBody> {
    Response::builder().header(CONTENT_TYPE, "text/event-stream; charset=utf-8").body(body).unwrap()
}

/// Responds as OpenAI does: the usage in an event of its own, if it is requested.
fn openai(request: Request<Bytes>) -> Response<StubBody> {
    let is_requested = String::from_utf8_lossy(request.body()).contains(QUESTION);
    stream(full([CONTENT, if is_requested { USAGE } else { "" }, DONE].concat()))
}

fn asking(upstream: &Upstream) -> GatewayCommand {
    GatewayCommand::before(upstream.base_url()).env("STREAM_USAGE", "ask")
}

async fn post(client: &Client, gateway: &Gateway, key: &str, body: &str) -> CollectedResponse {
    let authorization = format!("Bearer {key}");
    let headers = [
        ("authorization", authorization.as_str()),
        ("content-type", "application/json"),
        ("accept-encoding", "gzip, br"),
    ];
    let url = gateway.url("/chat/completions");
    client.send(Method::POST, &url, &headers, body.to_owned()).await
}

#[tokio::test(flavor = "multi_thread")]
async fn usage_is_recorded_and_neither_side_sees_another_change() {
    let upstream = Upstream::start(openai).await;
    let gateway = asking(&upstream).start();
    for client in [Client::http1(), Client::http2()] {
        let key = gateway.create_key(json!({})).await;
        let response = post(&client, &gateway, &key, ODD).await;
        assert_eq!(response.text(), [CONTENT, DONE].concat());
        assert_eq!(response.header("content-type"), "text/event-stream; charset=utf-8");
        assert_eq!(response.header("x-ratelimit-remaining-requests"), "199");
        let seen = upstream.last();
        assert_eq!(seen.body, odd_asking());
        assert_eq!(seen.headers["content-length"], odd_asking().len().to_string());
        assert_eq!(seen.headers["accept-encoding"], "identity");
        let usage = gateway.usage(&key).await;
        assert_eq!(usage["tokens"]["total"], 18, "{usage}");
        assert_eq!(usage["requests"]["succeeded"], 1, "{usage}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_requests_usage_gets_it() {
    let upstream = Upstream::start(openai).await;
    let gateway = asking(&upstream).start();
    let key = gateway.create_key(json!({})).await;
    for client in [Client::http1(), Client::http2()] {
        let response = post(&client, &gateway, &key, &odd_asking()).await;
        assert_eq!(response.text(), [CONTENT, USAGE, DONE].concat());
        let seen = upstream.last();
        assert_eq!(seen.body, odd_asking());
        assert_eq!(seen.headers["accept-encoding"], "identity");
    }
    assert_eq!(gateway.usage(&key).await["tokens"]["total"], 36);
}

#[tokio::test(flavor = "multi_thread")]
async fn usage_on_the_last_content_frame_stays() {
    let upstream = Upstream::start(|_| stream(full([CONTENT, LAST, DONE].concat()))).await;
    let gateway = asking(&upstream).start();
    let key = gateway.create_key(json!({})).await;
    let response = post(&Client::http1(), &gateway, &key, ODD).await;
    assert_eq!(response.text(), [CONTENT, LAST, DONE].concat());
    assert_eq!(gateway.usage(&key).await["tokens"]["total"], 18);
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_changed_if_disabled() {
    let events = [CONTENT, USAGE, DONE].concat();
    let sent = events.clone();
    let upstream = Upstream::start(move |_| stream(full(sent.clone()))).await;
    let gateway = GatewayCommand::before(upstream.base_url()).env("STREAM_USAGE", "off").start();
    let key = gateway.create_key(json!({})).await;
    for client in [Client::http1(), Client::http2()] {
        let response = post(&client, &gateway, &key, ODD).await;
        assert_eq!(response.text(), events);
        assert_eq!(response.header("content-length"), events.len().to_string());
        assert_eq!(upstream.last().body, ODD);
        assert_eq!(upstream.last().headers["accept-encoding"], "identity");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_event_arrives_before_the_upstream_sends_the_next() {
    for client in [Client::http1(), Client::http2()] {
        let (feed, body) = streaming();
        let body = Mutex::new(Some(body));
        let upstream = Upstream::start(move |_| stream(body.lock().unwrap().take().unwrap())).await;
        let gateway = asking(&upstream).start();
        let key = gateway.create_key(json!({})).await;
        feed.send(Ok(": keep-alive\n\n".into())).unwrap();
        let mut body = open(&client, &gateway, &key).await;
        assert_eq!(next(&mut body).await, ": keep-alive\n\n");
        // A piece of an event that has a choice cannot be the one that is taken out.
        let (begin, rest) = CONTENT.split_at(CONTENT.find("delta").unwrap());
        for piece in [CONTENT, begin, rest, ": keep-alive\n\n"] {
            feed.send(Ok(piece.into())).unwrap();
            assert_eq!(next(&mut body).await, piece);
        }
        let (begin, rest) = USAGE.split_at(40);
        for piece in [begin, rest, "data: [DONE]\n\n"] {
            feed.send(Ok(piece.into())).unwrap();
        }
        assert_eq!(next(&mut body).await, "data: [DONE]\n\n");
        drop(feed);
        assert_eq!(body.collect().await.unwrap().to_bytes(), "");
        assert_eq!(gateway.usage(&key).await["tokens"]["total"], 18);
    }
}

/// The body of the response to the odd request, as soon as it begins.
async fn open(client: &Client, gateway: &Gateway, key: &str) -> hyper::body::Incoming {
    let authorization = format!("Bearer {key}");
    let headers = [("authorization", authorization.as_str()), ("content-type", "application/json")];
    let url = gateway.url("/v1/chat/completions");
    client.open(Method::POST, &url, &headers, ODD).await.unwrap().into_body()
}

async fn next(body: &mut hyper::body::Incoming) -> Bytes {
    let frame =
        tokio::time::timeout(crate::common::DEADLINE, body.frame()).await.expect("a frame in time");
    frame.unwrap().unwrap().into_data().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broken_stream_stays_broken() {
    for client in [Client::http1(), Client::http2()] {
        let (feed, body) = streaming();
        let body = Mutex::new(Some(body));
        let upstream = Upstream::start(move |_| stream(body.lock().unwrap().take().unwrap())).await;
        let gateway = asking(&upstream).start();
        let key = gateway.create_key(json!({})).await;
        feed.send(Ok(CONTENT.into())).unwrap();
        let mut body = open(&client, &gateway, &key).await;
        assert_eq!(next(&mut body).await, CONTENT);
        feed.send(Ok(USAGE[..20].to_owned().into())).unwrap();
        feed.send(Err("broken".into())).unwrap();
        assert!(body.collect().await.is_err(), "an error, not the end");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_is_drained_for_its_usage_after_its_client_left() {
    let (feed, body) = streaming();
    let body = Mutex::new(Some(body));
    let upstream = Upstream::start(move |_| stream(body.lock().unwrap().take().unwrap())).await;
    let gateway = asking(&upstream).env("ON_CLIENT_GONE", "drain").start();
    let key = gateway.create_key(json!({})).await;
    let mut wire = Wire::connect(gateway.address()).await.unwrap();
    wire.write(&key, ODD).await.unwrap();
    feed.send(Ok(CONTENT.into())).unwrap();
    assert_eq!(wire.head().await.unwrap().status, 200);
    assert_eq!(wire.piece().await.unwrap(), CONTENT.as_bytes());
    drop(wire);
    feed.send(Ok(USAGE.into())).unwrap();
    drop(feed);
    eventually("its tokens", || async { gateway.usage(&key).await["tokens"]["total"] == 18 }).await;
}

/// Sends this head, and the body only once the gateway wants it. Returns what it says first, and
/// what it says then.
async fn expecting(gateway: &Gateway, key: &str) -> (String, String) {
    let mut socket = TcpStream::connect(gateway.address()).await.unwrap();
    let head = format!(
        "POST /v1/chat/completions HTTP/1.1\r\nHost: gateway\r\nAuthorization: Bearer {key}\r\n\
         Content-Type: application/json\r\nContent-Length: {}\r\nExpect: 100-continue\r\n\
         Connection: close\r\n\r\n",
        ODD.len()
    );
    socket.write_all(head.as_bytes()).await.unwrap();
    let mut first = Vec::new();
    while !first.windows(4).any(|end| end == b"\r\n\r\n") {
        assert_ne!(socket.read_buf(&mut first).await.unwrap(), 0);
    }
    let mut then = Vec::new();
    if first.starts_with(b"HTTP/1.1 100") {
        socket.write_all(ODD.as_bytes()).await.unwrap();
        socket.read_to_end(&mut then).await.unwrap();
    }
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (text(first), text(then))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rejected_request_is_not_read_and_costs_nothing() {
    let upstream = Upstream::start(openai).await;
    let gateway = asking(&upstream).start();
    let key = gateway.create_key(json!({"daily_limit": 1})).await;
    let (rejected, _) = expecting(&gateway, "trial-nobody").await;
    assert!(rejected.starts_with("HTTP/1.1 401"), "{rejected}");
    let (interim, response) = expecting(&gateway, &key).await;
    assert!(interim.starts_with("HTTP/1.1 100"), "{interim}");
    assert!(response.starts_with("HTTP/1.1 200") && !response.contains("usage\":{"), "{response}");
    assert_eq!(upstream.last().body, odd_asking());
    assert!(!upstream.last().headers.contains_key("expect"));
    let (rejected, _) = expecting(&gateway, &key).await;
    assert!(rejected.starts_with("HTTP/1.1 429"), "{rejected}");
    assert_eq!((upstream.count(), gateway.used(&key).await), (1, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_of_any_size_passes() {
    let upstream = Upstream::start(openai).await;
    let gateway = asking(&upstream).start();
    let key = gateway.create_key(json!({})).await;
    for client in [Client::http1(), Client::http2()] {
        for (size, is_changed) in [(1 << 20, true), ((1 << 20) + 1, false), (3 << 20, false)] {
            let body = ODD.to_owned() + &" ".repeat(size - ODD.len());
            let response = post(&client, &gateway, &key, &body).await;
            assert_eq!(response.text(), [CONTENT, DONE].concat());
            let expected = if is_changed { body.replace(ODD, &odd_asking()) } else { body };
            assert!(upstream.last().body == expected, "{size}");
        }
    }
}

/// Sends a chunked request body that ends in this way, and returns the status.
async fn send_chunks(gateway: &Gateway, key: &str, chunks: &str) -> String {
    let mut socket = TcpStream::connect(gateway.address()).await.unwrap();
    let request = format!(
        "POST /v1/chat/completions HTTP/1.1\r\nHost: gateway\r\nAuthorization: Bearer {key}\r\n\
         Content-Type: application/json\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n\
         {chunks}"
    );
    socket.write_all(request.as_bytes()).await.unwrap();
    let mut response = Vec::new();
    let _ = socket.read_to_end(&mut response).await;
    String::from_utf8_lossy(&response).split(' ').nth(1).unwrap_or_default().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn broken_request_bodies_are_rejected_as_without_stream_usage() {
    let upstream = Upstream::start(openai).await;
    let [off, ask] = ["off", "ask"].map(|setting| {
        let command = asking(&upstream).env("STREAM_USAGE", setting);
        command.env("MAX_BODY_BYTES", "100").env("CLIENT_TIMEOUT", "500ms").start()
    });
    let too_large = format!("40\r\n{}\r\n", " ".repeat(64)).repeat(2) + "0\r\n\r\n";
    for (chunks, status) in
        [("2\r\n{ \r\nzz\r\n", "400"), (too_large.as_str(), "413"), ("2\r\n{ \r\n", "400")]
    {
        for gateway in [&off, &ask] {
            let key = gateway.create_key(json!({})).await;
            assert_eq!(send_chunks(gateway, &key, chunks).await, status, "{chunks}");
        }
    }
    assert_eq!(upstream.calls().len(), 0, "none came whole");
    let key = ask.create_key(json!({})).await;
    let body = r#"{"stream":true}"#;
    assert_eq!(send_chunks(&ask, &key, &format!("f\r\n{body}\r\n0\r\n\r\n")).await, "200");
    let seen = upstream.last();
    assert_eq!(seen.body, format!("{{\"stream\":true{QUESTION}}}"));
    assert_eq!(seen.headers["transfer-encoding"], "chunked");
}

/// Posts a streamed chat as `curl -d` does, with no content type of one's own.
async fn post_like_curl(gateway: &Gateway, key: &str) -> CollectedResponse {
    let authorization = format!("Bearer {key}");
    let headers = [
        ("authorization", authorization.as_str()),
        ("content-type", "application/x-www-form-urlencoded"),
    ];
    let url = gateway.url("/v1/chat/completions");
    Client::http1().send(Method::POST, &url, &headers, ODD).await
}

#[tokio::test(flavor = "multi_thread")]
async fn usage_is_requested_by_default_whatever_the_content_type() {
    let upstream = Upstream::start(openai).await;
    let gateway =
        GatewayCommand::before(upstream.base_url()).env("USAGE_RETENTION_DAYS", "1").start();
    let key = gateway.create_key(json!({})).await;
    for _ in 0..3 {
        assert_eq!(post_like_curl(&gateway, &key).await.text(), [CONTENT, DONE].concat());
    }
    assert_eq!(upstream.last().body, odd_asking());
    assert_eq!(upstream.last().headers["content-type"], "application/x-www-form-urlencoded");
    assert_eq!(gateway.usage(&key).await["tokens"]["total"], 3 * 18);
    let kept = gateway.admin(Method::GET, "/admin/requests", &serde_json::Value::Null).await;
    assert_eq!(kept["requests"][0]["model_asked"], "m", "{kept}");
}

/// Rejects what it does not know, as some upstreams do.
fn strict(request: Request<Bytes>) -> Response<StubBody> {
    if !String::from_utf8_lossy(request.body()).contains("stream_options") {
        return stream(full([CONTENT, DONE].concat()));
    }
    let body = r#"{"error":{"message":"Unrecognized request argument supplied: stream_options",
        "type":"invalid_request_error","param":null,"code":null}}"#;
    Response::builder()
        .status(400)
        .header(CONTENT_TYPE, "application/json")
        .body(full(body))
        .unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upstream_that_rejects_the_option_gets_the_original_for_the_same_unit() {
    let upstream = Upstream::start(strict).await;
    let mut gateway = GatewayCommand::before(upstream.base_url()).start();
    let key = gateway.create_key(json!({"daily_limit": 10})).await;
    for (client, calls) in [(Client::http1(), 2), (Client::http2(), 3), (Client::http1(), 4)] {
        let response = post(&client, &gateway, &key, ODD).await;
        assert_eq!(response.text(), [CONTENT, DONE].concat());
        assert_eq!(upstream.count(), calls, "usage is requested no more");
        assert_eq!(upstream.last().body, ODD);
    }
    assert_eq!(gateway.used(&key).await, 3);
    assert_eq!(gateway.usage(&key).await["requests"]["succeeded"], 3);
    let notes = || gateway.printed().matches("upstream rejected stream_options").count();
    eventually("a line in the log", || async { notes() > 0 }).await;
    assert_eq!(notes(), 1);

    let asking = ODD.replace(
        "\"stream\" :true",
        "\"stream\" :true,\"stream_options\":{\"include_usage\":true}",
    );
    let rejected = post(&Client::http1(), &gateway, &key, &asking).await;
    assert_eq!(
        (rejected.status.as_u16(), upstream.count()),
        (400, 5),
        "a request that has the option itself is rejected"
    );

    gateway.restart();
    post(&Client::http1(), &gateway, &key, ODD).await;
    assert_eq!(upstream.count(), 7, "usage is requested again after a start");
}
