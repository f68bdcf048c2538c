//! Failures are responses whose extensions carry the reason.

use std::{
    convert::Infallible,
    future::Ready,
    io,
    task::{Context, Poll},
};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full, Limited, StreamBody};
use hyper::body::{Body, Frame};
use tokio::net::TcpListener;
use tower::{Service, ServiceExt};
use tower_quota::{
    error::{Rejected, UpstreamFault},
    proxy::UpstreamProxyService,
};

use super::{
    gateway::{BoxError, gateway, proxy},
    message::{Message, PAIRS, PROTOCOLS, Protocol, exchange},
    upstream::Upstream,
};

fn post<B>(body: B) -> Request<B> {
    Request::post("/v1/x").header("host", "gateway").body(body).unwrap()
}

/// The proxy's response: status, fault, and the code for layers outside.
async fn fault_of<B>(upstream: &str, body: B) -> (u16, Option<UpstreamFault>, &'static str)
where
    B: Body<Data: Send, Error: Into<BoxError>> + Send + Unpin + 'static,
{
    let response = proxy(upstream).oneshot(post(body)).await.unwrap();
    let rejected = response.extensions().get().map_or("", |Rejected { code, .. }| *code);
    (response.status().as_u16(), response.extensions().get().copied(), rejected)
}

#[tokio::test]
async fn statuses_that_are_replaced_say_why() {
    use UpstreamFault::{
        Credentials, Failed, Forbidden, Protocol as Broken, RateLimited, Redirect,
    };
    for protocol in PROTOCOLS {
        for (status, replaced, fault) in [
            ("101", 502, Broken),
            ("301", 502, Redirect),
            ("304", 502, Redirect),
            ("307", 502, Redirect),
            ("401", 502, Credentials),
            ("402", 502, Credentials),
            ("403", 502, Forbidden),
            ("429", 503, RateLimited),
            ("500", 500, Failed),
            ("503", 503, Failed),
            ("599", 599, Failed),
        ] {
            // HTTP/2 has no 101.
            if protocol == Protocol::Http2 && status == "101" {
                continue;
            }
            let mut upstream = Upstream::responding(protocol, Message::new(status)).await;
            let seen = fault_of(&upstream.url, Full::<Bytes>::default()).await;
            assert_eq!(seen, (replaced, Some(fault), fault.code()), "{status}");
            upstream.seen().await;
            upstream.saw_no_more();
        }
    }
}

#[tokio::test]
async fn every_other_status_is_forwarded_with_its_text() {
    for (client, server) in PAIRS {
        for status in ["200", "201", "299", "400", "404", "409", "418", "422", "451"] {
            let upstream = Upstream::responding(server, Message::new(status).body("text")).await;
            let gateway = gateway(&upstream.url).await;
            let response = exchange(client, &gateway, &Message::new("POST /v1/x")).await;
            assert_eq!((&*response.start, &*response.text()), (status, "text"));
        }
        let upstream = Upstream::responding(server, Message::new("200")).await;
        assert_eq!(fault_of(&upstream.url, Full::<Bytes>::default()).await, (200, None, ""));
    }
}

#[tokio::test]
async fn an_upstream_that_does_not_listen_is_unreached() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    let seen = fault_of(&url, Full::<Bytes>::default()).await;
    assert_eq!(seen, (502, Some(UpstreamFault::Unreached), "upstream_unreachable"));
}

#[tokio::test]
async fn an_upstream_with_an_untrusted_certificate_is_unreached() {
    let upstream = Upstream::responding(Protocol::Http2, Message::new("200")).await;
    let client = tower_quota::proxy::upstream_client(Default::default()).unwrap();
    let proxy = UpstreamProxyService::new(client, upstream.url.parse().unwrap());
    let response = proxy.oneshot(post(Full::<Bytes>::default())).await.unwrap();
    assert_eq!(response.extensions().get(), Some(&UpstreamFault::Unreached));
}

#[tokio::test]
async fn a_request_that_is_too_large_or_breaks_off_is_the_clients_fault() {
    for protocol in PROTOCOLS {
        let upstream = Upstream::responding(protocol, Message::new("200")).await;
        let large = Limited::new(Full::new(Bytes::from_static(b"too much")), 3);
        let seen = fault_of(&upstream.url, large).await;
        assert_eq!(seen, (413, Some(UpstreamFault::RequestTooLarge), "request_too_large"));

        let broken = StreamBody::new(futures_util::stream::iter([
            Ok(Frame::data(Bytes::from_static(b"x"))),
            Err(io::Error::other("client left")),
        ]));
        let seen = fault_of(&upstream.url, broken).await;
        assert_eq!(seen, (400, Some(UpstreamFault::RequestBroken), "request_body_broken"));
    }
}

#[tokio::test]
async fn a_transport_that_is_never_ready() {
    #[derive(Clone)]
    struct Closed;

    impl<B> Service<Request<B>> for Closed {
        type Response = Response<Full<Bytes>>;
        type Error = io::Error;
        type Future = Ready<Result<Self::Response, Self::Error>>;

        fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
            Poll::Ready(Err(io::Error::other("no connection to be had")))
        }

        fn call(&mut self, _: Request<B>) -> Self::Future {
            unreachable!("not ready")
        }
    }

    let proxy = UpstreamProxyService::new(Closed, "http://upstream".parse().unwrap());
    let response: Result<_, Infallible> = proxy.oneshot(post(Full::<Bytes>::default())).await;
    let (head, body) = response.unwrap().into_parts();
    assert_eq!(head.status, 502);
    assert_eq!(head.extensions.get(), Some(&UpstreamFault::Unreached));
    let body = body.collect().await.unwrap().to_bytes();
    assert!(!String::from_utf8_lossy(&body).contains("to be had"));
}
