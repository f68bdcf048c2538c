use std::{io::Result, net::SocketAddr, time::Duration};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    time::timeout,
};

pub(crate) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

pub(crate) const DATA: u8 = 0;
pub(crate) const HEADERS: u8 = 1;
pub(crate) const RST_STREAM: u8 = 3;
pub(crate) const SETTINGS: u8 = 4;
pub(crate) const PING: u8 = 6;
pub(crate) const GOAWAY: u8 = 7;
pub(crate) const WINDOW_UPDATE: u8 = 8;
pub(crate) const CONTINUATION: u8 = 9;

pub(crate) const END_STREAM: u8 = 1;
pub(crate) const END_HEADERS: u8 = 4;

pub(crate) const INITIAL_WINDOW: u16 = 4;

/// A header, name and value as bytes that nobody has checked.
pub(crate) type Field = (Vec<u8>, Vec<u8>);

/// An HTTP/2 connection of which every frame is the test's own.
pub(crate) struct Frames {
    pub(crate) reader: Reader,
    pub(crate) writer: OwnedWriteHalf,
}

/// The gateway's frames.
pub(crate) struct Reader(OwnedReadHalf);

/// A frame from the gateway.
#[derive(Debug)]
pub(crate) struct Frame {
    pub(crate) kind: u8,
    pub(crate) flags: u8,
    pub(crate) stream: u32,
    pub(crate) payload: Vec<u8>,
}

/// How a stream went.
#[derive(Debug, Default)]
pub(crate) struct Outcome {
    pub(crate) status: Option<u16>,
    pub(crate) body: Vec<u8>,
    /// The response has ended.
    pub(crate) ended: bool,
    /// The stream, or the whole connection, was given up.
    pub(crate) cut: bool,
}

impl Frames {
    /// Opens a connection and says nothing.
    pub(crate) async fn silent(gateway: SocketAddr) -> Self {
        let socket = TcpStream::connect(gateway).await.unwrap();
        socket.set_nodelay(true).unwrap();
        let (reader, writer) = socket.into_split();
        Self { reader: Reader(reader), writer }
    }

    /// Opens a connection and announces these settings.
    pub(crate) async fn connect(gateway: SocketAddr, settings: &[(u16, u32)]) -> Self {
        let mut frames = Self::silent(gateway).await;
        // Without a table for headers, every head can be read by itself.
        let all = [(1, 0)].into_iter().chain(settings.iter().copied());
        let payload: Vec<u8> = all.flat_map(setting).collect();
        let opening = [PREFACE.to_vec(), frame(SETTINGS, 0, 0, &payload)].concat();
        frames.send(&opening).await.unwrap();
        frames
    }

    pub(crate) async fn send(&mut self, bytes: &[u8]) -> Result<()> {
        self.writer.write_all(bytes).await
    }

    pub(crate) async fn outcome(&mut self, stream: u32, limit: Duration) -> Outcome {
        self.reader.outcome(stream, limit).await
    }
}

impl Reader {
    /// The bare socket.
    pub(crate) fn into_inner(self) -> OwnedReadHalf {
        self.0
    }

    /// The next frame.
    pub(crate) async fn next(&mut self) -> Result<Frame> {
        let mut head = [0; 9];
        self.0.read_exact(&mut head).await?;
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
        let stream = u32::from_be_bytes([head[5], head[6], head[7], head[8]]) & 0x7fff_ffff;
        let mut payload = vec![0; length];
        self.0.read_exact(&mut payload).await?;
        Ok(Frame { kind: head[3], flags: head[4], stream, payload })
    }

    /// Reads until this stream has ended in any way.
    ///
    /// # Panics
    ///
    /// When it has not within `limit`.
    pub(crate) async fn outcome(&mut self, stream: u32, limit: Duration) -> Outcome {
        let mut outcome = Outcome::default();
        let end = timeout(limit, self.follow(stream, &mut outcome)).await;
        assert!(end.is_ok(), "stream {stream} has no end: {outcome:?}");
        outcome
    }

    /// Reads until this stream has ended in any way.
    pub(crate) async fn follow(&mut self, stream: u32, outcome: &mut Outcome) {
        while !outcome.ended && !outcome.cut {
            match self.next().await {
                Ok(frame) => outcome.take(&frame, stream),
                Err(_) => outcome.cut = true,
            }
        }
    }
}

