//! As much of HTTP/1.1 as the load and the upstream need.

use std::io;

use tokio::{io::AsyncReadExt, net::TcpStream};

/// A message that was read to its end.
pub(crate) struct Message {
    /// The request line or status line.
    pub(crate) first_line: String,
    /// Bytes in its body, without the marks between chunks.
    pub(crate) length: usize,
    /// Nanoseconds that the upstream says it thought.
    pub(crate) thought: u64,
}

/// In an answer's head: nanoseconds that the upstream thought.
pub(crate) const THOUGHT_HEADER: &str = "x-thought";

/// A socket and what was read of it too early.
pub(crate) struct Connection {
    pub(crate) socket: TcpStream,
    buffer: Vec<u8>,
}

impl Connection {
    pub(crate) fn new(socket: TcpStream) -> io::Result<Self> {
        socket.set_nodelay(true)?;
        Ok(Self { socket, buffer: Vec::with_capacity(16 * 1024) })
    }

    /// The next whole message, or `None` if the peer closed the connection before it.
    pub(crate) async fn read(&mut self) -> io::Result<Option<Message>> {
        loop {
            if let Some((message, end)) = parse(&self.buffer)? {
                self.buffer.drain(..end);
                return Ok(Some(message));
            }
            if self.socket.read_buf(&mut self.buffer).await? == 0 {
                return match self.buffer.is_empty() {
                    true => Ok(None),
                    false => Err(io::ErrorKind::UnexpectedEof.into()),
                };
            }
        }
    }
}

/// The first message and where it ends, if it is whole.
fn parse(bytes: &[u8]) -> io::Result<Option<(Message, usize)>> {
    let Some(end) = find(bytes, b"\r\n\r\n") else {
        return Ok(None);
    };
    let head = std::str::from_utf8(&bytes[..end]).map_err(io::Error::other)?;
    let mut lines = head.split("\r\n");
    let first_line = lines.next().unwrap_or_default().to_owned();
    let mut message = Message { first_line, length: 0, thought: 0 };
    let mut chunked = false;
    for (name, value) in lines.filter_map(|line| line.split_once(": ")) {
        if name.eq_ignore_ascii_case("content-length") {
            message.length = value.parse().map_err(io::Error::other)?;
        } else if name.eq_ignore_ascii_case("transfer-encoding") {
            chunked = true;
        } else if name.eq_ignore_ascii_case(THOUGHT_HEADER) {
            message.thought = value.parse().map_err(io::Error::other)?;
        }
    }
    let body = end + 4;
    if chunked {
        let whole = parse_chunks(&bytes[body..])?;
        return Ok(whole.map(|(length, end)| (Message { length, ..message }, body + end)));
    }
    let end = body + message.length;
    Ok((bytes.len() >= end).then_some((message, end)))
}

/// Bytes in a chunked body and where it ends, if it is whole. Trailers are not expected.
fn parse_chunks(bytes: &[u8]) -> io::Result<Option<(usize, usize)>> {
    let (mut length, mut at) = (0, 0);
    while let Some(line) = bytes.get(at..).and_then(|rest| find(rest, b"\r\n")) {
        let size = std::str::from_utf8(&bytes[at..at + line]).map_err(io::Error::other)?;
        let size = usize::from_str_radix(size, 16).map_err(io::Error::other)?;
        at += line + 2 + size + 2;
        length += size;
        if size == 0 {
            return Ok((bytes.len() >= at).then_some((length, at)));
        }
    }
    Ok(None)
}

fn find(bytes: &[u8], mark: &[u8]) -> Option<usize> {
    bytes.windows(mark.len()).position(|window| window == mark)
}
