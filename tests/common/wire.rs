use std::{
    io::{Error, ErrorKind, Result},
    net::SocketAddr,
};

use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http2::{self, SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::TcpStream,
    time::timeout,
};

use super::DEADLINE;

/// One kept-alive HTTP/1.1 connection: light, with one method for each step of a request.
pub(crate) struct Wire(BufReader<TcpStream>);

/// The head of a response, and how its body is framed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct WireHead {
    pub(crate) status: u16,
    /// Whether it says `Connection: close`.
    pub(crate) closes: bool,
    length: Option<usize>,
}

impl Wire {
    pub(crate) async fn connect(gateway: SocketAddr) -> Result<Self> {
        let socket = TcpStream::connect(gateway).await?;
        socket.set_nodelay(true)?;
        Ok(Self(BufReader::new(socket)))
    }

    /// Writes a chat request.
    pub(crate) async fn write(&mut self, key: &str, body: &str) -> Result<()> {
        let request = format!(
            "POST /v1/chat/completions HTTP/1.1\r\nHost: gateway\r\nAuthorization: Bearer {key}\r\n\
             Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        self.0.get_mut().write_all(request.as_bytes()).await
    }

    /// Writes these bytes.
    pub(crate) async fn send(&mut self, bytes: impl AsRef<[u8]>) -> Result<()> {
        self.0.get_mut().write_all(bytes.as_ref()).await
    }

    /// Whether the gateway has closed the connection, or does so in time.
    pub(crate) async fn is_closed(&mut self) -> bool {
        let end = timeout(DEADLINE, self.0.fill_buf()).await;
        end.is_ok_and(|end| end.is_ok_and(<[u8]>::is_empty))
    }

    /// Reads the whole head of the response.
    pub(crate) async fn head(&mut self) -> Result<WireHead> {
        let mut line = String::new();
        self.line(&mut line).await?;
        let status = line.get(9..12).and_then(|status| status.parse().ok());
        let status = status.ok_or_else(|| Error::new(ErrorKind::InvalidData, line.clone()))?;
        let (mut length, mut closes) = ((status == 204).then_some(0), false);
        loop {
            line.clear();
            self.line(&mut line).await?;
            match line.split_once(':') {
                Some((name, value)) if name.eq_ignore_ascii_case("content-length") => {
                    length = value.trim().parse().ok();
                }
                Some((name, value)) if name.eq_ignore_ascii_case("connection") => {
                    closes |= value.trim().eq_ignore_ascii_case("close");
                }
                Some(_) => {}
                None => return Ok(WireHead { status, closes, length }),
            }
        }
    }

    /// Reads the body to its declared end.
    pub(crate) async fn body(&mut self, head: WireHead) -> Result<Vec<u8>> {
        let mut body = vec![0; head.length.unwrap_or(0)];
        if head.length.is_some() {
            self.0.read_exact(&mut body).await?;
            return Ok(body);
        }
        loop {
            let mut piece = self.piece().await?;
            if piece.is_empty() {
                return Ok(body);
            }
            body.append(&mut piece);
        }
    }

    /// Reads the next chunk of a body of unknown length.
    pub(crate) async fn piece(&mut self) -> Result<Vec<u8>> {
        let mut line = String::new();
        self.line(&mut line).await?;
        let size = usize::from_str_radix(line.trim(), 16)
            .map_err(|error| Error::new(ErrorKind::InvalidData, error))?;
        let mut piece = vec![0; size + 2];
        self.0.read_exact(&mut piece).await?;
        piece.truncate(size);
        Ok(piece)
    }

    /// Sends a chat request and reads the whole response.
    pub(crate) async fn post(&mut self, key: &str, body: &str) -> Result<(u16, Vec<u8>)> {
        self.write(key, body).await?;
        let head = self.head().await?;
        Ok((head.status, self.body(head).await?))
    }

    async fn line(&mut self, line: &mut String) -> Result<()> {
        self.0.read_line(line).await?;
        if line.ends_with("\r\n") { Ok(()) } else { Err(ErrorKind::UnexpectedEof.into()) }
    }
}

/// One HTTP/2 connection. Clones share it, each for a stream at a time.
#[derive(Clone)]
pub(crate) struct Wire2 {
    connection: SendRequest<Full<Bytes>>,
    url: String,
}

impl Wire2 {
    #[expect(clippy::disallowed_methods, reason = "one task for the connection")]
    pub(crate) async fn connect(gateway: SocketAddr) -> Self {
        let socket = TcpStream::connect(gateway).await.unwrap();
        socket.set_nodelay(true).unwrap();
        let (connection, driver) =
            http2::handshake(TokioExecutor::new(), TokioIo::new(socket)).await.unwrap();
        tokio::spawn(driver);
        Self { connection, url: format!("http://{gateway}/v1/chat/completions") }
    }

    /// Sends a chat request and reads the whole response.
    pub(crate) async fn post(&mut self, key: &str, body: &'static str) -> (u16, Vec<u8>) {
        let request = Request::post(&self.url)
            .header("authorization", format!("Bearer {key}"))
            .header("content-type", "application/json")
            .body(Full::from(body))
            .unwrap();
        self.connection.ready().await.unwrap();
        let response = self.connection.send_request(request).await.unwrap();
        let status = response.status().as_u16();
        (status, response.into_body().collect().await.unwrap().to_bytes().into())
    }
}
