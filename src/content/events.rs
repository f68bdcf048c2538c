//! Reads server-sent events that arrive in any chunks (WHATWG HTML, section 9.2.6).

use std::mem;

use memchr::memchr2;

/// What some bytes of an event stream are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum EventPart {
    /// A byte order mark or a comment. They belong to no event, wherever they stand.
    Comment,
    /// A part of a field of an event, other than the value of `data`.
    Field,
    /// A part of the value of a `data` field, or the end of its line: the carriage return, or else the
    /// line feed. Several values are joined by these.
    Data,
    /// The empty line that ends an event.
    End,
    /// The line feed of an empty line whose carriage return was the part before.
    EndLineFeed,
}

/// Splits an event stream into its parts.
#[derive(Debug, Default)]
pub(crate) struct EventReader {
    /// Number of bytes of a byte order mark that have come, or all if none can come any more.
    mark: usize,
    line: Line,
    /// What a line feed would be, if the last byte was a carriage return.
    line_feed: Option<EventPart>,
}

/// What is known of the current line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Line {
    /// This number of its bytes have come, and are those that a `data` field begins with.
    Name(usize),
    Data,
    Comment,
    Other,
}

const DATA: &[u8] = b"data:";
pub(crate) const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

impl Default for Line {
    fn default() -> Self {
        Self::Name(0)
    }
}

impl EventReader {
    /// Creates a reader of a stream whose beginning was read before.
    pub(crate) fn within_stream() -> Self {
        Self { mark: BYTE_ORDER_MARK.len(), ..Self::default() }
    }

    /// Returns whether the next byte begins a line.
    pub(crate) fn is_at_line_start(&self) -> bool {
        self.line == Line::Name(0) && self.line_feed.is_none()
    }

    /// Reads the first part of a chunk. Returns what it is and its length; `None` if the chunk is empty.
    pub(crate) fn next(&mut self, chunk: &[u8]) -> Option<(EventPart, usize)> {
        let first = *chunk.first()?;
        if self.mark < BYTE_ORDER_MARK.len() {
            let length = common_prefix(chunk, &BYTE_ORDER_MARK[self.mark..]);
            let is_over = length < chunk.len();
            self.mark = if is_over { BYTE_ORDER_MARK.len() } else { self.mark + length };
            if length > 0 {
                return Some((EventPart::Comment, length));
            }
        }
        if let Some(part) = self.line_feed.take()
            && first == b'\n'
        {
            return Some((part, 1));
        }
        if let b'\n' | b'\r' = first {
            return Some((self.end_line(first), 1));
        }
        if let Line::Name(matched) = self.line {
            let expected = &DATA[matched..];
            let length = common_prefix(chunk, expected);
            if length == expected.len() {
                self.line = Line::Data;
                return Some((EventPart::Field, length));
            }
            if length == chunk.len() {
                self.line = Line::Name(matched + length);
                return Some((EventPart::Field, length));
            }
            self.line = match first {
                b':' if matched == 0 => Line::Comment,
                _ => Line::Other,
            };
        }
        let length = memchr2(b'\n', b'\r', chunk).unwrap_or(chunk.len());
        let part = match self.line {
            Line::Comment => EventPart::Comment,
            Line::Data => EventPart::Data,
            Line::Name(_) | Line::Other => EventPart::Field,
        };
        Some((part, length))
    }

    fn end_line(&mut self, end: u8) -> EventPart {
        let (part, line_feed) = match mem::take(&mut self.line) {
            Line::Name(0) => (EventPart::End, EventPart::EndLineFeed),
            Line::Comment => (EventPart::Comment, EventPart::Comment),
            Line::Data => (EventPart::Data, EventPart::Field),
            Line::Name(_) | Line::Other => (EventPart::Field, EventPart::Field),
        };
        self.line_feed = (end == b'\r').then_some(line_feed);
        part
    }
}

fn common_prefix(bytes: &[u8], expected: &[u8]) -> usize {
    bytes.iter().zip(expected).take_while(|(byte, expected)| byte == expected).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each part of a stream that arrives in these chunks, those of the same kind joined.
    fn parts<'a>(chunks: impl IntoIterator<Item = &'a [u8]>) -> Vec<(EventPart, String)> {
        let (mut reader, mut parts) = (EventReader::default(), Vec::<(EventPart, Vec<u8>)>::new());
        for mut chunk in chunks {
            while let Some((part, length)) = reader.next(chunk) {
                let (bytes, rest) = chunk.split_at(length);
                match parts.last_mut() {
                    Some((last, joined)) if *last == part => joined.extend_from_slice(bytes),
                    _ => parts.push((part, bytes.to_vec())),
                }
                chunk = rest;
            }
        }
        let text = |(part, bytes)| (part, String::from_utf8(bytes).unwrap());
        parts.into_iter().map(text).collect()
    }

    /// The data of each event that has ended.
    fn events<'a>(chunks: impl IntoIterator<Item = &'a [u8]>) -> Vec<String> {
        let (mut events, mut event) = (Vec::new(), String::new());
        for (part, text) in parts(chunks) {
            match part {
                EventPart::Data => event.push_str(&text),
                EventPart::End => text.chars().for_each(|_| events.push(mem::take(&mut event))),
                _ => {}
            }
        }
        events
    }

    const STREAM: &str = "data:one\n\nevent: data: x\nid: 1\ndata: a\n: data: x\ndata:  b\ndatas: x\n\
        da\ndata:\ndata: data: c\n\n: x\n\n data: x\n\ndata: cut";

    /// A stream in chunks: byte by byte, and at every split into three.
    fn at_every_split(stream: &str, mut check: impl FnMut(Vec<&[u8]>)) {
        let bytes = stream.as_bytes();
        check(bytes.chunks(1).collect());
        for first in 0..=bytes.len() {
            for second in first..=bytes.len() {
                check(vec![&bytes[..first], &bytes[first..second], &bytes[second..]]);
            }
        }
    }

    #[test]
    fn data_is_found_at_every_split_and_with_every_line_end() {
        for (end, mark) in [("\n", ""), ("\r", ""), ("\r\n", "\u{feff}")] {
            let stream = [mark, &STREAM.replace('\n', end)].concat();
            let end = &end[..1];
            let data = " a\n  b\n\n data: c\n".replace('\n', end);
            let expected = [&*format!("one{end}"), &*data, "", ""];
            at_every_split(&stream, |chunks| {
                assert_eq!(events(chunks.iter().copied()), expected, "{chunks:?}");
            });
        }
    }

    #[test]
    fn parts_are_all_bytes_in_order() {
        use EventPart::{Comment, Data, End, EndLineFeed, Field};
        let stream = "\u{feff}: c\r\ndata: x\r\nid: 1\r\n: d\r\n\r\ndata\n\n\u{feff}data: y\n\r";
        let expected = [
            (Comment, "\u{feff}: c\r\n"),
            (Field, "data:"),
            (Data, " x\r"),
            (Field, "\nid: 1\r\n"),
            (Comment, ": d\r\n"),
            (End, "\r"),
            (EndLineFeed, "\n"),
            (Field, "data\n"),
            (End, "\n"),
            (Field, "\u{feff}data: y\n"),
            (End, "\r"),
        ];
        at_every_split(stream, |chunks| {
            let parts = parts(chunks.iter().copied());
            let parts: Vec<_> = parts.iter().map(|(part, text)| (*part, &**text)).collect();
            assert_eq!(parts, expected, "{chunks:?}");
        });
    }
}
