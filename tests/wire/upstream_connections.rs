//! How many connections to the upstream are kept without a request.

use std::{
    io::Result,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use crate::common::{GatewayCommand, Wire, eventually};
use serde_json::json;
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    task::{JoinHandle, JoinSet},
};

/// An HTTP/1 upstream that holds its responses and counts its connections. It stops on drop.
struct Upstream {
    address: SocketAddr,
    seen: Arc<Seen>,
    server: JoinHandle<()>,
}

struct Seen {
    opened: AtomicUsize,
    open: AtomicUsize,
    requests: AtomicUsize,
    gate: Semaphore,
}

impl Upstream {
    #[expect(clippy::disallowed_methods, reason = "one task for the server")]
    async fn start() -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let seen = Arc::new(Seen {
            opened: AtomicUsize::new(0),
            open: AtomicUsize::new(0),
            requests: AtomicUsize::new(0),
            gate: Semaphore::new(0),
        });
        let shared = seen.clone();
        let server = tokio::spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((socket, _)) = listener.accept().await {
                let seen = shared.clone();
                connections.spawn(async move {
                    seen.opened.fetch_add(1, Ordering::SeqCst);
                    seen.open.fetch_add(1, Ordering::SeqCst);
                    let _ = converse(BufReader::new(socket), &seen).await;
                    seen.open.fetch_sub(1, Ordering::SeqCst);
                });
            }
        });
        Self { address, seen, server }
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        self.server.abort();
    }
}

/// Responds requests with a body of two bytes.
async fn converse(mut socket: BufReader<TcpStream>, seen: &Seen) -> Result<()> {
    loop {
        let mut line = String::new();
        while line != "\r\n" {
            line.clear();
            if socket.read_line(&mut line).await? == 0 {
                return Ok(());
            }
        }
        socket.read_exact(&mut [0; 2]).await?;
        seen.requests.fetch_add(1, Ordering::SeqCst);
        seen.gate.acquire().await.unwrap().forget();
        socket.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}").await?;
    }
}

#[tokio::test]
async fn few_connections_are_kept_after_a_burst_and_used_again() {
    const BURST: usize = 300;
    const MAX_IDLE: usize = 64;
    let upstream = Upstream::start().await;
    let seen = &*upstream.seen;
    let gateway = GatewayCommand::before(format!("http://{}/v1", upstream.address)).start();
    let key = gateway.create_key(json!({"daily_limit": 0})).await;
    let mut burst = JoinSet::new();
    for _ in 0..BURST {
        let (address, key) = (gateway.address(), key.clone());
        burst.spawn(async move {
            let mut wire = Wire::connect(address).await.unwrap();
            wire.post(&key, "{}").await.unwrap().0
        });
    }
    eventually("all at once", || async { seen.requests.load(Ordering::SeqCst) == BURST }).await;
    seen.gate.add_permits(Semaphore::MAX_PERMITS / 2);
    assert_eq!(burst.join_all().await, [200; BURST]);
    eventually("few are kept", || async { seen.open.load(Ordering::SeqCst) <= MAX_IDLE }).await;
    let opened = seen.opened.load(Ordering::SeqCst);
    let mut wire = Wire::connect(gateway.address()).await.unwrap();
    for _ in 0..20 {
        assert_eq!(wire.post(&key, "{}").await.unwrap().0, 200);
    }
    assert_eq!(seen.opened.load(Ordering::SeqCst), opened);
}
