//! What slow and idle peers cost in memory, and that nothing is left of those that went away.

use std::{
    fs,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use crate::common::{Client, Gateway, GatewayCommand, eventually};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde_json::json;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::{JoinHandle, JoinSet},
    time::Instant,
};

const MIB: u64 = 1 << 20;
const LONG: u64 = 100 * MIB;
/// The begin of a stream.
const BEGIN: &str = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\
                     transfer-encoding: chunked\r\n\r\n9\r\ndata: 1\n\n\r\n";

/// An upstream over bare sockets: it streams without end, sends a long response, or reads nothing of an
/// request body, as the path says.
struct Upstream {
    address: SocketAddr,
    seen: Arc<Seen>,
    server: JoinHandle<()>,
}

#[derive(Default)]
struct Seen {
    connections: AtomicUsize,
    requests: AtomicUsize,
    sent: AtomicU64,
}

impl Upstream {
    #[expect(clippy::disallowed_methods, reason = "one task for the server")]
    async fn start() -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let seen = Arc::new(Seen::default());
        let shared = seen.clone();
        let server = tokio::spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((socket, _)) = listener.accept().await {
                connections.spawn(serve(socket, shared.clone()));
            }
        });
        Self { address, seen, server }
    }

    fn gateway(&self) -> GatewayCommand {
        GatewayCommand::new()
            .env("UPSTREAM_BASE_URL", format!("http://{}/v1", self.address))
            .env("MAX_BODY_BYTES", "1GiB")
            .env("RUST_LOG", "warn")
    }

    fn connections(&self) -> usize {
        self.seen.connections.load(Ordering::SeqCst)
    }

    async fn reached_by(&self, requests: usize) {
        eventually("requests at the upstream", || async {
            self.seen.requests.load(Ordering::SeqCst) >= requests
        })
        .await;
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        self.server.abort();
    }
}

async fn serve(mut socket: TcpStream, seen: Arc<Seen>) {
    seen.connections.fetch_add(1, Ordering::SeqCst);
    // Ends when the gateway does, which is what some wait for.
    let _ = respond(&mut socket, &seen).await;
    seen.connections.fetch_sub(1, Ordering::SeqCst);
}

async fn respond(socket: &mut TcpStream, seen: &Seen) -> std::io::Result<()> {
    let head = read_head(socket).await?;
    seen.requests.fetch_add(1, Ordering::SeqCst);
    if head.starts_with("POST /v1/send") {
        // Nothing of the body is read.
        if head.starts_with("POST /v1/send/with_response") {
            socket.write_all(BEGIN.as_bytes()).await?;
        }
        return std::future::pending().await;
    }
    if head.starts_with("POST /v1/download") {
        let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {LONG}\r\n\r\n");
        socket.write_all(head.as_bytes()).await?;
        let piece = vec![b'x'; 64 * 1024];
        loop {
            socket.write_all(&piece).await?;
            seen.sent.fetch_add(piece.len() as u64, Ordering::SeqCst);
        }
    }
    socket.write_all(BEGIN.as_bytes()).await?;
    socket.read(&mut [0; 1]).await.map(drop)
}

async fn read_head(socket: &mut TcpStream) -> std::io::Result<String> {
    let mut head = Vec::new();
    while !head.windows(4).any(|end| end == b"\r\n\r\n") {
        if socket.read_buf(&mut head).await? == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
    }
    Ok(String::from_utf8_lossy(&head).into_owned())
}

/// The files of this process, as it holds both ends.
fn raise_limit_of_files() {
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit }).unwrap();
}

/// Bytes of the gateway's memory that are in use.
fn rss(gateway: &Gateway) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", gateway.id())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().strip_suffix(" kB").unwrap().trim().parse::<u64>().unwrap() * 1024
}

/// How many files and sockets the gateway has open.
fn files(gateway: &Gateway) -> usize {
    fs::read_dir(format!("/proc/{}/fd", gateway.id())).unwrap().count()
}

fn request(path: &str, key: &str, length: u64) -> String {
    format!(
        "POST /v1/{path} HTTP/1.1\r\nhost: gateway\r\nauthorization: Bearer {key}\r\n\
         content-length: {length}\r\n\r\n"
    )
}

/// Opens a stream and reads its begin.
async fn open_stream(gateway: SocketAddr, request: String) -> TcpStream {
    let mut socket = TcpStream::connect(gateway).await.unwrap();
    socket.write_all(request.as_bytes()).await.unwrap();
    let mut read = Vec::new();
    while !read.windows(9).any(|event| event == b"data: 1\n\n") {
        assert_ne!(socket.read_buf(&mut read).await.unwrap(), 0, "{read:?}");
    }
    socket
}

/// Opens `count` streams, up to `AT_ONCE` of them concurrently.
async fn open_streams(gateway: &Gateway, key: &str, count: usize) -> Vec<TcpStream> {
    const AT_ONCE: usize = 200;
    let (mut streams, mut opening) = (Vec::new(), JoinSet::new());
    for _ in 0..count {
        if opening.len() == AT_ONCE {
            streams.push(opening.join_next().await.unwrap().unwrap());
        }
        opening.spawn(open_stream(gateway.address(), request("stream", key, 0)));
    }
    streams.extend(opening.join_all().await);
    streams
}

