//! One request in makes one request out, but for the one safe repetition: a stale connection.

use tokio::{
    net::TcpListener,
    sync::mpsc::{UnboundedReceiver, unbounded_channel},
    task::AbortHandle,
};

use super::{
    gateway::gateway,
    http1::Socket,
    message::{
        Message,
        Protocol::{Http1, Http2},
        exchange,
    },
};

/// What the upstream does once it has read a request's head.
#[derive(Clone, Copy)]
enum Then {
    Respond,
    Close,
    BeginAndClose,
}

use Then::{BeginAndClose, Close, Respond};

struct Closing {
    url: String,
    seen: UnboundedReceiver<String>,
    server: AbortHandle,
}

impl Drop for Closing {
    fn drop(&mut self) {
        self.server.abort();
    }
}

/// An upstream that does this with the requests of each of its connections, one after another, and
/// takes no more of them.
#[expect(clippy::disallowed_methods, reason = "one task for the server")]
async fn upstream(connections: &'static [&'static [Then]]) -> Closing {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let (sender, seen) = unbounded_channel();
    let server = tokio::spawn(async move {
        for requests in connections {
            let mut socket = Socket::new(listener.accept().await.unwrap().0);
            for then in *requests {
                let Some(request) = socket.head().await else { break };
                let _ = sender.send(request.start);
                match then {
                    Respond => socket.send("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await,
                    BeginAndClose => socket.send("HTTP/1.1 20").await,
                    Close => {}
                }
            }
        }
    });
    Closing { url, seen, server: server.abort_handle() }
}

/// Requests `/v1/1`, then sends this; returns the second response, and all that the upstream received.
async fn after_another(
    connections: &'static [&'static [Then]],
    request: Message,
) -> (Message, Vec<String>) {
    let mut upstream = upstream(connections).await;
    let gateway = gateway(&upstream.url).await;
    assert_eq!(exchange(Http1, &gateway, &Message::new("GET /v1/1")).await.start, "200");
    let response = exchange(Http2, &gateway, &request).await;
    let mut seen = Vec::new();
    while let Ok(start) = upstream.seen.try_recv() {
        seen.push(start);
    }
    (response, seen)
}

#[tokio::test]
async fn a_safe_request_without_a_body_is_retried_over_another_connection() {
    for method in ["GET", "HEAD", "OPTIONS"] {
        let request = Message::new(&format!("{method} /v1/2"));
        let (response, seen) = after_another(&[&[Respond, Close], &[Respond]], request).await;
        assert_eq!(response.start, "200", "{method}");
        let second = format!("{method} /api/2");
        assert_eq!(seen, ["GET /api/1", &second, &second]);
    }
}

#[tokio::test]
async fn a_request_is_retried_once() {
    let request = Message::new("GET /v1/2");
    let connections: &[&[Then]] = &[&[Respond, Close], &[Close], &[Respond]];
    let (response, seen) = after_another(connections, request).await;
    assert_eq!(response.start, "502");
    assert_eq!(seen, ["GET /api/1", "GET /api/2", "GET /api/2"]);
}

#[tokio::test]
async fn an_upstream_that_may_have_seen_a_request_does_not_count_as_unreached() {
    let (response, seen) = after_another(&[&[Respond, Close]], Message::new("GET /v1/2")).await;
    assert_eq!((&*response.start, &*response.code()), ("502", "upstream_protocol"));
    assert_eq!(seen, ["GET /api/1", "GET /api/2"]);
}

#[tokio::test]
async fn unsafe_requests_and_requests_with_a_body_are_not_retried() {
    for request in ["POST /v1/2", "PATCH /v1/2", "PUT /v1/2", "DELETE /v1/2"] {
        let (response, seen) =
            after_another(&[&[Respond, Close], &[Respond]], Message::new(request)).await;
        assert_eq!((&*response.start, seen.len()), ("502", 2), "{request}");
    }
    for request in ["POST /v1/2", "PUT /v1/2", "GET /v1/2"] {
        let request = Message::new(request).body("{}");
        let (response, seen) = after_another(&[&[Respond, Close], &[Respond]], request).await;
        assert_eq!((&*response.start, seen.len()), ("502", 2), "{seen:?}");
    }
}

#[tokio::test]
async fn a_request_whose_response_has_begun_is_not_retried() {
    let request = Message::new("GET /v1/2");
    let connections: &[&[Then]] = &[&[Respond, BeginAndClose], &[Respond]];
    let (response, seen) = after_another(connections, request).await;
    assert_eq!((&*response.start, seen.len()), ("502", 2));
}

#[tokio::test]
async fn a_new_connection_is_never_stale() {
    let mut upstream = upstream(&[&[Close], &[Respond]]).await;
    let gateway = gateway(&upstream.url).await;
    let response = exchange(Http1, &gateway, &Message::new("GET /v1/1")).await;
    assert_eq!((&*response.start, &*response.code()), ("502", "upstream_protocol"));
    assert_eq!(upstream.seen.recv().await.unwrap(), "GET /api/1");
    assert!(upstream.seen.try_recv().is_err());
}
