use std::{
    net::SocketAddr,
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
    time::{Duration, Instant},
};

use http::Method;
use tokio::{
    io::{AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{TcpSocket, TcpStream},
    task::JoinSet,
    time::{sleep, timeout},
};

use super::{
    common::Client,
    scene::{CLIENT_TIMEOUT, HEAD_LIMIT, SLACK, Scene},
    slow_streams,
};

/// Between two bytes.
pub(crate) const PAUSE: Duration = Duration::from_millis(100);

/// Five hundred connections that go on by a byte at a time, in every way there is, are closed when
/// their time is over, and nobody else has to wait.
#[tokio::test]
async fn slow_clients_are_closed_in_time_and_delay_no_others() {
    let scene = Scene::start().await;
    let (gateway, key) = (scene.gateway.address(), scene.key.as_str());
    let mut clients = JoinSet::new();
    for number in 0..500 {
        let key = key.to_owned();
        clients.spawn(async move {
            match number % 10 {
                0 => head(gateway, "").await,
                1 => head(gateway, "GET /healthz HTTP/1.1\r\nHost: gateway\r\n\r\n").await,
                2 => body(gateway, &key, "Content-Length: 5000", b"x").await,
                3 => body(gateway, &key, "Transfer-Encoding: chunked", b"1\r\nx\r\n").await,
                4 => reader(gateway, &key).await,
                5 => slow_streams::head(gateway, &key).await,
                6 => slow_streams::continuation(gateway, &key).await,
                7 => slow_streams::body(gateway, &key).await,
                8 => slow_streams::reader(gateway, &key, Some(PAUSE)).await,
                _ => slow_streams::reader(gateway, &key, None).await,
            }
        });
    }
    let (over, served) = (AtomicBool::new(false), AtomicUsize::new(0));
    let slow = async {
        while let Some(client) = clients.join_next().await {
            client.unwrap();
        }
        over.store(true, Ordering::Relaxed);
    };
    let good = async {
        while !over.load(Ordering::Relaxed) {
            for client in [Client::http1(), Client::http2()] {
                assert_served(&scene, &client).await;
                served.fetch_add(2, Ordering::Relaxed);
            }
        }
    };
    tokio::join!(slow, good);
    assert!(served.into_inner() > 100);
    scene.assert_unharmed().await;
}

async fn assert_served(scene: &Scene, client: &Client) {
    let begun = Instant::now();
    let authorization = format!("Bearer {}", scene.key);
    let headers = [("authorization", authorization.as_str())];
    let health = client.get(&scene.gateway.url("/healthz")).await;
    let chat = client.send(Method::POST, &scene.gateway.url("/v1/good"), &headers, "{}").await;
    assert_eq!((health.status.as_u16(), chat.status.as_u16()), (200, 200), "{chat:?}");
    assert!(begun.elapsed() < SLACK, "good requests had to wait for {:?}", begun.elapsed());
}

/// Writes `piece` again and again until the peer has gone.
pub(crate) async fn trickle(writer: &mut (impl AsyncWrite + Unpin), pieces: &[&[u8]]) {
    for piece in pieces.iter().cycle() {
        if writer.write_all(piece).await.is_err() {
            return;
        }
        sleep(PAUSE).await;
    }
}

/// Sends `begin`, then `pieces` slowly, until the gateway closes.
async fn until_closed(
    what: &str,
    socket: TcpStream,
    begin: &[u8],
    pieces: &[&[u8]],
    limit: Duration,
) {
    socket.set_nodelay(true).unwrap();
    let (mut reader, mut writer) = socket.into_split();
    let _ = writer.write_all(begin).await;
    let mut response = Vec::new();
    let closed = async {
        tokio::select! {
            _ = reader.read_to_end(&mut response) => {}
            () = trickle(&mut writer, pieces) => {}
        }
    };
    let closed = timeout(limit + SLACK, closed).await;
    let response = String::from_utf8_lossy(&response);
    assert!(closed.is_ok(), "{what}: not closed, but received {response:?}");
    assert!(!response.contains("HTTP/1.1 5"), "{what}: {response:?}");
}

async fn head(gateway: SocketAddr, before: &str) {
    let socket = TcpStream::connect(gateway).await.unwrap();
    let begin = format!("{before}POST /v1/x HTTP/1.1\r\nHost: gateway\r\nA: ");
    until_closed("a slow head", socket, begin.as_bytes(), &[b"b"], HEAD_LIMIT).await;
}

async fn body(gateway: SocketAddr, key: &str, framing: &str, piece: &[u8]) {
    let socket = TcpStream::connect(gateway).await.unwrap();
    let head = format!(
        "POST /v1/slow/body HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {key}\r\n{framing}\r\n\r\n"
    );
    until_closed(framing, socket, head.as_bytes(), &[piece], CLIENT_TIMEOUT).await;
}

/// Reads a byte of the response now and then. As the system buffers much of it, the end shows by the
/// writes that fail in the gateway.
async fn reader(gateway: SocketAddr, key: &str) {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    let mut socket = socket.connect(gateway).await.unwrap();
    let head = format!(
        "GET /v1/slow/long HTTP/1.1\r\nHost: gateway\r\nAuthorization: Bearer {key}\r\n\r\n"
    );
    socket.write_all(head.as_bytes()).await.unwrap();
    let closed = async {
        while socket.read_u8().await.is_ok() && socket.write_all(b"P").await.is_ok() {
            sleep(PAUSE).await;
        }
    };
    let closed = timeout(CLIENT_TIMEOUT + SLACK, closed).await;
    assert!(closed.is_ok(), "a slow reader was not cut");
}
