//! The proxy over real sockets: bytes pass both ways untouched and as they come, what belongs to
//! one hop or to the sponsor stays, and what breaks is never shown as complete.
#![cfg(all(feature = "client", feature = "openai"))]
#![allow(clippy::unwrap_used, reason = "tests")]

mod proxy_wire;

use std::{
    convert::Infallible,
    io::Write,
    sync::{Arc, Mutex},
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode, Version, header};
use http_body_util::{BodyExt, Full, Limited, StreamBody, combinators::BoxBody};
use hyper::body::{Body, Frame, Incoming};
use proxy_wire::{client, frames, http2_client, serve};
use tokio::sync::{mpsc, oneshot};
use tower::{Service, ServiceExt, service_fn};
use tower_quota::{
    error::{Rejected, UpstreamFault},
    openai::{OpenAiErrors, proxy_rules},
    proxy::{
        CachedGet, ClientOptions, RequestBody, Timeouts, UpstreamClient, UpstreamProxyService,
        upstream_client,
    },
};

type BoxError = Box<dyn std::error::Error + Send + Sync>;

const SPONSOR: &str = "sk-sponsor-0123456789";

type Proxy<B = Incoming> = UpstreamProxyService<UpstreamClient<RequestBody<B>>, OpenAiErrors>;

fn proxy<B>(upstream: &str) -> Proxy<B>
where
    B: Body<Data: Send, Error: Into<BoxError>> + Send,
{
    let client = upstream_client(ClientOptions::default()).unwrap();
    UpstreamProxyService::new(client, format!("{upstream}/api").parse().unwrap())
        .mount("/v1")
        .credential(HeaderValue::from_str(&format!("Bearer {SPONSOR}")).unwrap())
        .rules(proxy_rules())
        .reject(OpenAiErrors)
}

fn post(uri: impl AsRef<str>, body: impl Into<Bytes>) -> Request<Full<Bytes>> {
    Request::post(uri.as_ref()).body(Full::new(body.into())).unwrap()
}

fn full(body: impl Into<Bytes>) -> BoxBody<Bytes, std::io::Error> {
    Full::new(body.into()).map_err(|never| match never {}).boxed()
}

async fn text(response: Response<impl Body<Data = Bytes, Error: std::fmt::Debug>>) -> String {
    let body = response.into_body().collect().await.unwrap().to_bytes();
    String::from_utf8(body.into()).unwrap()
}

async fn code(response: Response<Incoming>) -> String {
    let object: serde_json::Value = serde_json::from_str(&text(response).await).unwrap();
    object["error"]["code"].as_str().unwrap().to_owned()
}

fn gzip(text: &[u8]) -> Bytes {
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    gzip.write_all(text).unwrap();
    gzip.finish().unwrap().into()
}

#[tokio::test]
async fn bytes_pass_both_ways_untouched() {
    let upstream = serve(service_fn(|request: Request<Incoming>| async move {
        let (head, body) = request.into_parts();
        let mut response = Response::new(full(body.collect().await.unwrap().to_bytes()));
        let path = head.uri.path_and_query().unwrap().as_str();
        response.headers_mut().insert("x-seen", path.parse().unwrap());
        for name in ["content-type", "content-encoding"] {
            if let Some(value) = head.headers.get(name) {
                response.headers_mut().insert(name, value.clone());
            }
        }
        Ok::<_, Infallible>(response)
    }))
    .await;
    let gateway = serve(proxy(&upstream)).await;

    let json = r#"{ "seed":12345678901234567890,"unknown":{"b":1,"a":1.0},"\u00e9":"é" }"#;
    let uri = format!("{gateway}/v1/chat/completions?x=%2e&y=//");
    let response = client().request(post(uri, json)).await.unwrap();
    assert_eq!(response.headers()["x-seen"], "/api/chat/completions?x=%2e&y=//");
    assert_eq!(text(response).await, json);

    let gzip = gzip(json.as_bytes());
    let mut request = post(format!("{gateway}/v1/x"), gzip.clone());
    let coding = HeaderValue::from_static("gzip");
    request.headers_mut().insert(header::CONTENT_ENCODING, coding.clone());
    let response = client().request(request).await.unwrap();
    assert_eq!(response.headers()[header::CONTENT_ENCODING], coding);
    assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), gzip);

    let upload: Bytes =
        (0..5_000_000_u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let response = client().request(post(format!("{gateway}/v1/x"), upload.clone())).await;
    let echo = response.unwrap().into_body().collect().await.unwrap();
    assert!(echo.to_bytes() == upload);
}

