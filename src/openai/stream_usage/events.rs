use std::{collections::VecDeque, mem, ops::Range};

use bytes::{Bytes, BytesMut};
use memchr::memchr2;
use serde::{Deserialize, de::IgnoredAny};
use serde_json::value::RawValue;

use super::glance::Glance;

/// The longest usage event: no more than that is held.
const MOST: usize = 16 * 1024;

/// Takes the usage events out of server-sent events that come in any pieces.
#[derive(Default)]
pub(super) struct EventFilter {
    /// How many bytes of a byte order mark have come, or that none is to come any more.
    mark: usize,
    event: Event,
    line: Line,
    cr: Cr,
    /// What came of the event in earlier pieces, while it may be a usage event.
    held: BytesMut,
}

/// What is known of the event that is being read.
#[derive(Default)]
enum Event {
    /// It has no line yet but comments.
    #[default]
    Unbegun,
    MayBeUsage(Glance),
    Passes,
}

/// What is known of the line that is being read.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Line {
    /// So many bytes of it are those of a data line.
    Begun(usize),
    Data,
    Other,
}

/// Whether the last line ended with a carriage return, to which a line feed would belong.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum Cr {
    #[default]
    No,
    Kept,
    /// It was the end of an event that was taken out.
    TakenOut,
}

const DATA: &[u8] = b"data:";
/// What a stream may begin with; it is no part of its first event.
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

impl Default for Line {
    fn default() -> Self {
        Self::Begun(0)
    }
}

impl EventFilter {
    /// Reads the next piece, and adds what of all that was read goes on to `out`.
    pub(super) fn push(&mut self, mut piece: Bytes, out: &mut VecDeque<Bytes>) {
        // Of this piece, `from` is where the bytes begin that are yet to go on, and `event` where the
        // event began.
        let (mut at, mut from, mut event) = (self.skip_mark(&piece), 0, 0);
        while at < piece.len() {
            let cr = mem::take(&mut self.cr);
            if cr != Cr::No && piece[at] == b'\n' {
                at += 1;
                if cr == Cr::TakenOut {
                    from = at;
                }
                continue;
            }
            if self.line == Line::Begun(0)
                && matches!(self.event, Event::Unbegun)
                && !matches!(piece[at], b':' | b'\n' | b'\r')
            {
                event = at;
                self.event = Event::MayBeUsage(Glance::default());
            }
            let end = memchr2(b'\n', b'\r', &piece[at..]).map(|length| at + length);
            if !self.read_line(&piece[at..end.unwrap_or(piece.len())]) {
                self.event = Event::Passes;
                self.release(out);
            }
            let Some(end) = end else { break };
            at = end + 1;
            if piece[end] == b'\r' {
                self.cr = Cr::Kept;
            }
            if mem::take(&mut self.line) != Line::Begun(0) {
                continue;
            }
            if let Event::MayBeUsage(_) = mem::take(&mut self.event) {
                if let Some(comments) = self.judge(&piece[event..at]) {
                    send(piece.slice(from..event), out);
                    send(comments, out);
                    from = at;
                    if self.cr == Cr::Kept {
                        self.cr = Cr::TakenOut;
                    }
                } else {
                    self.release(out);
                }
            }
        }
        if let Event::MayBeUsage(_) = self.event {
            if self.held.len() + piece.len() - event <= MOST {
                self.held.extend_from_slice(&piece.split_off(event));
            } else {
                self.event = Event::Passes;
                self.release(out);
            }
        }
        send(piece.split_off(from), out);
    }

    /// There is no next piece: what is held goes on.
    pub(super) fn finish(&mut self, out: &mut VecDeque<Bytes>) {
        self.release(out);
    }

    /// How many bytes of a byte order mark begin this piece, if it is the first.
    fn skip_mark(&mut self, piece: &[u8]) -> usize {
        let wanted = &BYTE_ORDER_MARK[self.mark..];
        let common = piece.iter().zip(wanted).take_while(|(byte, mark)| byte == mark).count();
        self.mark = if common < piece.len() { BYTE_ORDER_MARK.len() } else { self.mark + common };
        common
    }

    /// How many bytes are held.
    pub(super) fn held(&self) -> usize {
        self.held.len()
    }

    fn release(&mut self, out: &mut VecDeque<Bytes>) {
        send(mem::take(&mut self.held).freeze(), out);
    }

    /// Reads bytes of a line, without its end. Whether the event may still be a usage event.
    fn read_line(&mut self, mut bytes: &[u8]) -> bool {
        if let Line::Begun(same) = self.line
            && !bytes.is_empty()
        {
            let wanted = &DATA[same..];
            let common = bytes.iter().zip(wanted).take_while(|(byte, same)| byte == same).count();
            bytes = &bytes[common..];
            self.line = match wanted.len() - common {
                0 => Line::Data,
                _ if bytes.is_empty() => Line::Begun(same + common),
                _ => Line::Other,
            };
        }
        match &mut self.event {
            Event::MayBeUsage(glance) if self.line == Line::Data => glance.may_be_extra(bytes),
            _ => true,
        }
    }

    /// Judges the event that ends with these bytes. If it is a usage event, what of it goes on
    /// nevertheless.
    fn judge(&mut self, end: &[u8]) -> Option<Bytes> {
        if self.held.len() + end.len() > MOST {
            return None;
        }
        let mut whole = mem::take(&mut self.held);
        let begun = whole.len();
        whole.extend_from_slice(end);
        if is_usage(&whole) {
            let comments = lines(&whole).filter(|line| whole[line.clone()].starts_with(b":"));
            return Some(comments.flat_map(|line| whole[line].to_vec()).collect());
        }
        whole.truncate(begun);
        self.held = whole;
        None
    }
}

fn send(bytes: Bytes, out: &mut VecDeque<Bytes>) {
    if !bytes.is_empty() {
        out.push_back(bytes);
    }
}

/// The lines of these bytes, each with its end.
fn lines(bytes: &[u8]) -> impl Iterator<Item = Range<usize>> {
    let mut at = 0;
    std::iter::from_fn(move || {
        let begin = at;
        at += memchr2(b'\n', b'\r', &bytes[at..]).map_or(bytes.len() - at, |length| length + 1);
        if bytes[..at].ends_with(b"\r") && bytes[at..].starts_with(b"\n") {
            at += 1;
        }
        (begin < at).then_some(begin..at)
    })
}

#[derive(Deserialize)]
struct Chunk<'a> {
    choices: Vec<IgnoredAny>,
    #[serde(borrow)]
    usage: &'a RawValue,
}

/// Whether this event tells the usage and nothing else.
fn is_usage(event: &[u8]) -> bool {
    let mut data = Vec::with_capacity(event.len());
    for line in lines(event) {
        if let Some(value) = event[line].strip_prefix(DATA) {
            data.extend_from_slice(value);
        }
    }
    let chunk = serde_json::from_slice::<Chunk<'_>>(&data);
    chunk.is_ok_and(|chunk| chunk.choices.is_empty() && chunk.usage.get().starts_with('{'))
}
