//! A response that is ready before the request's body has come leaves the connection usable or has
//! `Connection: close`: no connection closes unannounced.

use std::{
    io,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU16, Ordering},
    },
    time::Duration,
};

use crate::common::{
    ADMIN_TOKEN, Gateway, GatewayCommand, Upstream, Wire, eventually, json_response,
};
use bytes::Bytes;
use h2::client::SendRequest;
use http::{Method, Request};
use serde_json::json;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::{JoinHandle, JoinSet},
};

/// Pause between a head and its body, so that they arrive separately.
const PAUSE: Duration = Duration::from_millis(3);

/// The server's limits for an unread body.
const MAX_UNREAD: usize = 256 * 1024;

struct Rejections {
    gateway: Gateway,
    /// Names, first lines with the headers that matter, and statuses.
    requests: Vec<(&'static str, String, u16)>,
}

impl Rejections {
    /// Every kind of request that is rejected before its body is read.
    async fn start() -> Self {
        let upstream = Upstream::start(|_| json_response("{}")).await;
        let gateway =
            GatewayCommand::before(upstream.base_url()).env("MAX_BODY_BYTES", "1MiB").start();
        let key = gateway.create_key(json!({"daily_limit": 1})).await;
        let used_up = gateway.create_key(json!({"daily_limit": 1})).await;
        let mut wire = Wire::connect(gateway.address()).await.unwrap();
        assert_eq!(wire.post(&used_up, "{}").await.unwrap().0, 200);
        let disabled = gateway.create_key(json!({})).await;
        let path = format!("/admin/keys/{disabled}");
        gateway.admin(Method::PATCH, &path, &json!({"disabled": true})).await;
        let misconfigured = gateway.create_key(json!({"label": "misconfigured"})).await;
        let database = rusqlite::Connection::open(gateway.dir().join("quota.db")).unwrap();
        let update = "UPDATE api_keys SET daily_limit = 'many' WHERE label = 'misconfigured'";
        assert_eq!(database.execute(update, []).unwrap(), 1);
        eventually("the edit", || async {
            let mut wire = Wire::connect(gateway.address()).await.unwrap();
            wire.post(&misconfigured, "{}").await.unwrap().0 == 503
        })
        .await;
        let chat =
            |key: &str| format!("POST /v1/chat/completions @\r\nAuthorization: Bearer {key}");
        let requests = vec![
            ("two keys", format!("{}\r\nX-Api-Key: other", chat(&key)), 400),
            ("no key", "POST /v1/x @".to_owned(), 401),
            ("unknown key", chat("trial-nobody"), 401),
            ("no admin", "POST /admin/keys @".to_owned(), 401),
            ("disabled key", chat(&disabled), 403),
            ("no such path", "POST /nowhere @".to_owned(), 404),
            (
                "no such record",
                format!("DELETE /admin/keys/x @\r\nX-Admin-Token: {ADMIN_TOKEN}"),
                404,
            ),
            ("wrong method", "PUT /usage @".to_owned(), 405),
            ("used up", chat(&used_up), 429),
            ("a limit that is none", chat(&misconfigured), 503),
            ("health", "GET /healthz @".to_owned(), 200),
        ];
        Self { gateway, requests }
    }

