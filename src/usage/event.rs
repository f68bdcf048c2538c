//! Finds the data of server-sent events that pass by in any chunks (WHATWG HTML, 9.2.6).

use std::mem;

use memchr::memchr2;

/// What is found of an event.
#[derive(Debug, PartialEq)]
pub(super) enum Piece<'a> {
    /// Bytes of its data, in their order. Several `data` lines are joined by line feeds.
    Data(&'a [u8]),
    /// The event has ended.
    End,
}

/// Reads the `data` lines; comments and other fields are passed over.
#[derive(Debug, Default)]
pub(super) struct EventScanner {
    line: Line,
    /// Whether the last line ended with a carriage return, to which a line feed would belong.
    after_cr: bool,
}

/// What is known of the line that is being read.
#[derive(Debug)]
enum Line {
    /// So many bytes of it are those of a `data` line.
    Begun(usize),
    Data,
    Other,
}

const DATA: &[u8] = b"data:";

impl Default for Line {
    fn default() -> Self {
        Self::Begun(0)
    }
}

impl EventScanner {
    /// Scans the next chunk, and hands on what of events is in it.
    pub(super) fn scan(&mut self, mut chunk: &[u8], mut found: impl FnMut(Piece<'_>)) {
        while let Some(first) = chunk.first() {
            if mem::take(&mut self.after_cr) && *first == b'\n' {
                chunk = &chunk[1..];
                continue;
            }
            let end = memchr2(b'\n', b'\r', chunk).unwrap_or(chunk.len());
            let (line, rest) = chunk.split_at(end);
            let data = self.data_of(line);
            if !data.is_empty() {
                found(Piece::Data(data));
            }
            let Some((end, rest)) = rest.split_first() else { return };
            self.after_cr = *end == b'\r';
            chunk = rest;
            match mem::take(&mut self.line) {
                Line::Begun(0) => found(Piece::End),
                Line::Data => found(Piece::Data(b"\n")),
                _ => {}
            }
        }
    }

    /// Whether the next byte begins a line.
    pub(super) fn is_between_lines(&self) -> bool {
        matches!(self.line, Line::Begun(0)) && !self.after_cr
    }

    /// What of these bytes of a line, without its end, is data.
    fn data_of<'a>(&mut self, bytes: &'a [u8]) -> &'a [u8] {
        if let Line::Begun(same) = self.line
            && !bytes.is_empty()
        {
            let wanted = &DATA[same..];
            let common = bytes.len().min(wanted.len());
            if bytes[..common] != wanted[..common] {
                self.line = Line::Other;
            } else if common == wanted.len() {
                self.line = Line::Data;
                return &bytes[common..];
            } else {
                self.line = Line::Begun(same + common);
            }
        }
        if let Line::Data = self.line { bytes } else { &[] }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The data of each event that has ended.
    fn events<'a>(chunks: impl IntoIterator<Item = &'a [u8]>) -> Vec<String> {
        let (mut scanner, mut all, mut event) = (EventScanner::default(), Vec::new(), Vec::new());
        for chunk in chunks {
            scanner.scan(chunk, |piece| match piece {
                Piece::Data(data) => event.extend_from_slice(data),
                Piece::End => all.push(String::from_utf8(mem::take(&mut event)).unwrap()),
            });
        }
        all
    }

    #[test]
    fn only_data_lines_are_read_at_every_split_and_with_every_line_end() {
        let stream = "data:one\n\nevent: data: x\nid: 1\ndata: a\n: data: x\ndata:  b\ndatas: x\n\
            da\ndata:\ndata: data: c\n\n: x\n\n data: x\n\ndata: cut";
        for end in ["\n", "\r", "\r\n"] {
            let stream = stream.replace('\n', end);
            let bytes = stream.as_bytes();
            let expected = ["one\n", " a\n  b\n\n data: c\n", "", ""];
            assert_eq!(events(bytes.chunks(1)), expected, "{end:?}");
            for first in 0..=bytes.len() {
                for second in first..=bytes.len() {
                    let chunks = [&bytes[..first], &bytes[first..second], &bytes[second..]];
                    assert_eq!(events(chunks), expected, "{end:?} at {first} and {second}");
                }
            }
        }
    }
}
