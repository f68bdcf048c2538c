use std::{
    io::Result,
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::{TcpListener, TcpStream},
    task::{JoinHandle, JoinSet},
};

/// Where all that the gateway forwards must lie.
pub(crate) const BASE: &str = "/base/v1";
/// What the gateway is to present.
pub(crate) const SPONSOR_KEY: &str = "sk-sponsor-secret";
/// Length of a response to a path that ends with `/long`.
pub(crate) const LONG: usize = 32 << 20;

/// An upstream that writes down the bytes it is sent. It stops on drop.
pub(crate) struct Recording {
    address: SocketAddr,
    requests: Arc<Mutex<Vec<Recorded>>>,
    server: JoinHandle<()>,
}

/// The head of a request as it was sent, and as much of its body as came.
#[derive(Clone, Debug, Default)]
pub(crate) struct Recorded {
    pub(crate) head: String,
    pub(crate) body: Vec<u8>,
    /// Whether nothing more of it will come.
    pub(crate) over: bool,
    /// Whether the body has come to its end.
    pub(crate) whole: bool,
}

type Requests = Arc<Mutex<Vec<Recorded>>>;

impl Recording {
    #[expect(clippy::disallowed_methods, reason = "one task for the server")]
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let requests = Requests::default();
        let shared = requests.clone();
        let server = tokio::spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((socket, _)) = listener.accept().await {
                socket.set_nodelay(true).unwrap();
                connections.spawn(converse(BufReader::new(socket), shared.clone()));
            }
        });
        Self { address, requests, server }
    }

    /// What the gateway's `UPSTREAM_BASE_URL` is to be.
    pub(crate) fn base_url(&self) -> String {
        format!("http://{}{BASE}", self.address)
    }

    /// The requests so far.
    pub(crate) fn requests(&self) -> Vec<Recorded> {
        self.requests.lock().unwrap().clone()
    }

    /// Those whose target has this in it.
    pub(crate) fn requests_to(&self, part: &str) -> Vec<Recorded> {
        self.requests().into_iter().filter(|request| request.target().contains(part)).collect()
    }

    /// Asserts that nobody could read any of the requests as something else than it is.
    pub(crate) fn assert_clean(&self) {
        self.requests().iter().for_each(Recorded::assert_clean);
    }
}

impl Drop for Recording {
    fn drop(&mut self) {
        self.server.abort();
    }
}

impl Recorded {
    /// The request target as it was sent.
    pub(crate) fn target(&self) -> &str {
        self.head.split(' ').nth(1).unwrap_or("")
    }

    /// The values of a header, one for each line.
    pub(crate) fn values(&self, name: &str) -> Vec<&str> {
        let lines = self.head.split("\r\n").skip(1).filter_map(|line| line.split_once(':'));
        lines
            .filter(|(given, _)| given.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.trim_matches([' ', '\t']))
            .collect()
    }

    fn assert_clean(&self) {
        let head = self.head.strip_suffix("\r\n\r\n").expect("a whole head");
        for line in head.split("\r\n") {
            let is_plain = line.bytes().all(|byte| byte == b'\t' || !byte.is_ascii_control());
            assert!(is_plain, "control characters: {self:?}");
            assert!(!line.starts_with([' ', '\t']), "a continuation line: {self:?}");
        }
        for line in head.split("\r\n").skip(1) {
            let name = line.split_once(':').map(|(name, _)| name).unwrap_or_default();
            let is_token =
                |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
            assert!(!name.is_empty() && name.bytes().all(is_token), "a bad name: {self:?}");
        }
        let words: Vec<&str> = head.split("\r\n").next().unwrap_or("").split(' ').collect();
        assert_eq!(words.len(), 3, "{self:?}");
        assert_eq!(words[2], "HTTP/1.1", "{self:?}");
        super::paths::assert_below_base(self.target());
        let (lengths, codings) = (self.values("content-length"), self.values("transfer-encoding"));
        assert!(lengths.len() + codings.len() <= 1, "two framings: {self:?}");
        let is_length = |text: &&str| text.bytes().all(|byte| byte.is_ascii_digit());
        assert!(lengths.iter().all(is_length), "a strange length: {self:?}");
        assert!(codings.iter().all(|coding| *coding == "chunked"), "a strange coding: {self:?}");
        assert_eq!(self.values("host").len(), 1, "{self:?}");
        let sponsor = format!("Bearer {SPONSOR_KEY}");
        assert_eq!(self.values("authorization"), [sponsor], "{self:?}");
        for hop in ["connection", "upgrade", "keep-alive", "proxy-connection", "expect"] {
            assert!(self.values(hop).is_empty(), "{hop} has travelled: {self:?}");
        }
    }
}

async fn converse(mut socket: BufReader<TcpStream>, requests: Requests) -> Result<()> {
    loop {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            if socket.read_until(b'\n', &mut head).await? == 0 {
                return Ok(());
            }
        }
        let request =
            Recorded { head: String::from_utf8_lossy(&head).into_owned(), ..Recorded::default() };
        let number = {
            let mut requests = requests.lock().unwrap();
            requests.push(request.clone());
            requests.len() - 1
        };
        let keep = |bytes: &[u8]| requests.lock().unwrap()[number].body.extend_from_slice(bytes);
        let body = read_body(&mut socket, &request, keep).await;
        {
            let recorded = &mut requests.lock().unwrap()[number];
            (recorded.over, recorded.whole) = (true, body.is_ok());
        }
        body?;
        respond(&mut socket, request.target()).await?;
    }
}

/// Reads a request's body to its end, and keeps what has come even if that does not.
async fn read_body(
    socket: &mut BufReader<TcpStream>,
    request: &Recorded,
    keep: impl Fn(&[u8]),
) -> Result<()> {
    if !request.values("transfer-encoding").is_empty() {
        loop {
            let piece = chunk(socket).await?;
            if piece.is_empty() {
                return Ok(());
            }
            keep(&piece);
        }
    }
    let [length] = request.values("content-length")[..] else { return Ok(()) };
    let mut left: usize = length.parse().unwrap();
    while left > 0 {
        let bytes = socket.fill_buf().await?;
        if bytes.is_empty() {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        let used = left.min(bytes.len());
        keep(&bytes[..used]);
        socket.consume(used);
        left -= used;
    }
    Ok(())
}

/// The data of the next chunk; after the last, the trailers are skipped.
async fn chunk(socket: &mut BufReader<TcpStream>) -> Result<Vec<u8>> {
    let mut line = String::new();
    socket.read_line(&mut line).await?;
    let Ok(size) = usize::from_str_radix(line.trim_end(), 16) else {
        return Err(std::io::ErrorKind::UnexpectedEof.into());
    };
    let mut data = vec![0; size];
    socket.read_exact(&mut data).await?;
    loop {
        line.clear();
        if socket.read_line(&mut line).await? == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        if line == "\r\n" {
            return Ok(data);
        }
    }
}

/// The list of models differs from other responses, as the gateway caches it.
async fn respond(socket: &mut BufReader<TcpStream>, target: &str) -> Result<()> {
    let long = target.ends_with("/long");
    let length = if long { LONG } else { 2 };
    let head = format!(
        "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n"
    );
    socket.write_all(head.as_bytes()).await?;
    if !long {
        let is_list = target.split('?').next().is_some_and(|path| path.ends_with("/models"));
        return socket.write_all(if is_list { b"[]" } else { b"{}" }).await;
    }
    let piece = vec![b' '; 64 * 1024];
    for _ in 0..LONG / piece.len() {
        socket.write_all(&piece).await?;
    }
    Ok(())
}
