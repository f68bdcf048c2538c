//! The four limits: connecting, the head, the wait for a frame, and the whole.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use futures_util::future::join_all;
use http::{Request, Uri};
use http_body_util::Full;
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};
use tower::{ServiceExt, service_fn};
use tower_quota::{
    error::UpstreamFault,
    proxy::{ClientOptions, Timeouts, UpstreamProxyService, upstream_client_over},
};

use super::{
    common::DEADLINE,
    gateway::{proxy, serve},
    http1::{self, Socket},
    http2::{self, Connection},
    message::{Message, PAIRS, PROTOCOLS, Protocol, exchange, in_time},
    tls,
    upstream::Upstream,
};

const SHORT: Duration = Duration::from_millis(100);

#[tokio::test]
async fn the_connect_timeout_includes_tls() {
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let base = format!("https://{}", silent.local_addr().unwrap());
    let options = ClientOptions::default().connect_timeout(SHORT);
    let client = upstream_client_over(tls::connector(), options);
    let proxy = UpstreamProxyService::new(client, base.parse().unwrap());
    let request = Request::get("/").header("host", "a").body(Full::<Bytes>::default()).unwrap();
    let response = in_time(DEADLINE, proxy.oneshot(request)).await.unwrap();
    assert_eq!(response.status(), 502);
    assert_eq!(response.extensions().get(), Some(&UpstreamFault::Unreached));
}

#[tokio::test(start_paused = true)]
async fn requests_that_wait_for_one_connection_fail_with_it() {
    let attempts = Arc::new(AtomicUsize::new(0));
    let counted = attempts.clone();
    let connector = service_fn(move |_: Uri| {
        counted.fetch_add(1, Ordering::Relaxed);
        std::future::pending::<io::Result<TokioIo<TcpStream>>>()
    });
    let client = upstream_client_over(connector, ClientOptions::default().connect_timeout(SHORT));
    let proxy = UpstreamProxyService::new(client, "https://upstream.example".parse().unwrap());
    let began = tokio::time::Instant::now();
    let requests = (0..50).map(|_| {
        let request = Request::get("/").header("host", "a").body(Full::<Bytes>::default()).unwrap();
        proxy.clone().oneshot(request)
    });
    for response in join_all(requests).await {
        assert_eq!(response.unwrap().extensions().get(), Some(&UpstreamFault::Unreached));
    }
    assert_eq!((attempts.load(Ordering::Relaxed), began.elapsed()), (1, SHORT));
}

#[tokio::test]
async fn a_missing_response_head_times_out() {
    for limit in [Timeouts::new().head(SHORT), Timeouts::new().total(SHORT)] {
        for (client, server) in PAIRS {
            let mut upstream = Upstream::holding(server, None).await;
            let gateway = serve(proxy(&upstream.url).timeouts(limit)).await;
            let response = exchange(client, &gateway, &Message::new("POST /v1/x").body("{}")).await;
            assert_eq!((&*response.start, &*response.code()), ("504", "upstream_timeout"));
            upstream.seen().await;
            in_time(DEADLINE, upstream.left()).await;
        }
    }
}

/// Sends a request, and expects a response that begins well and breaks off.
async fn expect_broken(client: Protocol, gateway: &str) {
    let request = Message::new("GET /v1/x");
    let broken = async {
        match client {
            Protocol::Http1 => {
                let mut socket = Socket::connect(gateway).await;
                socket.send(http1::request(&request)).await;
                assert!(socket.message(true).await.is_none(), "it ends as if complete");
                let received = String::from_utf8(socket.recorded).unwrap();
                assert!(received.contains("data: 1\n\n"), "{received}");
            }
            Protocol::Http2 => {
                let mut connection = Connection::open(gateway).await;
                let (response, _stream) = connection.send(&request, true).await;
                let mut response = response.await.unwrap();
                let mut message = http2::received_head(&response);
                let read = http2::read(response.body_mut(), &mut message).await;
                assert!(read.is_none(), "it ends as if complete");
                assert!(message.text().starts_with("data: 1\n\n"), "{message:?}");
            }
        }
    };
    in_time(DEADLINE, broken).await;
}

#[tokio::test]
async fn a_stream_that_stalls_is_cut_on_both_sides() {
    for (client, server) in PAIRS {
        let beginning = Message::new("200").body("data: 1\n\n");
        let mut upstream = Upstream::holding(server, Some(beginning)).await;
        let limit = Timeouts::new().idle(SHORT);
        let gateway = serve(proxy(&upstream.url).timeouts(limit)).await;
        expect_broken(client, &gateway).await;
        upstream.seen().await;
        in_time(DEADLINE, upstream.left()).await;
    }
}

#[tokio::test]
#[expect(clippy::disallowed_methods, reason = "one task for the upstream")]
async fn an_endless_stream_is_cut_by_the_total_timeout() {
    for client in PROTOCOLS {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let limit = Timeouts::new().idle(DEADLINE).total(3 * SHORT);
        let gateway = serve(proxy(&url).timeouts(limit)).await;
        let upstream = tokio::spawn(async move {
            let mut socket = Socket::new(listener.accept().await.unwrap().0);
            socket.head().await;
            socket.send("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n").await;
            let mut pace = tokio::time::interval(SHORT / 10);
            loop {
                tokio::select! {
                    () = socket.closed() => return,
                    _ = pace.tick() => {}
                }
                socket.send("9\r\ndata: 1\n\n\r\n").await;
            }
        });
        expect_broken(client, &gateway).await;
        // It may have been writing when the gateway left.
        let _ = in_time(DEADLINE, upstream).await;
    }
}