#[tokio::test]
async fn a_frame_arrives_before_the_next_is_sent() {
    let (send, receive) = mpsc::channel::<&str>(1);
    let receive = Arc::new(Mutex::new(Some(receive)));
    let upstream = serve(service_fn(move |_: Request<Incoming>| {
        let body = frames(receive.lock().unwrap().take().unwrap());
        async { Ok::<_, Infallible>(Response::new(body)) }
    }))
    .await;
    let gateway = serve(proxy(&upstream)).await;
    let response = client().request(post(format!("{gateway}/v1/x"), "")).await.unwrap();
    let mut body = response.into_body();
    for event in ["data: 1\n\n", "data: 2\n\n", "data: [DONE]\n\n"] {
        send.send(event).await.unwrap();
        let frame = body.frame().await.unwrap().unwrap();
        assert_eq!(frame.into_data().unwrap(), event);
    }
    drop(send);
    assert!(body.frame().await.is_none());
}

#[tokio::test]
async fn headers_of_one_hop_and_identity_stay_behind() {
    let (seen, mut heads) = mpsc::unbounded_channel::<(Version, HeaderMap)>();
    let upstream = serve(service_fn(move |request: Request<Incoming>| {
        let _ = seen.send((request.version(), request.headers().clone()));
        let answer = Response::builder()
            .header("connection", "x-hop")
            .header("connection", "keep-alive, x-other-hop")
            .header("x-hop", "1")
            .header("x-other-hop", "1")
            .header("x-end", "1")
            .header("server", "upstream")
            .header("set-cookie", "a=b")
            .header("openai-organization", "sponsor")
            .header("x-ratelimit-limit-requests", "9")
            .body(full("ok"));
        async { Ok::<_, Infallible>(answer.unwrap()) }
    }))
    .await;
    let gateway = serve(proxy(&upstream)).await;
    let dropped = [
        ("x-hop", "1"),
        ("x-other-hop", "1"),
        ("keep-alive", "5"),
        ("x-trial-key", "trial"),
        ("x-admin-token", "admin"),
        ("cookie", "a=b"),
        ("forwarded", "for=1.2.3.4"),
        ("x-forwarded-for", "1.2.3.4"),
        ("via", "1.1 x"),
    ];
    let mut request = Request::get(format!("{gateway}/v1/x"))
        .header("connection", "x-hop")
        .header("connection", "X-Other-Hop")
        .header("te", "trailers, gzip")
        .header("authorization", "Bearer trial")
        .header("accept-encoding", "gzip");
    for (name, value) in dropped {
        request = request.header(name, value);
    }
    let request = request.body(Full::default()).unwrap();
    let response = client().request(request).await.unwrap();

    let (version, head) = heads.recv().await.unwrap();
    assert_eq!(version, Version::HTTP_11);
    for (name, _) in dropped {
        assert!(!head.contains_key(name), "{name}");
    }
    assert_eq!(head["te"], "trailers");
    assert_eq!(head["accept-encoding"], "gzip");
    assert_eq!(head["authorization"], format!("Bearer {SPONSOR}"));
    assert_eq!(head["host"], upstream.strip_prefix("http://").unwrap());
    assert_eq!(head.get_all("host").iter().count(), 1);

    assert_eq!(response.headers()["x-end"], "1");
    for name in ["x-hop", "x-other-hop", "server", "set-cookie", "openai-organization"] {
        assert!(!response.headers().contains_key(name), "{name}");
    }
    assert!(!response.headers().contains_key("x-ratelimit-limit-requests"));
    assert_eq!(text(response).await, "ok");
}

