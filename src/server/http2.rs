//! A timeout for the heads of HTTP/2 requests, which hyper has for HTTP/1 only.

use std::task::{Context, Poll};

use tokio::time::Instant;

use super::{limits::HEAD_TIMEOUT, timeout::DeadlineTimer};

/// The connection preface of a client (RFC 9113, section 3.4).
pub(super) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Times out a header block, or any frame other than DATA, that is incomplete for too long. Bodies have
/// a timeout of their own.
#[derive(Default)]
pub(super) struct FrameTimeout {
    frames: Frames,
    /// When the incomplete frame or header block began.
    start: Option<Instant>,
    timer: DeadlineTimer,
}

impl FrameTimeout {
    /// Records bytes that were read from the client.
    pub(super) fn read(&mut self, bytes: &[u8]) {
        if self.frames.advance(bytes) || self.start.is_none() {
            self.start = self.frames.is_incomplete().then(Instant::now);
        }
    }

    /// Becomes ready when the timeout expires. Must be polled only while waiting for the client.
    pub(super) fn poll_expired(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        match self.start {
            Some(start) => self.timer.poll(start + HEAD_TIMEOUT, cx),
            None => Poll::Pending,
        }
    }
}

/// The position in the client's frames (RFC 9113, section 4.1).
struct Frames {
    header: [u8; 9],
    /// Number of bytes of the frame header that have come.
    header_bytes: usize,
    /// Number of bytes of the payload that have not.
    payload_left: usize,
    /// Whether a header block continues in the next frame.
    in_header_block: bool,
}

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const CONTINUATION: u8 = 9;
const END_HEADERS: u8 = 4;

impl Default for Frames {
    fn default() -> Self {
        Self {
            header: [0; 9],
            header_bytes: 0,
            payload_left: PREFACE.len(),
            in_header_block: false,
        }
    }
}

impl Frames {
    fn is_incomplete(&self) -> bool {
        let is_in_frame = self.payload_left > 0 && self.frame_type() != DATA;
        self.in_header_block || self.header_bytes > 0 || is_in_frame
    }

    fn frame_type(&self) -> u8 {
        self.header[3]
    }

    /// Advances by `bytes`, and returns whether there was a point at which nothing was incomplete.
    fn advance(&mut self, mut bytes: &[u8]) -> bool {
        let mut was_complete = false;
        while !bytes.is_empty() {
            let used = if self.payload_left > 0 {
                let used = self.payload_left.min(bytes.len());
                self.payload_left -= used;
                used
            } else {
                let missing = &mut self.header[self.header_bytes..];
                let used = missing.len().min(bytes.len());
                missing[..used].copy_from_slice(&bytes[..used]);
                self.header_bytes += used;
                if self.header_bytes == self.header.len() {
                    self.begin_payload();
                }
                used
            };
            bytes = &bytes[used..];
            was_complete |= !self.is_incomplete();
        }
        was_complete
    }

    fn begin_payload(&mut self) {
        let [high, middle, low, frame_type, flags, ..] = self.header;
        self.header_bytes = 0;
        self.payload_left = u32::from_be_bytes([0, high, middle, low]) as usize;
        if matches!(frame_type, HEADERS | CONTINUATION) {
            self.in_header_block = flags & END_HEADERS == 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(frame_type: u8, flags: u8, payload: &[u8]) -> Vec<u8> {
        [&[0, 0, payload.len() as u8, frame_type, flags, 0, 0, 0, 1], payload].concat()
    }

    #[test]
    fn a_header_block_is_incomplete_until_its_last_byte() {
        let head = [frame(HEADERS, 0, b"abc"), frame(CONTINUATION, END_HEADERS, b"d")].concat();
        let bytes = [PREFACE, &frame(4, 0, b""), &head].concat();
        for cut in 0..bytes.len() {
            let mut frames = Frames::default();
            frames.advance(&bytes[..cut]);
            let between = cut <= PREFACE.len() || cut == PREFACE.len() + 9;
            assert_eq!(frames.is_incomplete(), !between, "{cut}");
            assert!(frames.advance(&bytes[cut..]), "{cut}");
            assert!(!frames.is_incomplete(), "{cut}");
        }
    }

    #[test]
    fn a_continuation_does_not_complete_a_header_block() {
        let mut frames = Frames::default();
        frames.advance(&[PREFACE, &frame(HEADERS, 0, b"abc")].concat());
        assert!(!frames.advance(&frame(CONTINUATION, 0, b"d")));
        assert!(frames.advance(&frame(CONTINUATION, END_HEADERS, b"")));
    }

    #[test]
    fn an_incomplete_data_frame_does_not_count() {
        let mut frames = Frames::default();
        let data = frame(DATA, 0, b"abc");
        frames.advance(&[PREFACE, &data[..10]].concat());
        assert!(!frames.is_incomplete());
        assert!(frames.advance(&[&data[10..], &frame(HEADERS, END_HEADERS, b"abc")[..4]].concat()));
        assert!(frames.is_incomplete());
    }
}
