//! The subset of HTTP/1.1 that the load and the upstream need.

use std::io;

use tokio::{io::AsyncReadExt, net::TcpStream};

/// A complete message.
pub(crate) struct Message {
    /// The request line or status line.
    pub(crate) first_line: String,
    /// Length of the body, without the framing of chunks.
    pub(crate) length: usize,
    /// The upstream's delay in nanoseconds.
    pub(crate) delay: u64,
}

/// The header of a response with the upstream's delay in nanoseconds.
pub(crate) const DELAY_HEADER: &str = "x-delay";

/// A socket and the bytes that were read after the last message.
pub(crate) struct Connection {
    pub(crate) socket: TcpStream,
    buffer: Vec<u8>,
}

impl Connection {
    pub(crate) fn new(socket: TcpStream) -> io::Result<Self> {
        socket.set_nodelay(true)?;
        Ok(Self { socket, buffer: Vec::with_capacity(16 * 1024) })
    }

    /// Returns the next message, or `None` if the peer has closed the connection before it.
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

/// Returns the first message and its length, if it is complete.
fn parse(bytes: &[u8]) -> io::Result<Option<(Message, usize)>> {
    let Some(end) = find(bytes, b"\r\n\r\n") else {
        return Ok(None);
    };
    let head = std::str::from_utf8(&bytes[..end]).map_err(io::Error::other)?;
    let mut lines = head.split("\r\n");
    let first_line = lines.next().unwrap_or_default().to_owned();
    let mut message = Message { first_line, length: 0, delay: 0 };
    let mut chunked = false;
    for (name, value) in lines.filter_map(|line| line.split_once(": ")) {
        if name.eq_ignore_ascii_case("content-length") {
            message.length = value.parse().map_err(io::Error::other)?;
        } else if name.eq_ignore_ascii_case("transfer-encoding") {
            chunked = true;
        } else if name.eq_ignore_ascii_case(DELAY_HEADER) {
            message.delay = value.parse().map_err(io::Error::other)?;
        }
    }
    let body = end + 4;
    if chunked {
        let complete = parse_chunks(&bytes[body..])?;
        return Ok(complete.map(|(length, end)| (Message { length, ..message }, body + end)));
    }
    let end = body + message.length;
    Ok((bytes.len() >= end).then_some((message, end)))
}

/// Returns the length of a chunked body and where it ends, if it is complete. Trailers are not expected.
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

fn find(bytes: &[u8], pattern: &[u8]) -> Option<usize> {
    bytes.windows(pattern.len()).position(|window| window == pattern)
}