#[tokio::test(flavor = "multi_thread")]
async fn five_thousand_idle_streams_use_little_memory_and_leak_none() {
    const STREAMS: usize = 5_000;
    const WAVES: usize = 4;
    /// hyper's two connections alone take 33 KiB, most of it buffers.
    const EACH: u64 = 56 * 1024;
    /// What the pages of the database's file that its writer keeps, at most 16 MiB, add meanwhile.
    const PAGES: u64 = (16 << 20) / STREAMS as u64;
    raise_limit_of_files();
    let upstream = Upstream::start().await;
    let gateway = upstream.gateway().start();
    let key = gateway.create_key(json!({"daily_limit": 0})).await;
    drop(open_streams(&gateway, &key, 50).await);
    eventually("the first ones are gone", || async { upstream.connections() == 0 }).await;
    let (idle, idle_files) = (rss(&gateway), files(&gateway));
    let mut waves = Vec::new();
    for _ in 0..WAVES {
        let streams = open_streams(&gateway, &key, STREAMS).await;
        waves.push(rss(&gateway).saturating_sub(idle) / STREAMS as u64);
        drop(streams);
        eventually("no connection is left", || async {
            upstream.connections() == 0 && files(&gateway) <= idle_files
        })
        .await;
    }
    println!("bytes a stream: {waves:?}");
    // The first wave fills what the allocator keeps; what leaks adds up from wave to wave.
    let (second, last) = (waves[1], waves[2].min(waves[WAVES - 1]));
    assert!(last <= EACH, "{waves:?} bytes a stream");
    assert!(last <= second + second / 20 + PAGES, "{waves:?} bytes a stream");
    let used = Client::http1().get_as(&key, &gateway.url("/usage")).await.json();
    assert_eq!(used["used"], 50 + WAVES * STREAMS, "each was counted");
}

/// Sends a body as long as it is taken. On drop the connection is reset: a close would wait behind
/// the bytes that nobody takes.
async fn send_body(gateway: SocketAddr, head: String, sent: Arc<AtomicU64>) {
    let mut socket = TcpStream::connect(gateway).await.unwrap();
    socket.set_zero_linger().unwrap();
    socket.write_all(head.as_bytes()).await.unwrap();
    let piece = vec![b'x'; 64 * 1024];
    while socket.write_all(&piece).await.is_ok() {
        sent.fetch_add(piece.len() as u64, Ordering::SeqCst);
    }
}

/// Waits until none of these bytes has moved for a second: everybody waits for a slow peer.
async fn settled(moved: impl Fn() -> u64) {
    let mut last = (moved(), Instant::now());
    eventually("everybody waits", || {
        let now = moved();
        if now != last.0 {
            last = (now, Instant::now());
        }
        let settled = last.1.elapsed() >= Duration::from_secs(1);
        async move { settled }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bodies_for_slow_peers_are_not_buffered() {
    const TRANSFERS: usize = 100;
    let upstream = Upstream::start().await;
    let gateway = upstream.gateway().start();
    let key = gateway.create_key(json!({"daily_limit": 0})).await;
    drop(open_streams(&gateway, &key, 50).await);
    let (idle, idle_files) = (rss(&gateway), files(&gateway));
    let sent = Arc::new(AtomicU64::new(0));
    let (mut senders, mut downloads) = (JoinSet::new(), Vec::new());
    for number in 0..TRANSFERS {
        let path = if number % 2 == 0 { "send" } else { "send/with_response" };
        senders.spawn(send_body(gateway.address(), request(path, &key, LONG), sent.clone()));
        let mut socket = TcpStream::connect(gateway.address()).await.unwrap();
        socket.write_all(request("download", &key, 0).as_bytes()).await.unwrap();
        // Nothing of the response is read.
        downloads.push(socket);
    }
    upstream.reached_by(50 + 2 * TRANSFERS).await;
    let to_clients = &upstream.seen.sent;
    settled(|| sent.load(Ordering::SeqCst) + to_clients.load(Ordering::SeqCst)).await;
    let grown = rss(&gateway).saturating_sub(idle);
    println!("{} KiB for {} transfers", grown / 1024, 2 * TRANSFERS);
    assert!(grown < 64 * MIB, "{grown} bytes more");
    senders.shutdown().await;
    let gone = Instant::now();
    eventually("request bodies left by their clients are given up", || async {
        files(&gateway) <= idle_files + 2 * TRANSFERS
    })
    .await;
    assert!(gone.elapsed() < Duration::from_secs(5), "after {:?}", gone.elapsed());
    drop((downloads, upstream));
    eventually("no connection is left", || async { files(&gateway) <= idle_files }).await;
}

/// Chats are held back to be made to ask for usage, all of them together within a limit.
#[tokio::test(flavor = "multi_thread")]
async fn buffered_request_bodies_share_one_limit() {
    const CHATS: usize = 300;
    const CHAT: usize = 1_000_000;
    let upstream = Upstream::start().await;
    let gateway = upstream.gateway().env("STREAM_USAGE", "ask").start();
    let key = gateway.create_key(json!({"daily_limit": 0})).await;
    let idle = rss(&gateway);
    let mut chat = br#"{"stream":true,"messages":""#.to_vec();
    chat.resize(CHAT - 1, b'x');
    let mut chats = Vec::new();
    for _ in 0..CHATS {
        let mut socket = TcpStream::connect(gateway.address()).await.unwrap();
        let head = request("chat/completions", &key, CHAT as u64);
        let head = head.replace("\r\n\r\n", "\r\ncontent-type: application/json\r\n\r\n");
        socket.write_all(head.as_bytes()).await.unwrap();
        // All but the last byte. The others wait in the system until somebody has room.
        let _ = tokio::time::timeout(Duration::from_millis(50), socket.write_all(&chat)).await;
        chats.push(socket);
    }
    settled(|| rss(&gateway) / (4 * MIB)).await;
    let grown = rss(&gateway).saturating_sub(idle);
    println!("{} MiB for {CHATS} chats", grown / MIB);
    assert!(grown < 160 * MIB, "{grown} bytes more");
    drop(chats);
}
