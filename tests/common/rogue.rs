use std::{
    io::{Error, ErrorKind, Result},
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    task::{JoinHandle, JoinSet},
};

use super::eventually;

/// An upstream that does on its socket what the request's body says. It stops on drop.
///
/// | body | what it does |
/// |---|---|
/// | `<status>` | responds with it |
/// | `held <status>` | the same once it is released |
/// | `hang` | never responds |
/// | `close` | closes with no response |
/// | `nonsense` | responds with something that is no HTTP |
/// | `stream` | begins a body, and never goes on |
/// | `cut length`, `cut chunks` | begins a body and resets the connection |
pub(crate) struct Rogue {
    address: SocketAddr,
    shared: Arc<Shared>,
    server: JoinHandle<()>,
}

struct Shared {
    arrived: AtomicUsize,
    left: AtomicUsize,
    gate: Semaphore,
}

impl Rogue {
    #[expect(clippy::disallowed_methods, reason = "one task for the server")]
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let (arrived, left) = (AtomicUsize::new(0), AtomicUsize::new(0));
        let shared = Arc::new(Shared { arrived, left, gate: Semaphore::new(0) });
        let server = tokio::spawn(serve(listener, shared.clone()));
        Self { address, shared, server }
    }

    /// The value for the gateway's `UPSTREAM_BASE_URL`.
    pub(crate) fn base_url(&self) -> String {
        format!("http://{}/v1", self.address)
    }

    /// How many requests have reached it.
    pub(crate) fn count(&self) -> usize {
        self.shared.arrived.load(Ordering::SeqCst)
    }

    /// Releases this number of held responses.
    pub(crate) fn release(&self, responses: usize) {
        self.shared.gate.add_permits(responses);
    }

    /// Waits until this number of requests has reached it.
    pub(crate) async fn reached_by(&self, requests: usize) {
        eventually("requests at the upstream", || async { self.count() >= requests }).await;
    }

    /// Waits until the gateway has given up this number of requests that hang or stream.
    pub(crate) async fn left_by(&self, requests: usize) {
        let left = &self.shared.left;
        eventually("abandoned requests", || async { left.load(Ordering::SeqCst) >= requests })
            .await;
    }
}

impl Drop for Rogue {
    fn drop(&mut self) {
        self.server.abort();
    }
}

async fn serve(listener: TcpListener, shared: Arc<Shared>) {
    let mut connections = JoinSet::new();
    loop {
        let (socket, _) = listener.accept().await.unwrap();
        socket.set_nodelay(true).unwrap();
        connections.spawn(converse(BufReader::new(socket), shared.clone()));
    }
}

/// One request to a connection.
async fn converse(mut socket: BufReader<TcpStream>, shared: Arc<Shared>) -> Result<()> {
    let wish = read(&mut socket).await?;
    shared.arrived.fetch_add(1, Ordering::SeqCst);
    let status = match wish.as_str() {
        "hang" => return until_left(&mut socket, &shared).await,
        "close" => return Ok(()),
        "nonsense" => {
            socket.write_all(b"220 mail.example ESMTP\r\n\r\n").await?;
            return socket.shutdown().await;
        }
        "stream" => {
            let head = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\
                        Transfer-Encoding: chunked\r\n\r\n9\r\ndata: 1\n\n\r\n";
            socket.write_all(head.as_bytes()).await?;
            return until_left(&mut socket, &shared).await;
        }
        "cut length" => return cut(&mut socket, "Content-Length: 100\r\n\r\n{\"a\":").await,
        "cut chunks" => {
            return cut(&mut socket, "Transfer-Encoding: chunked\r\n\r\n5\r\n{\"a\":\r\n").await;
        }
        wish => match wish.strip_prefix("held ") {
            Some(status) => {
                shared.gate.acquire().await.unwrap().forget();
                status
            }
            None => wish,
        },
    };
    let framing = if status == "204" { "" } else { "Content-Length: 2\r\n" };
    let body = if status == "204" { "" } else { "{}" };
    let response = format!(
        "HTTP/1.1 {status} Whatever\r\nContent-Type: application/json\r\nLocation: /elsewhere\r\n\
         {framing}Connection: close\r\n\r\n{body}"
    );
    socket.write_all(response.as_bytes()).await?;
    socket.shutdown().await
}

/// The body of a request.
async fn read(socket: &mut BufReader<TcpStream>) -> Result<String> {
    let (mut line, mut length) = (String::new(), 0);
    while line != "\r\n" {
        line.clear();
        if socket.read_line(&mut line).await? == 0 {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().map_err(Error::other)?;
        }
    }
    let mut body = vec![0; length];
    socket.read_exact(&mut body).await?;
    String::from_utf8(body).map_err(Error::other)
}

async fn until_left(socket: &mut BufReader<TcpStream>, shared: &Shared) -> Result<()> {
    // An end or a reset: gone is gone.
    let _ = socket.read(&mut [0; 16]).await;
    shared.left.fetch_add(1, Ordering::SeqCst);
    Ok(())
}

async fn cut(socket: &mut BufReader<TcpStream>, rest: &str) -> Result<()> {
    let response = format!("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n{rest}");
    socket.write_all(response.as_bytes()).await?;
    socket.get_ref().set_zero_linger()
}
