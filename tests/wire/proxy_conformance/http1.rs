//! HTTP/1 by hand: what is sent and seen are bytes.

use std::io;

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use super::message::Message;

/// A socket that remembers all that came through it.
pub(crate) struct Socket {
    socket: TcpStream,
    /// What came and was not looked at yet.
    buffer: Vec<u8>,
    pub(crate) recorded: Vec<u8>,
}

impl Socket {
    pub(crate) async fn connect(server: &str) -> Self {
        let address = server.strip_prefix("http://").unwrap();
        Self::new(TcpStream::connect(address).await.unwrap())
    }

    pub(crate) fn new(socket: TcpStream) -> Self {
        socket.set_nodelay(true).unwrap();
        Self { socket, buffer: Vec::new(), recorded: Vec::new() }
    }

    pub(crate) async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.socket.write_all(bytes.as_ref()).await.unwrap();
    }

    /// Reads on; `false` if the peer has closed.
    async fn more(&mut self) -> io::Result<bool> {
        let mut piece = [0; 4096];
        let read = self.socket.read(&mut piece).await?;
        self.buffer.extend(&piece[..read]);
        self.recorded.extend(&piece[..read]);
        Ok(read > 0)
    }

    /// Waits until the peer has closed, whatever comes before.
    pub(crate) async fn closed(&mut self) {
        while let Ok(true) = self.more().await {}
    }

    /// All that comes until the peer closes.
    pub(crate) async fn rest(&mut self) -> String {
        self.closed().await;
        String::from_utf8_lossy(&self.recorded).into_owned()
    }

    pub(crate) async fn through(&mut self, end: &[u8]) -> Option<String> {
        loop {
            let found = self.buffer.windows(end.len()).position(|window| window == end);
            if let Some(at) = found {
                let line = self.buffer.drain(..at + end.len()).collect::<Vec<_>>();
                return Some(String::from_utf8_lossy(&line[..at]).into_owned());
            }
            if !self.more().await.unwrap_or(false) {
                return None;
            }
        }
    }

    async fn exactly(&mut self, length: usize) -> Option<Vec<u8>> {
        while self.buffer.len() < length {
            if !self.more().await.unwrap_or(false) {
                return None;
            }
        }
        Some(self.buffer.drain(..length).collect())
    }

    /// The next head; `None` if the peer closes first.
    pub(crate) async fn head(&mut self) -> Option<Message> {
        let text = self.through(b"\r\n\r\n").await?;
        let (first, lines) = text.split_once("\r\n").unwrap_or((&text, ""));
        let start = match first.strip_prefix("HTTP/1.1 ") {
            Some(status) => &status[..3],
            None => first.strip_suffix(" HTTP/1.1").unwrap_or(first),
        };
        let mut message = Message::new(start);
        for line in lines.split("\r\n").filter(|line| !line.is_empty()) {
            let (name, value) = line.split_once(':').unwrap();
            message = message.header(name, value.trim());
        }
        Some(message)
    }

    /// The next whole message; `None` if the peer closes before its end.
    pub(crate) async fn message(&mut self, has_body: bool) -> Option<Message> {
        let mut message = self.head().await?;
        let mut interim = Vec::new();
        while message.start.len() == 3 && message.start.starts_with('1') {
            interim.push(message.start.parse().unwrap());
            message = self.head().await?;
        }
        message.interim = interim;
        if !has_body || message.is_bare() {
            return Some(message);
        }
        if !message.one("transfer-encoding").is_empty() {
            self.chunks(&mut message).await?;
        } else if let Ok(length) = message.one("content-length").parse() {
            message.body = self.exactly(length).await?;
        } else if message.start.len() == 3 {
            self.closed().await;
            message.body = std::mem::take(&mut self.buffer);
        }
        Some(message)
    }

    async fn chunks(&mut self, message: &mut Message) -> Option<()> {
        loop {
            let size = usize::from_str_radix(&self.through(b"\r\n").await?, 16).unwrap();
            if size == 0 {
                break;
            }
            message.body.extend(self.exactly(size).await?);
            self.through(b"\r\n").await?;
        }
        loop {
            let line = self.through(b"\r\n").await?;
            let Some((name, value)) = line.split_once(':') else { return Some(()) };
            message.trailers.push((name.to_owned(), value.trim().to_owned()));
        }
    }
}

/// A message's bytes; chunked if it has trailers.
pub(crate) fn encoded(message: &Message) -> Vec<u8> {
    let first = match message.start.len() {
        3 => format!("HTTP/1.1 {} Whatever", message.start),
        _ => format!("{} HTTP/1.1", message.start),
    };
    let mut bytes = Vec::new();
    for status in &message.interim {
        bytes.extend(format!("HTTP/1.1 {status} Interim\r\nx-interim: yes\r\n\r\n").into_bytes());
    }
    bytes.extend(first.into_bytes());
    for (name, value) in &message.headers {
        bytes.extend(format!("\r\n{name}: {value}").into_bytes());
    }
    if !message.trailers.is_empty() {
        bytes.extend(b"\r\ntransfer-encoding: chunked\r\n\r\n");
        bytes.extend(format!("{:x}\r\n", message.body.len()).into_bytes());
        bytes.extend(&message.body);
        bytes.extend(b"\r\n0\r\n");
        for (name, value) in &message.trailers {
            bytes.extend(format!("{name}: {value}\r\n").into_bytes());
        }
        bytes.extend(b"\r\n");
        return bytes;
    }
    bytes.extend(b"\r\n\r\n");
    bytes.extend(&message.body);
    bytes
}

/// The bytes of a request with the `Host` that it must have, and a length if it has a body.
pub(crate) fn request(request: &Message) -> Vec<u8> {
    let mut request = request.clone();
    if request.all("host").is_empty() {
        request.headers.insert(0, ("host".into(), "gateway.example".into()));
    }
    encoded(&if request.body.is_empty() { request } else { request.with_length() })
}

pub(crate) async fn exchange(server: &str, request: &Message) -> Message {
    let mut socket = Socket::connect(server).await;
    socket.send(self::request(request)).await;
    socket.message(!request.is_head_request()).await.expect("a whole response")
}

/// Sends these bytes and reads until the server closes.
pub(crate) async fn raw(server: &str, bytes: impl AsRef<[u8]>) -> String {
    let mut socket = Socket::connect(server).await;
    socket.send(bytes).await;
    super::message::in_time(crate::common::DEADLINE, socket.rest()).await
}