    async fn connect(&self) -> Wire {
        Wire::connect(self.gateway.address()).await.unwrap()
    }
}

/// A head with these lines, which says how its body is framed.
fn head(request: &str, version: &str, lines: &str) -> String {
    let (first, rest) = request.split_once('@').unwrap();
    format!("{first}{version}{rest}\r\nHost: gateway\r\n{lines}\r\n\r\n")
}

/// Two bodies that say the same, with their framing.
fn bodies(length: usize) -> [(String, Vec<u8>); 2] {
    let body = vec![b'x'; length];
    let chunks = [format!("{length:x}\r\n").as_bytes(), &body, b"\r\n0\r\n\r\n"].concat();
    [(format!("Content-Length: {length}"), body), ("Transfer-Encoding: chunked".to_owned(), chunks)]
}

#[tokio::test]
async fn a_short_body_is_read_and_the_connection_kept() {
    let rejections = Rejections::start().await;
    for (name, request, status) in &rejections.requests {
        let mut wire = rejections.connect().await;
        for length in [1, 20_000, MAX_UNREAD] {
            for (framing, body) in bodies(length) {
                let name = format!("{name}, {length}, {framing}");
                wire.send(head(request, "HTTP/1.1", &framing)).await.unwrap();
                tokio::time::sleep(PAUSE).await;
                wire.send(&body).await.expect(&name);
                let response = wire.head().await.expect(&name);
                assert_eq!((response.status, response.closes), (*status, false), "{name}");
                wire.body(response).await.expect(&name);
            }
        }
        wire.send("GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
        assert_eq!(wire.head().await.expect(name).status, 200);
    }
}

#[tokio::test]
async fn a_kept_http_1_0_connection_serves_the_next_request() {
    let rejections = Rejections::start().await;
    for (name, request, status) in &rejections.requests {
        let mut wire = rejections.connect().await;
        let keep = "Connection: keep-alive\r\nContent-Length: 20000";
        for _ in 0..2 {
            wire.send(head(request, "HTTP/1.0", keep)).await.unwrap();
            tokio::time::sleep(PAUSE).await;
            wire.send(&[b'x'; 20_000]).await.expect(name);
            let response = wire.head().await.expect(name);
            assert_eq!((response.status, response.closes), (*status, false), "{name}");
            wire.body(response).await.expect(name);
        }
    }
}

/// Bodies that are too long or too late, and those that wait for `100 Continue`.
#[tokio::test]
async fn a_body_that_is_not_awaited_closes_the_connection_with_a_header() {
    let rejections = Rejections::start().await;
    let long = format!("Content-Length: {}", MAX_UNREAD + 1);
    let mut responses = JoinSet::new();
    for (name, request, status) in rejections.requests.clone() {
        for (version, framing) in [
            ("HTTP/1.1", long.as_str()),
            ("HTTP/1.1", "Content-Length: 1"),
            ("HTTP/1.1", "Transfer-Encoding: chunked"),
            ("HTTP/1.1", "Content-Length: 1\r\nExpect: 100-continue"),
            ("HTTP/1.1", "Transfer-Encoding: chunked\r\nExpect: 100-Continue"),
            ("HTTP/1.0", "Content-Length: 1\r\nConnection: keep-alive"),
            ("HTTP/1.0", "Content-Length: 1"),
        ] {
            let request = head(&request, version, framing);
            let (name, gateway) =
                (format!("{name}, {version}, {framing}"), rejections.gateway.address());
            responses.spawn(async move {
                let mut wire = Wire::connect(gateway).await.unwrap();
                wire.send(&request).await.unwrap();
                let response = wire.head().await.expect(&name);
                // HTTP/1.0 closes if nobody says otherwise.
                let closes = response.closes || version == "HTTP/1.0";
                assert_eq!((response.status, closes), (status, true), "{name}");
                wire.body(response).await.expect(&name);
                assert!(wire.is_closed().await, "{name}");
            });
        }
    }
    while let Some(response) = responses.join_next().await {
        response.unwrap();
    }
}

/// An endless body is not read to its end, and its response arrives.
#[tokio::test]
async fn a_body_that_turns_out_too_long_closes_the_connection_with_a_header() {
    let rejections = Rejections::start().await;
    for (name, request, status) in &rejections.requests {
        let mut wire = rejections.connect().await;
        wire.send(head(request, "HTTP/1.1", "Transfer-Encoding: chunked")).await.unwrap();
        for _ in 0..MAX_UNREAD / 0x8000 + 1 {
            wire.send([b"8000\r\n", &[b'x'; 0x8000][..], b"\r\n"].concat()).await.expect(name);
        }
        let response = wire.head().await.expect(name);
        assert_eq!((response.status, response.closes), (*status, true), "{name}");
        wire.body(response).await.expect(name);
    }
}

/// An upstream that responds to the head of a request, and reads on or closes.
struct EarlyUpstream {
    address: SocketAddr,
    server: JoinHandle<()>,
    status: Arc<AtomicU16>,
}

impl EarlyUpstream {
    #[expect(clippy::disallowed_methods, reason = "one task for the server")]
    async fn start(reads_on: bool) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let status = Arc::new(AtomicU16::new(200));
        let shared = status.clone();
        let server = tokio::spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((socket, _)) = listener.accept().await {
                let status = shared.load(Ordering::Relaxed);
                connections.spawn(Self::respond(socket, status, reads_on));
            }
        });
        Self { address, server, status }
    }

    async fn respond(mut socket: TcpStream, status: u16, reads_on: bool) -> io::Result<()> {
        let mut read = Vec::new();
        while !read.windows(4).any(|window| window == b"\r\n\r\n") {
            if socket.read_buf(&mut read).await? == 0 {
                return Ok(());
            }
        }
        let head = format!("HTTP/1.1 {status} Early\r\nConnection: close\r\n");
        let response = head + "Content-Length: 2\r\n\r\n{}";
        socket.write_all(response.as_bytes()).await?;
        let mut sink = vec![0; 64 * 1024];
        while reads_on && socket.read(&mut sink).await? > 0 {}
        Ok(())
    }
}

