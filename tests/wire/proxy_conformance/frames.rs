//! Raw HTTP/2 frames (RFC 9113), for a client that opens a stream while the server shuts down: between
//! the first `GOAWAY` and the acknowledgement of the `PING` after it, a server must still serve it.

use std::net::SocketAddr;

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;

const ACK: u8 = 0x1;
const END_STREAM: u8 = 0x1;
const END_HEADERS: u8 = 0x4;

struct Frame {
    kind: u8,
    flags: u8,
    payload: Vec<u8>,
}

/// A connection that acknowledges no `PING` by itself.
pub(crate) struct Connection {
    socket: TcpStream,
    next_stream: u32,
    ping: Option<Vec<u8>>,
}

impl Connection {
    pub(crate) async fn open(server: SocketAddr) -> Self {
        let mut socket = TcpStream::connect(server).await.unwrap();
        socket.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await.unwrap();
        let mut connection = Self { socket, next_stream: 1, ping: None };
        connection.write(SETTINGS, 0, 0, &[]).await;
        connection
    }

    async fn write(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
        let mut frame = (payload.len() as u32).to_be_bytes()[1..].to_vec();
        frame.extend([kind, flags]);
        frame.extend(stream.to_be_bytes());
        frame.extend(payload);
        self.socket.write_all(&frame).await.unwrap();
    }

    /// The next frame; `None` once the server has closed.
    async fn read(&mut self) -> Option<Frame> {
        let mut head = [0; 9];
        self.socket.read_exact(&mut head).await.ok()?;
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
        let mut payload = vec![0; length as usize];
        self.socket.read_exact(&mut payload).await.ok()?;
        let (kind, flags) = (head[3], head[4]);
        match kind {
            SETTINGS if flags & ACK == 0 => self.write(SETTINGS, ACK, 0, &[]).await,
            PING if flags & ACK == 0 => self.ping = Some(payload.clone()),
            _ => {}
        }
        Some(Frame { kind, flags, payload })
    }

    /// Opens a stream for this path.
    pub(crate) async fn get(&mut self, path: &str) {
        // `:method: GET` and `:scheme: http`, then `:authority` and `:path` as plain literals (RFC
        // 7541, appendix A and section 6.2.2).
        let mut head = vec![0x82, 0x86];
        for (name, value) in [(0x01, "gateway"), (0x04, path)] {
            head.extend([name, value.len() as u8]);
            head.extend(value.as_bytes());
        }
        self.write(HEADERS, END_STREAM | END_HEADERS, self.next_stream, &head).await;
        self.next_stream += 2;
    }

    /// The data of the next response.
    pub(crate) async fn data(&mut self) -> String {
        let mut data = Vec::new();
        loop {
            let frame = self.read().await.expect("a response");
            if frame.kind == DATA {
                data.extend(frame.payload);
                if frame.flags & END_STREAM != 0 {
                    return String::from_utf8(data).unwrap();
                }
            }
        }
    }

    /// Waits until the server says that it goes away.
    pub(crate) async fn going_away(&mut self) {
        while self.read().await.expect("a GOAWAY").kind != GOAWAY {}
    }

    /// Acknowledges the server's latest `PING`.
    pub(crate) async fn confirm(&mut self) {
        while self.ping.is_none() {
            self.read().await.expect("a PING");
        }
        if let Some(payload) = self.ping.take() {
            self.write(PING, ACK, 0, &payload).await;
        }
    }

    /// Waits until the server has closed.
    pub(crate) async fn closed(&mut self) {
        while self.read().await.is_some() {}
    }
}
