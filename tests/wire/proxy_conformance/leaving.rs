//! A client that leaves frees the upstream within a second, whatever was going on.

use std::time::Duration;

use super::{
    gateway::gateway,
    http1::{self, Socket},
    http2::Connection,
    message::{
        Message, PAIRS,
        Protocol::{self, Http1, Http2},
        in_time,
    },
    upstream::Upstream,
};

/// A second, and what a busy machine may add.
const SOON: Duration = Duration::from_secs(5);

/// Sends the request and leaves once the upstream has it and, if there is a response, its begin has
/// come. Over HTTP/2 only the stream is left.
async fn leave_after(
    client: Protocol,
    mut upstream: Upstream,
    request: &Message,
    begun: Option<&str>,
) {
    let gateway = gateway(&upstream.url).await;
    let is_whole = request.all("content-length").is_empty();
    match client {
        Http1 => {
            let mut socket = Socket::connect(&gateway).await;
            socket.send(http1::request(request)).await;
            upstream.seen().await;
            if let Some(begun) = begun {
                assert_eq!(socket.head().await.unwrap().start, "200");
                assert!(socket.through(begun.as_bytes()).await.is_some());
            }
            drop(socket);
            in_time(SOON, upstream.left()).await;
        }
        Http2 => {
            let mut connection = Connection::open(&gateway).await;
            let (response, mut stream) = connection.send(request, is_whole).await;
            if !is_whole {
                stream.send_data(request.body.clone().into(), false).unwrap();
            }
            upstream.seen().await;
            let mut response = Some(response);
            let mut body = None;
            if let Some(begun) = begun {
                let received = response.take().unwrap().await.unwrap();
                let begin = body.insert(received.into_body()).data().await.unwrap().unwrap();
                assert_eq!(begin, begun);
            }
            drop((response, body, stream));
            in_time(SOON, upstream.left()).await;
        }
    }
}

#[tokio::test]
async fn leaving_before_the_head_frees_the_upstream() {
    for (client, server) in PAIRS {
        let upstream = Upstream::holding(server, None).await;
        leave_after(client, upstream, &Message::new("GET /v1/x"), None).await;
        let upstream = Upstream::holding(server, None).await;
        leave_after(client, upstream, &Message::new("POST /v1/x").body("{}"), None).await;
    }
}

#[tokio::test]
async fn leaving_a_stream_frees_the_upstream() {
    for (client, server) in PAIRS {
        let beginning = Message::new("200").body("data: 1\n\n");
        let upstream = Upstream::holding(server, Some(beginning)).await;
        leave_after(client, upstream, &Message::new("GET /v1/x"), Some("data: 1\n\n")).await;
    }
}

#[tokio::test]
async fn leaving_during_the_request_body_frees_the_upstream() {
    for (client, server) in PAIRS {
        let upstream = Upstream::holding(server, None).await;
        let request = Message::new("POST /v1/x").header("content-length", "1000").body("begun");
        leave_after(client, upstream, &request, None).await;
    }
}

// Over HTTP/1 the end comes after the bytes that are not read, so only the time limits see it.
#[tokio::test]
async fn leaving_an_unread_http2_request_body_frees_the_upstream() {
    let upstream = Upstream::holding(Http2, None).await;
    let length = (4 << 20).to_string();
    let request = Message::new("POST /v1/x").header("content-length", &length);
    leave_after(Http2, upstream, &request.body(vec![0; 3 << 20]), None).await;
}
