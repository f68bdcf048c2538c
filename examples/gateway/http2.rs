//! A time limit that hyper has for HTTP/1 only: that of a request's head.

use std::task::{Context, Poll};

use tokio::time::Instant;

use crate::{min_rate::DeadlineTimer, server::HEAD_TIMEOUT};

/// How an HTTP/2 connection begins (RFC 9113, section 3.4).
pub(crate) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Follows what a client sends, and loses min_rate with a head, or any other frame but a piece of a
/// body, that is begun and not ended. Bodies have a limit of their own.
#[derive(Default)]
pub(crate) struct FrameTimeout {
    frames: Frames,
    begun: Option<Instant>,
    timer: DeadlineTimer,
}

impl FrameTimeout {
    /// These bytes have come.
    pub(crate) fn read(&mut self, bytes: &[u8]) {
        if self.frames.advance(bytes) || self.begun.is_none() {
            self.begun = self.frames.are_unfinished().then(Instant::now);
        }
    }

    /// Ready when the client has taken too long. To be asked only while it is waited for.
    pub(crate) fn poll_expired(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        match self.begun {
            Some(begun) => self.timer.poll(begun + HEAD_TIMEOUT, cx),
            None => Poll::Pending,
        }
    }
}

/// Where in the client's frames the connection is (RFC 9113, section 4.1).
struct Frames {
    head: [u8; 9],
    /// How much of it has come.
    have: usize,
    /// How much of the payload has not.
    left: usize,
    /// A header block goes on in the next frame.
    in_block: bool,
}

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const CONTINUATION: u8 = 9;
const END_HEADERS: u8 = 4;

impl Default for Frames {
    fn default() -> Self {
        Self { head: [0; 9], have: 0, left: PREFACE.len(), in_block: false }
    }
}

impl Frames {
    fn are_unfinished(&self) -> bool {
        self.in_block || self.have > 0 || (self.left > 0 && self.kind() != DATA)
    }

    fn kind(&self) -> u8 {
        self.head[3]
    }

    /// Follows `bytes`; whether there was a place among them where nothing was unfinished.
    fn advance(&mut self, mut bytes: &[u8]) -> bool {
        let mut was_finished = false;
        while !bytes.is_empty() {
            let used = if self.left > 0 {
                let here = self.left.min(bytes.len());
                self.left -= here;
                here
            } else {
                let here = (self.head.len() - self.have).min(bytes.len());
                self.head[self.have..self.have + here].copy_from_slice(&bytes[..here]);
                self.have += here;
                if self.have == self.head.len() {
                    self.begin();
                }
                here
            };
            bytes = &bytes[used..];
            was_finished |= !self.are_unfinished();
        }
        was_finished
    }

    /// The head of a frame is here.
    fn begin(&mut self) {
        let [high, middle, low, kind, flags, ..] = self.head;
        self.have = 0;
        self.left = u32::from_be_bytes([0, high, middle, low]) as usize;
        if matches!(kind, HEADERS | CONTINUATION) {
            self.in_block = flags & END_HEADERS == 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(kind: u8, flags: u8, payload: &[u8]) -> Vec<u8> {
        [&[0, 0, payload.len() as u8, kind, flags, 0, 0, 0, 1], payload].concat()
    }

    #[test]
    fn heads_are_unfinished_until_their_last_byte() {
        let head = [frame(HEADERS, 0, b"abc"), frame(CONTINUATION, END_HEADERS, b"d")].concat();
        let bytes = [PREFACE, &frame(4, 0, b""), &head].concat();
        for cut in 0..bytes.len() {
            let mut frames = Frames::default();
            frames.advance(&bytes[..cut]);
            let between = cut <= PREFACE.len() || cut == PREFACE.len() + 9;
            assert_eq!(frames.are_unfinished(), !between, "{cut}");
            assert!(frames.advance(&bytes[cut..]), "{cut}");
            assert!(!frames.are_unfinished(), "{cut}");
        }
    }

    #[test]
    fn more_of_the_same_head_is_no_end() {
        let mut frames = Frames::default();
        frames.advance(&[PREFACE, &frame(HEADERS, 0, b"abc")].concat());
        assert!(!frames.advance(&frame(CONTINUATION, 0, b"d")));
        assert!(frames.advance(&frame(CONTINUATION, END_HEADERS, b"")));
    }

    #[test]
    fn bodies_are_left_alone() {
        let mut frames = Frames::default();
        let data = frame(DATA, 0, b"abc");
        frames.advance(&[PREFACE, &data[..10]].concat());
        assert!(!frames.are_unfinished());
        assert!(frames.advance(&[&data[10..], &frame(HEADERS, END_HEADERS, b"abc")[..4]].concat()));
        assert!(frames.are_unfinished());
    }
}