impl Drop for EarlyUpstream {
    fn drop(&mut self) {
        self.server.abort();
    }
}

#[tokio::test]
async fn an_early_response_of_the_upstream_leaves_the_connection_usable() {
    for reads_on in [true, false] {
        let upstream = EarlyUpstream::start(reads_on).await;
        let base_url = format!("http://{}/v1", upstream.address);
        let gateway = GatewayCommand::before(base_url).start();
        let key = gateway.create_key(json!({"daily_limit": 0})).await;
        let request = format!("POST /v1/audio @\r\nAuthorization: Bearer {key}");
        for (reported, status) in [(200, 200), (400, 400), (413, 413), (429, 503), (500, 500)] {
            upstream.status.store(reported, Ordering::Relaxed);
            let mut wire = Wire::connect(gateway.address()).await.unwrap();
            for (framing, body) in bodies(100_000) {
                let name = format!("{reported}, {framing}, reads on: {reads_on}");
                wire.send(head(&request, "HTTP/1.1", &framing)).await.unwrap();
                let (begin, end) = body.split_at(50_000);
                wire.send(begin).await.expect(&name);
                tokio::time::sleep(PAUSE).await;
                wire.send(end).await.expect(&name);
                let response = wire.head().await.expect(&name);
                assert_eq!((response.status, response.closes), (status, false), "{name}");
                wire.body(response).await.expect(&name);
            }
        }
    }
}

const BURST: usize = 2_000;
const LIMIT: usize = 50;

async fn burst() -> (Upstream, Gateway, String) {
    let upstream = Upstream::start(|_| json_response("{}")).await;
    let gateway = GatewayCommand::before(upstream.base_url()).start();
    let key = gateway.create_key(json!({"daily_limit": LIMIT})).await;
    (upstream, gateway, key)
}

fn assert_exact(mut statuses: Vec<u16>) {
    statuses.sort_unstable();
    let expected = [vec![200; LIMIT], vec![429; BURST - LIMIT]].concat();
    assert_eq!(statuses, expected);
}

#[tokio::test]
async fn a_burst_on_kept_connections_loses_no_response() {
    const CONNECTIONS: usize = 64;
    let (upstream, gateway, key) = burst().await;
    let mut connections = JoinSet::new();
    for number in 0..CONNECTIONS {
        let share = BURST / CONNECTIONS + usize::from(number < BURST % CONNECTIONS);
        let (gateway, request) =
            (gateway.address(), format!("POST /v1/x @\r\nAuthorization: Bearer {key}"));
        connections.spawn(async move {
            let mut wire = Wire::connect(gateway).await.unwrap();
            let mut statuses = Vec::new();
            for _ in 0..share {
                wire.send(head(&request, "HTTP/1.1", "Content-Length: 20000")).await.unwrap();
                tokio::task::yield_now().await;
                wire.send([b'x'; 20_000]).await.unwrap();
                let response = wire.head().await.unwrap();
                assert!(!response.closes);
                wire.body(response).await.unwrap();
                statuses.push(response.status);
            }
            statuses
        });
    }
    assert_exact(connections.join_all().await.concat());
    assert_eq!(upstream.count(), LIMIT);
}

