//! How long idle connections are kept, and which ones are evicted at the limit.

use std::{
    io::ErrorKind,
    net::{IpAddr, SocketAddr, UdpSocket},
    sync::Mutex,
    time::Duration,
};

use crate::common::{
    Client, Gateway, GatewayCommand, Random, Upstream, Wire, chat_json, eventually, json_response,
};
use rustix::net::{RecvFlags, recv};
use serde_json::json;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    task::JoinSet,
    time::{sleep, timeout},
};

const HEALTH: &[u8] = b"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n";
const HALF: &[u8] = b"GET /healthz HTTP/1.1\r\nHost: a\r\n";

/// The timeout of a head runs from its first byte, not from the start or last use of the connection.
#[tokio::test]
async fn an_idle_connection_is_kept_longer_than_a_head_may_take() {
    let gateway = Gateway::demo();
    let mut fresh = Wire::connect(gateway.address()).await.unwrap();
    let mut used = Wire::connect(gateway.address()).await.unwrap();
    used.send(HEALTH).await.unwrap();
    let response = used.head().await.unwrap();
    used.body(response).await.unwrap();
    sleep(Duration::from_secs(6)).await;
    for wire in [&mut fresh, &mut used] {
        wire.send(HALF).await.unwrap();
    }
    // Twelve seconds since the start, six since the first byte of a head that may take ten.
    sleep(Duration::from_secs(6)).await;
    for (name, wire) in [("fresh", &mut fresh), ("used", &mut used)] {
        wire.send(b"\r\n").await.expect(name);
        assert_eq!(wire.head().await.expect(name).status, 200, "{name}");
    }
}

enum Sent {
    Completed,
    /// The connection had been closed before.
    ClosedBefore,
    /// It was closed while the request was on its way.
    Crossed,
}

/// Sends a request unless the connection is seen to be closed. It must not be reset.
async fn send(socket: &mut TcpStream) -> Sent {
    let seen = recv(&*socket, &mut [0; 1], RecvFlags::PEEK | RecvFlags::DONTWAIT);
    if matches!(seen, Ok((0, _))) {
        return Sent::ClosedBefore;
    }
    let request = b"POST /v1/x HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\n{}";
    socket.write_all(request).await.unwrap();
    let mut response = [0; 12];
    match socket.read_exact(&mut response).await {
        Ok(_) => assert_eq!(&response, b"HTTP/1.1 401"),
        Err(error) if error.kind() == ErrorKind::UnexpectedEof => return Sent::Crossed,
        Err(error) => panic!("no clean end: {error}"),
    }
    Sent::Completed
}

/// A request at the end of an idle connection gets a response, or the client could see the end before.
#[tokio::test]
async fn a_request_at_the_end_of_an_idle_connection_is_completed_or_not_sent() {
    const IDLE: Duration = Duration::from_secs(1);
    let gateway = GatewayCommand::new().arg("--demo").env("CLIENT_IDLE_TIMEOUT", "1s").start();
    let mut random = Random::seeded("a_request_at_the_end_of_an_idle_connection");
    let mut clients = JoinSet::new();
    for _ in 0..200 {
        let (address, late) = (gateway.address(), random.below(20_000));
        clients.spawn(async move {
            let mut socket = TcpStream::connect(address).await.unwrap();
            socket.set_nodelay(true).unwrap();
            socket.write_all(HEALTH).await.unwrap();
            let mut response = [0; 4096];
            assert_ne!(socket.read(&mut response).await.unwrap(), 0);
            sleep(IDLE + Duration::from_micros(late) - Duration::from_millis(10)).await;
            send(&mut socket).await
        });
    }
    let sent = clients.join_all().await;
    // There is always some time between the last check of either side and its action.
    let crossed = sent.iter().filter(|sent| matches!(sent, Sent::Crossed)).count();
    assert!(crossed <= 10, "{crossed} requests of {}", sent.len());
}

#[tokio::test]
async fn an_idle_connection_ends_without_a_reset() {
    let gateway = GatewayCommand::new().arg("--demo").env("CLIENT_IDLE_TIMEOUT", "300ms").start();
    for bytes in [&b""[..], HEALTH] {
        let mut socket = TcpStream::connect(gateway.address()).await.unwrap();
        socket.write_all(bytes).await.unwrap();
        let mut read = Vec::new();
        timeout(crate::common::DEADLINE, socket.read_to_end(&mut read))
            .await
            .expect("an end")
            .unwrap();
        assert_eq!(read.is_empty(), bytes.is_empty());
    }
}

fn gateway(upstream: &Upstream, connections: usize) -> GatewayCommand {
    let command = GatewayCommand::before(upstream.base_url());
    command.env("MAX_CONNECTIONS", connections.to_string())
}

async fn half_head(gateway: SocketAddr) -> TcpStream {
    let mut socket = TcpStream::connect(gateway).await.unwrap();
    socket.write_all(HALF).await.unwrap();
    socket
}