impl Outcome {
    fn take(&mut self, frame: &Frame, stream: u32) {
        match frame.kind {
            GOAWAY => self.cut = true,
            RST_STREAM if frame.stream == stream => self.cut = true,
            HEADERS if frame.stream == stream && self.status.is_none() => {
                self.status = Some(status(&frame.payload));
            }
            DATA if frame.stream == stream => self.body.extend_from_slice(&frame.payload),
            _ => return,
        }
        self.ended |= matches!(frame.kind, HEADERS | DATA) && frame.flags & END_STREAM != 0;
    }
}

pub(crate) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = (payload.len() as u32).to_be_bytes();
    let mut frame = vec![length[1], length[2], length[3], kind, flags];
    frame.extend_from_slice(&stream.to_be_bytes());
    frame.extend_from_slice(payload);
    frame
}

pub(crate) fn setting((name, value): (u16, u32)) -> Vec<u8> {
    [&name.to_be_bytes()[..], &value.to_be_bytes()[..]].concat()
}

/// A header block in which every field is spelt out (RFC 7541, section 6.2.2).
pub(crate) fn block(fields: &[Field]) -> Vec<u8> {
    let mut block = Vec::new();
    for (name, value) in fields {
        block.push(0);
        for text in [name, value] {
            string(&mut block, text);
        }
    }
    block
}

fn string(block: &mut Vec<u8>, text: &[u8]) {
    let mut length = text.len();
    if length < 127 {
        block.push(length as u8);
    } else {
        block.push(127);
        length -= 127;
        while length >= 128 {
            block.push((length % 128) as u8 | 128);
            length /= 128;
        }
        block.push(length as u8);
    }
    block.extend_from_slice(text);
}

/// The fields of a good request.
pub(crate) fn fields(method: &str, path: &str, key: &str) -> Vec<Field> {
    let authorization = format!("Bearer {key}");
    let fields = [
        (":method", method),
        (":scheme", "http"),
        (":authority", "gateway"),
        (":path", path),
        ("authorization", &authorization),
    ];
    fields.map(|(name, value)| (name.into(), value.into())).into()
}

/// A whole request in one frame.
pub(crate) fn request(stream: u32, fields: &[Field]) -> Vec<u8> {
    frame(HEADERS, END_HEADERS | END_STREAM, stream, &block(fields))
}

/// The head of a request whose body follows.
pub(crate) fn open(stream: u32, fields: &[Field]) -> Vec<u8> {
    frame(HEADERS, END_HEADERS, stream, &block(fields))
}

/// The status in a header block, where it is the first field.
fn status(block: &[u8]) -> u16 {
    // Changes of the table's size may go before it.
    let block = &block[block.iter().take_while(|&&byte| byte & 0xe0 == 0x20).count()..];
    const KNOWN: [u16; 7] = [200, 204, 206, 304, 400, 404, 500];
    match block {
        [indexed @ 0x88..=0x8e, ..] => KNOWN[usize::from(indexed - 0x88)],
        [0x08 | 0x18 | 0x48, 3, a, b, c, ..] => {
            [a, b, c].into_iter().fold(0, |sum, digit| sum * 10 + u16::from(digit - b'0'))
        }
        [0x08 | 0x18 | 0x48, length, text @ ..] if length & 0x80 != 0 => {
            huffman(&text[..usize::from(length & 0x7f)])
        }
        other => panic!("no status: {other:02x?}"),
    }
}

/// Three digits in Huffman's code (RFC 7541, appendix B).
fn huffman(bytes: &[u8]) -> u16 {
    let bits: Vec<u8> =
        bytes.iter().flat_map(|byte| (0..8).rev().map(move |at| byte >> at & 1)).collect();
    let take = |from: usize, count: usize| {
        bits[from..from + count].iter().fold(0_u16, |sum, bit| sum << 1 | u16::from(*bit))
    };
    let (mut at, mut number) = (0, 0);
    for _ in 0..3 {
        let short = take(at, 5);
        let (digit, length) = if short <= 2 { (short, 5) } else { (take(at, 6) - 0x19 + 3, 6) };
        number = number * 10 + digit;
        at += length;
    }
    number
}