#[tokio::test]
async fn an_http2_client_reaches_an_http1_upstream() {
    let upstream = serve(service_fn(|request: Request<Incoming>| async move {
        assert_eq!(request.version(), Version::HTTP_11);
        let hosts = request.headers().get_all("host").iter().count();
        let body = request.into_body().collect().await.unwrap().to_bytes();
        let response =
            Response::builder().header("connection", "keep-alive").header("x-hosts", hosts);
        Ok::<_, Infallible>(response.body(full(body)).unwrap())
    }))
    .await;
    let gateway = serve(proxy(&upstream)).await;
    let request = post(format!("{gateway}/v1/x"), "over h2");
    let response = http2_client().request(request).await.unwrap();
    assert_eq!((response.version(), response.status().as_u16()), (Version::HTTP_2, 200));
    assert_eq!(response.headers()["x-hosts"], "1");
    assert_eq!(text(response).await, "over h2");
}

#[tokio::test]
async fn an_upstream_that_refuses_is_unreachable() {
    let nobody = proxy_wire::closed_port().await;
    let gateway = serve(proxy(&nobody)).await;
    let response = client().request(post(format!("{gateway}/v1/x"), "{}")).await.unwrap();
    assert_eq!(response.status(), StatusCode::BAD_GATEWAY);
    assert_eq!(response.headers()["content-type"], "application/json");
    assert_eq!(response.headers()["cache-control"], "no-store");
    assert_eq!(code(response).await, "upstream_unreachable");
}

#[tokio::test]
async fn tls_counts_into_the_connect_timeout() {
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let base = format!("https://{}", silent.local_addr().unwrap());
    let options = ClientOptions::default().connect_timeout(Duration::from_millis(50));
    let client = upstream_client(options).unwrap();
    let proxy = UpstreamProxyService::new(client, base.parse().unwrap());
    let request = Request::get("/").header("host", "a").body(Full::<Bytes>::default()).unwrap();
    let response = proxy.oneshot(request).await.unwrap();
    assert_eq!(response.status(), 502);
    assert_eq!(response.extensions().get(), Some(&UpstreamFault::Unreached));
}

#[tokio::test]
async fn a_late_head_is_a_timeout() {
    let upstream = serve(service_fn(|_: Request<Incoming>| {
        std::future::pending::<Result<Response<Full<Bytes>>, Infallible>>()
    }))
    .await;
    let limit = Timeouts::new().head(Duration::from_millis(50));
    let gateway = serve(proxy(&upstream).timeouts(limit)).await;
    let response = client().request(post(format!("{gateway}/v1/x"), "{}")).await.unwrap();
    assert_eq!(response.status(), StatusCode::GATEWAY_TIMEOUT);
    assert_eq!(code(response).await, "upstream_timeout");
}

#[tokio::test]
async fn a_body_that_breaks_or_stalls_never_ends_as_complete() {
    for breaks in [true, false] {
        let (go_on, gone_on) = oneshot::channel::<()>();
        let gone_on = Arc::new(Mutex::new(Some(gone_on)));
        let upstream = serve(service_fn(move |_: Request<Incoming>| {
            let gone_on = gone_on.lock().unwrap().take();
            let first = Bytes::from_static(b"data: 1\n\n");
            let first = futures_util::stream::iter([Ok(Frame::data(first))]);
            let then = futures_util::stream::once(async move {
                gone_on.unwrap().await.unwrap();
                if !breaks {
                    std::future::pending::<()>().await;
                }
                Err(std::io::Error::other("broken"))
            });
            let body = StreamBody::new(futures_util::StreamExt::chain(first, then));
            async { Ok::<_, Infallible>(Response::new(body)) }
        }))
        .await;
        let limit = Timeouts::new().idle((!breaks).then_some(Duration::from_millis(250)));
        let gateway = serve(proxy(&upstream).timeouts(limit)).await;
        let response = client().request(post(format!("{gateway}/v1/x"), "{}")).await.unwrap();
        assert_eq!(response.status(), 200);
        let mut body = response.into_body();
        assert_eq!(body.frame().await.unwrap().unwrap().into_data().unwrap(), "data: 1\n\n");
        go_on.send(()).unwrap();
        assert!(body.collect().await.is_err(), "breaks: {breaks}");
    }
}

