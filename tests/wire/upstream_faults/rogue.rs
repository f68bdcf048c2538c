use std::{
    collections::HashMap,
    io::Result,
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::{JoinHandle, JoinSet},
};

use super::trial::Kind;

/// What the upstream does on its socket with a request.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Step {
    /// Waits for the request's body. Every kind but the hasty ones begins with it.
    ReadBody,
    /// Sends this, with `$TYPE` and `$BODY` filled in.
    Send(&'static str),
    /// The same, a byte at a time, each of its own segment.
    Trickle(&'static str),
    /// Sends these bytes as they are.
    Bytes(&'static [u8]),
    /// Sends a text repeatedly, this number of times.
    Repeat(&'static str, usize),
    /// Sends nothing more, until the gateway has left.
    Hang,
    /// Neither reads nor sends any more.
    Deaf,
    /// Ends the connection.
    Close,
    /// Resets the connection.
    Reset,
}

/// An upstream on raw sockets. `/v1/<number>/…` does what the row of that number says; all other
/// requests succeed, with their own body. It stops on drop.
pub(crate) struct Rogue {
    address: SocketAddr,
    seen: Arc<Seen>,
    server: JoinHandle<()>,
}

#[derive(Default)]
struct Seen {
    heads: Mutex<HashMap<String, usize>>,
    repeated: AtomicUsize,
    left: AtomicUsize,
}

/// The body of a response, plain and streamed. They are of equal length.
pub(crate) const BODIES: [&str; 2] = ["{\"id\":\"abcd\"}", "data: 12345\n\n"];

/// The text of a kind in a plain or a streamed response.
pub(crate) fn fill(text: &str, streamed: bool) -> String {
    let kind = if streamed { "text/event-stream" } else { "application/json" };
    text.replace("$TYPE", kind).replace("$BODY", BODIES[usize::from(streamed)])
}

impl Rogue {
    pub(crate) async fn start(kinds: &'static [Kind]) -> Self {
        Self::on(TcpListener::bind(("127.0.0.1", 0)).await.unwrap(), kinds)
    }

    #[expect(clippy::disallowed_methods, reason = "one task for the server")]
    pub(crate) fn on(listener: TcpListener, kinds: &'static [Kind]) -> Self {
        let address = listener.local_addr().unwrap();
        let seen = Arc::new(Seen::default());
        let server = tokio::spawn(serve(listener, kinds, seen.clone()));
        Self { address, seen, server }
    }

    /// What the gateway's `UPSTREAM_BASE_URL` is to be.
    pub(crate) fn base_url(&self) -> String {
        format!("http://{}/v1", self.address)
    }

    /// How many requests for this path have reached it.
    pub(crate) fn heads(&self, path: &str) -> usize {
        self.seen.heads.lock().unwrap().get(path).copied().unwrap_or(0)
    }

    /// How many bytes of repeated texts it could send.
    pub(crate) fn repeated(&self) -> usize {
        self.seen.repeated.load(Ordering::SeqCst)
    }

    /// How often the gateway has left before it had said all.
    pub(crate) fn left(&self) -> usize {
        self.seen.left.load(Ordering::SeqCst)
    }
}

impl Drop for Rogue {
    fn drop(&mut self) {
        self.server.abort();
    }
}

async fn serve(listener: TcpListener, kinds: &'static [Kind], seen: Arc<Seen>) {
    let mut connections = JoinSet::new();
    loop {
        let (socket, _) = listener.accept().await.unwrap();
        socket.set_nodelay(true).unwrap();
        let seen = seen.clone();
        connections.spawn(async move {
            if converse(socket, kinds, &seen).await.is_err() {
                seen.left.fetch_add(1, Ordering::SeqCst);
            }
        });
    }
}

async fn converse(mut socket: TcpStream, kinds: &'static [Kind], seen: &Seen) -> Result<()> {
    let mut read = Vec::new();
    loop {
        let Some(head) = read_head(&mut socket, &mut read).await? else {
            return Ok(());
        };
        let path = head.split(' ').nth(1).unwrap_or_default().to_owned();
        *seen.heads.lock().unwrap().entry(path.clone()).or_default() += 1;
        let number = path.split('/').nth(2).and_then(|number| number.parse::<usize>().ok());
        let Some(kind) = number.map(|number| &kinds[number]) else {
            let body = read_body(&mut socket, &mut read, &head).await?;
            let response = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len());
            socket.write_all(&[response.as_bytes(), &body].concat()).await?;
            continue;
        };
        let streamed = head.contains("accept: text/event-stream");
        for step in kind.does {
            match *step {
                Step::ReadBody => {
                    read_body(&mut socket, &mut read, &head).await?;
                }
                Step::Send(text) => socket.write_all(fill(text, streamed).as_bytes()).await?,
                Step::Trickle(text) => {
                    for byte in fill(text, streamed).bytes() {
                        socket.write_all(&[byte]).await?;
                        tokio::task::yield_now().await;
                    }
                }
                Step::Bytes(bytes) => socket.write_all(bytes).await?,
                Step::Repeat(text, times) => {
                    for _ in 0..times {
                        socket.write_all(text.as_bytes()).await?;
                        seen.repeated.fetch_add(text.len(), Ordering::SeqCst);
                    }
                }
                Step::Deaf => std::future::pending().await,
                Step::Hang => while socket.read_buf(&mut read).await? > 0 {},
                Step::Close => return socket.shutdown().await,
                Step::Reset => return socket.set_zero_linger(),
            }
        }
    }
}

/// The next request's head in lower case; `None` if the connection is over.
pub(crate) async fn read_head(
    socket: &mut TcpStream,
    read: &mut Vec<u8>,
) -> Result<Option<String>> {
    loop {
        if let Some(end) = read.windows(4).position(|four| four == b"\r\n\r\n") {
            let head: Vec<u8> = read.drain(..end + 4).collect();
            return Ok(Some(String::from_utf8_lossy(&head).to_ascii_lowercase()));
        }
        if socket.read_buf(read).await? == 0 {
            return Ok(None);
        }
    }
}

async fn read_body(socket: &mut TcpStream, read: &mut Vec<u8>, head: &str) -> Result<Vec<u8>> {
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
    let length = length.map_or(0, |length| length.parse().unwrap());
    while read.len() < length {
        if socket.read_buf(read).await? == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
    }
    Ok(read.drain(..length).collect())
}