/// A connection that is never given up by a `GOAWAY`, and its streams.
#[expect(clippy::disallowed_methods, reason = "one task for the connection")]
async fn http2(gateway: SocketAddr) -> (SendRequest<Bytes>, JoinHandle<Result<(), h2::Error>>) {
    let socket = TcpStream::connect(gateway).await.unwrap();
    socket.set_nodelay(true).unwrap();
    let (client, connection) = h2::client::handshake(socket).await.unwrap();
    (client, tokio::spawn(connection))
}

/// Sends the head, and the body behind it, and returns the status once the response is over.
async fn post(mut client: SendRequest<Bytes>, url: String, key: String, length: usize) -> u16 {
    let request = Request::post(url).header("authorization", format!("Bearer {key}"));
    client = client.ready().await.unwrap();
    let (response, mut body) = client.send_request(request.body(()).unwrap(), false).unwrap();
    tokio::time::sleep(PAUSE).await;
    body.reserve_capacity(length);
    let mut left = length;
    while left > 0 {
        // On a slow machine the response may be over before the request: then nobody reads the rest
        // (RFC 9113, section 8.1).
        let capacity = std::future::poll_fn(|cx| body.poll_capacity(cx)).await;
        let Some(Ok(capacity)) = capacity else { break };
        let piece = capacity.min(left);
        left -= piece;
        if body.send_data(vec![b'x'; piece].into(), left == 0).is_err() {
            break;
        }
    }
    let response = response.await.unwrap();
    let status = response.status().as_u16();
    let mut body = response.into_body();
    while let Some(piece) = body.data().await {
        let piece = piece.unwrap().len();
        body.flow_control().release_capacity(piece).unwrap();
    }
    assert!(body.is_end_stream());
    status
}

#[tokio::test]
async fn a_burst_over_http2_loses_no_stream() {
    const CONNECTIONS: usize = 4;
    const STREAMS: usize = 64;
    let (upstream, gateway, key) = burst().await;
    let mut tasks = JoinSet::new();
    for _ in 0..CONNECTIONS {
        let (client, connection) = http2(gateway.address()).await;
        let (url, key) = (gateway.url("/v1/x"), key.clone());
        tasks.spawn(async move {
            let (mut statuses, mut streams) = (Vec::new(), JoinSet::new());
            for _ in 0..BURST / CONNECTIONS {
                if streams.len() == STREAMS {
                    statuses.push(streams.join_next().await.unwrap().unwrap());
                }
                streams.spawn(post(client.clone(), url.clone(), key.clone(), 20_000));
            }
            statuses.extend(streams.join_all().await);
            assert!(!connection.is_finished(), "{:?}", connection.await);
            statuses
        });
    }
    assert_exact(tasks.join_all().await.concat());
    assert_eq!(upstream.count(), LIMIT);
}

/// A longer body is not read: its stream is reset once the response is over, which is no error, and the
/// connection goes on.
#[tokio::test]
async fn a_long_body_over_http2_costs_its_stream_only() {
    let (_upstream, gateway, _) = burst().await;
    let (mut client, connection) = http2(gateway.address()).await;
    for _ in 0..200 {
        let request = Request::post(gateway.url("/v1/x")).header("content-length", "1000000");
        client = client.ready().await.unwrap();
        let (response, _body) = client.send_request(request.body(()).unwrap(), false).unwrap();
        let response = response.await.unwrap();
        assert_eq!(response.status(), 401);
        let mut body = response.into_body();
        while let Some(piece) = body.data().await {
            assert!(!piece.unwrap().is_empty());
        }
    }
    assert_eq!(post(client, gateway.url("/v1/x"), "none".to_owned(), 20_000).await, 401);
    assert!(!connection.is_finished());
}