#[tokio::test]
async fn an_echoed_credential_is_masked() {
    let upstream = serve(service_fn(|request: Request<Incoming>| async move {
        let key = request.headers()["authorization"].clone();
        let text = format!("bad key {} in request", key.to_str().unwrap());
        let response = Response::builder().status(400).header("x-echo", key);
        let (coding, body) = match request.uri().path() {
            "/api/gzip" => ("gzip", gzip(text.as_bytes())),
            "/api/br" => ("br", text.into()),
            _ => ("identity", text.into()),
        };
        let response = response.header("content-encoding", coding);
        Ok::<_, Infallible>(response.body(full(body)).unwrap())
    }))
    .await;
    let gateway = serve(proxy(&upstream)).await;
    let masked = format!("bad key Bearer {} in request", "*".repeat(SPONSOR.len()));
    for path in ["plain", "gzip"] {
        let request = post(format!("{gateway}/v1/{path}"), "{}");
        let response = client().request(request).await.unwrap();
        assert_eq!(response.status(), 400);
        assert!(!response.headers().contains_key("x-echo"));
        assert_eq!(text(response).await, masked, "{path}");
    }
    let response = client().request(post(format!("{gateway}/v1/br"), "{}")).await.unwrap();
    assert_eq!(response.status(), 400);
    assert_eq!(code(response).await, "upstream_refused");
}

#[tokio::test]
async fn the_table_of_statuses() {
    let upstream = serve(service_fn(|request: Request<Incoming>| async move {
        let status: u16 = request.uri().path().rsplit('/').next().unwrap().parse().unwrap();
        let mut response = Response::builder().status(status).header("retry-after", "7");
        if status / 100 == 3 {
            response = response.header("location", "http://elsewhere.example/");
        }
        Ok::<_, Infallible>(response.body(full("the upstream's text")).unwrap())
    }))
    .await;
    let gateway = serve(proxy(&upstream)).await;
    for (status, expected) in [
        (101, (502, "upstream_protocol")),
        (301, (502, "upstream_redirect")),
        (304, (502, "upstream_redirect")),
        (307, (502, "upstream_redirect")),
        (401, (502, "upstream_credentials")),
        (402, (502, "upstream_credentials")),
        (403, (502, "upstream_credentials")),
        (429, (503, "upstream_rate_limited")),
        (500, (500, "upstream_failed")),
        (503, (503, "upstream_failed")),
        (599, (599, "upstream_failed")),
    ] {
        let request = post(format!("{gateway}/v1/{status}"), "{}");
        let response = client().request(request).await.unwrap();
        assert!(!response.headers().contains_key("location"));
        if status > 101 {
            assert_eq!(response.headers()["retry-after"], "7", "{status}");
        }
        let seen = (response.status().as_u16(), code(response).await);
        assert_eq!((seen.0, &*seen.1), expected, "{status}");
    }
    for status in [200, 201, 400, 404, 409, 418, 422] {
        let request = post(format!("{gateway}/v1/{status}"), "{}");
        let response = client().request(request).await.unwrap();
        assert_eq!(response.status(), status);
        assert_eq!(text(response).await, "the upstream's text");
    }
}

#[tokio::test]
async fn a_request_over_the_limit_is_the_clients_fault() {
    let upstream = serve(service_fn(|request: Request<Incoming>| async move {
        let _ = request.into_body().collect().await;
        Ok::<_, Infallible>(Response::new(full("")))
    }))
    .await;
    let request = Request::post("/v1/x")
        .header("host", "gateway")
        .body(Limited::new(Full::new(Bytes::from_static(b"too much")), 3))
        .unwrap();
    let response = proxy(&upstream).oneshot(request).await.unwrap();
    assert_eq!(response.status(), 413);
    assert_eq!(response.extensions().get(), Some(&UpstreamFault::RequestTooLarge));
    let rejected = Rejected { code: "request_too_large" };
    assert_eq!(response.extensions().get(), Some(&rejected));

    let broken = StreamBody::new(futures_util::stream::iter([
        Ok(Frame::data(Bytes::from_static(b"x"))),
        Err(std::io::Error::other("client left")),
    ]));
    let request = Request::post("/v1/x").header("host", "gateway").body(broken).unwrap();
    let response = proxy(&upstream).oneshot(request).await.unwrap();
    assert_eq!(response.status(), 400);
    assert_eq!(response.extensions().get(), Some(&UpstreamFault::RequestBroken));
}