/// Returns whether the gateway has closed the connection, as far as this machine knows.
fn is_closed(socket: &TcpStream) -> bool {
    let seen = recv(socket, &mut [0; 1], RecvFlags::PEEK | RecvFlags::DONTWAIT);
    seen != Err(rustix::io::Errno::AGAIN)
}

fn open(sockets: &[TcpStream]) -> Vec<usize> {
    let open = sockets.iter().enumerate().filter(|(_, socket)| !is_closed(socket));
    open.map(|(at, _)| at).collect()
}

async fn is_served(gateway: SocketAddr) {
    let mut wire = Wire::connect(gateway).await.unwrap();
    wire.send(HEALTH).await.unwrap();
    let response = timeout(crate::common::DEADLINE, wire.head()).await.expect("a response in time");
    assert_eq!(response.unwrap().status, 200);
}

#[tokio::test]
async fn unfinished_heads_are_evicted_and_then_idle_connections() {
    const PLACES: usize = 20;
    let upstream = Upstream::holding(|_| json_response(chat_json().to_string())).await;
    let gateway = gateway(&upstream, PLACES).start();
    let key = gateway.create_key(json!({"daily_limit": 0})).await;
    let mut running = Wire::connect(gateway.address()).await.unwrap();
    running.write(&key, "{}").await.unwrap();
    upstream.reached_by(1).await;
    let mut idle = TcpStream::connect(gateway.address()).await.unwrap();
    idle.write_all(HEALTH).await.unwrap();
    assert_ne!(idle.read(&mut [0; 4096]).await.unwrap(), 0);
    let mut halves = Vec::new();
    for _ in 0..3 * PLACES {
        halves.push(half_head(gateway.address()).await);
    }
    is_served(gateway.address()).await;
    // The oldest have gone, and neither the idle one nor the request.
    eventually("the oldest heads are closed", || async { open(&halves).len() < PLACES }).await;
    let open = open(&halves);
    assert!(open.len() >= PLACES - 5 && open[0] > PLACES, "{open:?}");
    assert!(!is_closed(&idle));
    // With nothing but requests, the idle one goes.
    let mut requests = Vec::new();
    for _ in 0..PLACES - 1 {
        let mut wire = Wire::connect(gateway.address()).await.unwrap();
        wire.write(&key, "{}").await.unwrap();
        requests.push(wire);
    }
    upstream.reached_by(PLACES).await;
    eventually("all others are closed", || async { is_closed(&idle) }).await;
    // One more waits for the end of a request.
    let mut waiting = Wire::connect(gateway.address()).await.unwrap();
    waiting.send(HEALTH).await.unwrap();
    upstream.release(PLACES);
    assert_eq!(running.head().await.unwrap().status, 200);
    for wire in &mut requests {
        assert_eq!(wire.head().await.unwrap().status, 200);
    }
    assert_eq!(waiting.head().await.unwrap().status, 200);
}

/// An address of this machine that is no loopback address, if it has one.
fn remote_address() -> Option<IpAddr> {
    let socket = UdpSocket::bind("0.0.0.0:0").ok()?;
    // Nothing is sent.
    socket.connect("198.51.100.1:9").ok()?;
    let address = socket.local_addr().ok()?.ip();
    (!address.is_loopback() && !address.is_unspecified()).then_some(address)
}

#[tokio::test]
async fn a_source_holds_half_of_the_connections_beside_those_for_loopback() {
    const PLACES: usize = 40;
    let Some(address) = remote_address() else {
        println!("skipped: this machine has no other address");
        return;
    };
    for is_trusted in [false, true] {
        let upstream = Upstream::holding(|_| json_response(chat_json().to_string())).await;
        let mut command = gateway(&upstream, PLACES).env("HOST", "0.0.0.0");
        if is_trusted {
            command = command.env("TRUSTED_PROXIES", address.to_string());
        }
        let gateway = command.start();
        let key = gateway.create_key(json!({"daily_limit": 0})).await;
        let remote = SocketAddr::new(address, gateway.address().port());
        let mut halves = Vec::new();
        for _ in 0..3 * PLACES {
            halves.push(half_head(remote).await);
        }
        is_served(gateway.address()).await;
        let share = if is_trusted { PLACES - 8 } else { PLACES / 2 };
        eventually("its share", || async { open(&halves).len() == share }).await;
        // Even requests do not get the reserved connections.
        drop(halves);
        let requests = Mutex::new(Vec::new());
        let request = async || {
            let mut wire = Wire::connect(remote).await.unwrap();
            // It may be rejected.
            let _ = wire.write(&key, "{}").await;
            requests.lock().unwrap().push(wire);
        };
        eventually("as many requests as it may have", || async {
            request().await;
            upstream.count() >= share
        })
        .await;
        for _ in 0..PLACES {
            request().await;
        }
        for _ in 0..2 * PLACES {
            is_served(gateway.address()).await;
        }
        assert_eq!(upstream.count(), share);
        assert_eq!(Client::http2().get(&gateway.url("/healthz")).await.status, 200);
    }
}
