use std::{net::SocketAddr, time::Duration};

use serde_json::Value;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

/// Everything that came back on a connection until its end.
#[derive(Debug)]
pub(crate) struct Exchange {
    pub(crate) responses: Vec<Response>,
    /// Bytes that are no response.
    pub(crate) rest: Vec<u8>,
    /// Whether the gateway has closed the connection in time.
    pub(crate) closed: bool,
}

/// A response.
#[derive(Debug)]
pub(crate) struct Response {
    pub(crate) status: u16,
    head: String,
    pub(crate) body: Vec<u8>,
}

/// Sends `request` and reads until the gateway closes, or `limit` is over.
pub(crate) async fn exchange(gateway: SocketAddr, request: &[u8], limit: Duration) -> Exchange {
    let mut socket = TcpStream::connect(gateway).await.unwrap();
    socket.set_nodelay(true).unwrap();
    let (mut reader, mut writer) = socket.split();
    let mut bytes = Vec::new();
    let both = async {
        // The gateway may respond early, and close early.
        let write = async { drop(writer.write_all(request).await) };
        let read = async { drop(reader.read_to_end(&mut bytes).await) };
        tokio::join!(write, read);
    };
    let closed = timeout(limit, both).await.is_ok();
    let (responses, rest) = parse_responses(&bytes);
    Exchange { responses, rest, closed }
}

fn parse_responses(mut bytes: &[u8]) -> (Vec<Response>, Vec<u8>) {
    let mut responses = Vec::new();
    while let Some((response, used)) = parse_response(bytes) {
        // An interim response precedes the final one.
        if response.status != 100 {
            responses.push(response);
        }
        bytes = &bytes[used..];
    }
    (responses, bytes.to_vec())
}

fn parse_response(bytes: &[u8]) -> Option<(Response, usize)> {
    let end = bytes.windows(4).position(|window| window == b"\r\n\r\n")? + 4;
    let head = String::from_utf8(bytes[..end].to_vec()).ok()?;
    let status = head.strip_prefix("HTTP/1.")?.get(2..5)?.parse().ok()?;
    let mut response = Response { status, head, body: Vec::new() };
    let length = match response.header("content-length") {
        Some(length) => length.parse().ok()?,
        None => 0,
    };
    response.body = bytes.get(end..end + length)?.to_vec();
    Some((response, end + length))
}

impl Response {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let lines = self.head.split("\r\n").filter_map(|line| line.split_once(": "));
        lines
            .into_iter()
            .find(|(given, _)| given.eq_ignore_ascii_case(name))
            .map(|(_, value)| value)
    }

    /// Returns the code of the OpenAI error object that the body must be.
    pub(crate) fn error_code(&self) -> String {
        let json: Value = serde_json::from_slice(&self.body)
            .unwrap_or_else(|error| panic!("no error object: {error}: {self:?}"));
        let error = &json["error"];
        assert!(error["message"].is_string() && error["type"].is_string(), "{self:?}");
        assert_eq!(self.header("content-type"), Some("application/json"), "{self:?}");
        error["code"].as_str().unwrap().to_owned()
    }
}

impl Exchange {
    /// Asserts that everything was rejected by one response, after which the connection was closed.
    pub(crate) fn assert_rejected(&self, name: &str) {
        assert_eq!(self.responses.len(), 1, "{name}: {self:?}");
        let response = &self.responses[0];
        assert!((400..500).contains(&response.status), "{name}: {self:?}");
        response.error_code();
        assert_eq!(response.header("connection"), Some("close"), "{name}: {self:?}");
        assert!(self.closed && self.rest.is_empty(), "{name}: {self:?}");
    }
}