#[tokio::test]
async fn a_transport_that_is_never_ready_is_unreachable() {
    #[derive(Clone)]
    struct Closed;

    impl<B> Service<Request<B>> for Closed {
        type Response = Response<Full<Bytes>>;
        type Error = std::io::Error;
        type Future = std::future::Ready<Result<Self::Response, Self::Error>>;

        fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
            Poll::Ready(Err(std::io::Error::other("no connection to be had")))
        }

        fn call(&mut self, _: Request<B>) -> Self::Future {
            unreachable!("not ready")
        }
    }

    let proxy = UpstreamProxyService::new(Closed, "http://upstream".parse().unwrap());
    let request = Request::get("/").header("host", "a").body(Full::<Bytes>::default()).unwrap();
    let response = proxy.oneshot(request).await.unwrap();
    assert_eq!(response.status(), 502);
    assert_eq!(response.extensions().get(), Some(&UpstreamFault::Unreached));
    assert!(!text(response).await.contains("to be had"));
}

#[tokio::test]
async fn a_bad_target_never_leaves() {
    let gateway = serve(proxy(&proxy_wire::closed_port().await)).await;
    for (lines, expected) in [
        ("GET /v1/../admin HTTP/1.1\r\nHost: a\r\n", "HTTP/1.1 400"),
        ("GET /v1/%252e%252e/x HTTP/1.1\r\nHost: a\r\n", "HTTP/1.1 400"),
        ("GET http://a/v1/x HTTP/1.1\r\nHost: a\r\n", "HTTP/1.1 400"),
        ("GET /v1/x HTTP/1.1\r\n", "HTTP/1.1 400"),
        ("GET /v1/x HTTP/1.1\r\nHost: a\r\nHost: a\r\n", "HTTP/1.1 400"),
        ("TRACE /v1/x HTTP/1.1\r\nHost: a\r\n", "HTTP/1.1 405"),
        ("CONNECT a:80 HTTP/1.1\r\nHost: a:80\r\n", "HTTP/1.1 400"),
    ] {
        let answer = proxy_wire::raw(&gateway, &format!("{lines}Connection: close\r\n\r\n")).await;
        assert!(answer.starts_with(expected), "{lines}{answer}");
        assert!(answer.contains("invalid_request_error"), "{lines}{answer}");
    }
}

#[tokio::test]
async fn one_get_serves_many() {
    let (ask, mut asked) = mpsc::unbounded_channel::<oneshot::Sender<u16>>();
    let upstream = serve(service_fn(move |_: Request<Incoming>| {
        let (answer, status) = oneshot::channel();
        ask.send(answer).unwrap();
        async move {
            let status = status.await.unwrap();
            let body = full(format!("models {status}"));
            Ok::<_, Infallible>(Response::builder().status(status).body(body).unwrap())
        }
    }))
    .await;
    let request = || {
        let request = Request::get("/v1/models").header("host", "gateway");
        request.body(Full::<Bytes>::default()).unwrap()
    };
    let cached = CachedGet::new(proxy(&upstream), request).time_to_live(Duration::ZERO);
    let answering = |answer: oneshot::Sender<u16>, status| answer.send(status).unwrap();

    let mut leaver = Box::pin(cached.get());
    let others = futures_util::future::join_all((0..8).map(|_| cached.get()));
    let first = tokio::select! {
        biased;
        _ = &mut leaver => unreachable!(),
        answer = asked.recv() => answer.unwrap(),
    };
    let mut others = Box::pin(others);
    tokio::select! {
        biased;
        _ = &mut others => unreachable!(),
        () = std::future::ready(()) => {}
    }
    drop(leaver);
    answering(first, 500);
    let failed = others.await;
    assert!(failed.iter().all(|answer| answer.status() == 500));
    assert!(asked.try_recv().is_err());

    let fetch = async |status| {
        let answer = async { answering(asked.recv().await.unwrap(), status) };
        tokio::join!(cached.get(), answer).0
    };
    let mut fetch = fetch;
    assert_eq!(fetch(200).await.body(), "models 200");
    let stale = fetch(503).await;
    assert_eq!((stale.status().as_u16(), &stale.body()[..]), (200, &b"models 200"[..]));

    let cached = cached.time_to_live(Duration::from_secs(600));
    let answer = async { answering(asked.recv().await.unwrap(), 200) };
    tokio::join!(cached.get(), answer);
    assert_eq!(cached.get().await.body(), "models 200");
}
