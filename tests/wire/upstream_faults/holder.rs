use std::net::SocketAddr;

use http::Method;
use http_body_util::BodyExt;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::common::{Client, DEADLINE};

/// How a holder of a key sends requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    Plain,
    Streamed,
    StreamedOverHttp2,
}

impl Mode {
    pub(crate) const ALL: [Self; 3] = [Self::Plain, Self::Streamed, Self::StreamedOverHttp2];

    pub(crate) fn is_streamed(self) -> bool {
        self != Self::Plain
    }
}

/// What came back for a request.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    /// 0 if there was no head.
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
    /// Whether the body has ended as its framing says.
    pub(crate) whole: bool,
}

impl Seen {
    /// A header's text, empty if it is missing.
    pub(crate) fn header(&self, name: &str) -> &str {
        let found = self.headers.iter().find(|(known, _)| known == name);
        found.map_or("", |(_, value)| value)
    }

    /// Whether this text is anywhere in it.
    pub(crate) fn shows(&self, text: &str) -> bool {
        let headers = format!("{:?}", self.headers);
        headers.contains(text) || String::from_utf8_lossy(&self.body).contains(text)
    }
}

/// A holder of a key and its connection, which is kept as long as the gateway keeps it.
pub(crate) struct Holder {
    gateway: SocketAddr,
    key: String,
    mode: Mode,
    http1: Option<TcpStream>,
    http2: Client,
}

impl Holder {
    pub(crate) fn new(gateway: SocketAddr, key: String, mode: Mode) -> Self {
        Self { gateway, key, mode, http1: None, http2: Client::http2() }
    }

    /// Sends a request and reads what comes back. Fails if that is no valid HTTP.
    pub(crate) async fn send(
        &mut self,
        method: &str,
        path: &str,
        body: &str,
    ) -> Result<Seen, String> {
        let exchange = async {
            match self.mode {
                Mode::StreamedOverHttp2 => self.send_http2(method, path, body).await,
                Mode::Plain | Mode::Streamed => self.send_http1(method, path, body).await,
            }
        };
        tokio::time::timeout(DEADLINE, exchange).await.unwrap_or_else(|_| Err("no end".into()))
    }

    async fn send_http1(&mut self, method: &str, path: &str, body: &str) -> Result<Seen, String> {
        let mut socket = match self.http1.take() {
            Some(socket) => socket,
            None => TcpStream::connect(self.gateway).await.map_err(|error| error.to_string())?,
        };
        let accept = match self.mode.is_streamed() {
            true => "text/event-stream",
            false => "application/json",
        };
        let request = format!(
            "{method} {path} HTTP/1.1\r\nHost: gateway\r\nAuthorization: Bearer {}\r\n\
             Accept: {accept}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            self.key,
            body.len()
        );
        socket.write_all(request.as_bytes()).await.map_err(|error| error.to_string())?;
        let mut reader = Reader { socket, read: Vec::new() };
        let seen = reader.read_response(method).await?;
        if seen.whole && seen.header("connection") != "close" {
            if !reader.read.is_empty() {
                return Err(format!("bytes after {seen:?}: {:?}", reader.read));
            }
            self.http1 = Some(reader.socket);
        }
        Ok(seen)
    }

    async fn send_http2(&self, method: &str, path: &str, body: &str) -> Result<Seen, String> {
        let authorization = format!("Bearer {}", self.key);
        let headers = [
            ("authorization", authorization.as_str()),
            ("accept", "text/event-stream"),
            ("content-type", "application/json"),
        ];
        let url = format!("http://{}{path}", self.gateway);
        let method = Method::from_bytes(method.as_bytes()).unwrap();
        let response = self.http2.open(method, &url, &headers, body.to_owned()).await;
        let Ok(response) = response else {
            return Ok(Seen::default());
        };
        let text = |value: &http::HeaderValue| String::from_utf8_lossy(value.as_bytes()).into();
        let headers = response.headers().iter();
        let headers = headers.map(|(name, value)| (name.to_string(), text(value))).collect();
        let status = response.status().as_u16();
        let mut seen = Seen { status, headers, body: Vec::new(), whole: true };
        let mut body = response.into_body();
        while let Some(frame) = body.frame().await {
            match frame.map(hyper::body::Frame::into_data) {
                Ok(data) => seen.body.extend(data.unwrap_or_default()),
                Err(_) => {
                    seen.whole = false;
                    break;
                }
            }
        }
        Ok(seen)
    }
}

/// Reads a response strictly by RFC 9112.
struct Reader {
    socket: TcpStream,
    read: Vec<u8>,
}

impl Reader {
    async fn read_response(&mut self, method: &str) -> Result<Seen, String> {
        let mut seen = Seen::default();
        let Some(head) = self.until(b"\r\n\r\n").await else {
            return Ok(seen);
        };
        let mut headers = [httparse::EMPTY_HEADER; 64];
        let mut parsed = httparse::Response::new(&mut headers);
        parsed.parse(&head).map_err(|error| format!("{error}: {head:?}"))?;
        seen.status = parsed.code.unwrap_or_default();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let lines = parsed.headers.iter();
        seen.headers =
            lines.map(|line| (line.name.to_ascii_lowercase(), text(line.value))).collect();
        let values = |name: &str| {
            let lines = seen.headers.iter().filter(|(known, _)| known == name);
            lines.map(|(_, value)| value.clone()).collect::<Vec<_>>()
        };
        let (lengths, codings) = (values("content-length"), values("transfer-encoding"));
        match (lengths.as_slice(), codings.as_slice()) {
            _ if method == "HEAD" || matches!(seen.status, 204 | 304) => seen.whole = true,
            ([length], []) => {
                let length = length.parse().map_err(|_| format!("{seen:?}"))?;
                self.whole(length, &mut seen).await;
            }
            ([], [chunked]) if chunked == "chunked" => self.chunks(&mut seen).await?,
            framing => return Err(format!("{}: no clear framing: {framing:?}", seen.status)),
        }
        Ok(seen)
    }

    async fn chunks(&mut self, seen: &mut Seen) -> Result<(), String> {
        loop {
            let Some(line) = self.until(b"\r\n").await else {
                return Ok(());
            };
            let size = String::from_utf8_lossy(&line).trim_end().to_owned();
            let size = usize::from_str_radix(&size, 16).map_err(|_| format!("chunk {size:?}"))?;
            if size == 0 {
                let mut last = self.until(b"\r\n").await;
                while last.as_deref().is_some_and(|line| line != b"\r\n") {
                    last = self.until(b"\r\n").await;
                }
                seen.whole = last.is_some();
                return Ok(());
            }
            self.whole(size, seen).await;
            if !std::mem::take(&mut seen.whole) || self.until(b"\r\n").await.is_none() {
                return Ok(());
            }
        }
    }

    /// Moves `length` bytes to the body, or fewer if the connection ends.
    async fn whole(&mut self, length: usize, seen: &mut Seen) {
        while self.read.len() < length && self.more().await {}
        seen.whole = self.read.len() >= length;
        seen.body.extend(self.read.drain(..length.min(self.read.len())));
    }

    /// Everything up to the end of this mark.
    async fn until(&mut self, mark: &[u8]) -> Option<Vec<u8>> {
        loop {
            let found = self.read.windows(mark.len()).position(|bytes| bytes == mark);
            if let Some(at) = found {
                return Some(self.read.drain(..at + mark.len()).collect());
            }
            if !self.more().await {
                return None;
            }
        }
    }

    async fn more(&mut self) -> bool {
        matches!(self.socket.read_buf(&mut self.read).await, Ok(1..))
    }
}
