//! Finds the value of a JSON member in bytes that pass by in any chunks.

use std::sync::OnceLock;

use memchr::{memchr2, memmem::Finder};

/// Captures the value of one member name wherever it stands, in bounded memory.
///
/// The name is looked for with its quotes. Inside of a JSON string the quotes would be escaped, so
/// text that only speaks of the member is not taken for it.
#[derive(Debug)]
pub(super) struct MemberScanner {
    finder: &'static Finder<'static>,
    /// How many bytes of the name end the chunk before.
    begun: usize,
    capture: Option<Capture>,
    longest: usize,
}

/// A value that has begun.
#[derive(Debug, Default)]
struct Capture {
    /// What of it came in earlier chunks.
    before: Vec<u8>,
    colon: bool,
    depth: u32,
    in_string: bool,
    escaped: bool,
}

enum Step<'a> {
    /// The chunk ended first.
    More,
    Whole {
        value: &'a [u8],
        used: usize,
    },
    /// It is no string, object or array, or too long.
    NoMember {
        used: usize,
    },
}

impl MemberScanner {
    /// Looks for `finder`'s needle (a quoted name) and values of at most `longest` bytes.
    pub(super) fn new(finder: &'static Finder<'static>, longest: usize) -> Self {
        Self { finder, begun: 0, capture: None, longest }
    }

    /// Scans the next chunk, and hands each whole value to `found`.
    pub(super) fn scan(&mut self, mut chunk: &[u8], mut found: impl FnMut(&[u8])) {
        if self.begun > 0 {
            let Some(rest) = self.find_across(chunk) else { return };
            chunk = rest;
        }
        loop {
            if let Some(capture) = &mut self.capture {
                let used = match capture.take(chunk, self.longest) {
                    Step::More => return,
                    Step::Whole { value, used } => {
                        found(value);
                        used
                    }
                    Step::NoMember { used } => used,
                };
                self.capture = None;
                chunk = &chunk[used..];
            }
            let Some(at) = self.finder.find(chunk) else {
                self.begun = self.begun_at_the_end_of(chunk);
                return;
            };
            chunk = &chunk[at + self.finder.needle().len()..];
            self.capture = Some(Capture::default());
        }
    }

    /// Looks for a name that began in an earlier chunk; returns what of `chunk` is left to scan, or
    /// `None` if it goes on in the next.
    fn find_across<'a>(&mut self, chunk: &'a [u8]) -> Option<&'a [u8]> {
        let missing = &self.finder.needle()[self.begun..];
        if let Some(rest) = chunk.strip_prefix(missing) {
            self.begun = 0;
            self.capture = Some(Capture::default());
            return Some(rest);
        }
        if missing.starts_with(chunk) {
            self.begun += chunk.len();
            return None;
        }
        self.begun = 0;
        Some(chunk)
    }

    /// How many of the name's bytes end the chunk. A name has quotes at its ends only, so the last
    /// quote is the only place where it can begin.
    fn begun_at_the_end_of(&self, chunk: &[u8]) -> usize {
        let needle = self.finder.needle();
        let tail = &chunk[chunk.len().saturating_sub(needle.len() - 1)..];
        let quote = tail.iter().rposition(|&byte| byte == b'"');
        let begin = quote.map_or(&[][..], |at| &tail[at..]);
        if needle.starts_with(begin) { begin.len() } else { 0 }
    }
}

impl Capture {
    /// Takes bytes until the value is whole, and keeps them if the chunk ends first.
    fn take<'a>(&'a mut self, chunk: &'a [u8], longest: usize) -> Step<'a> {
        let (start, inside) = match self.open(chunk) {
            Ok(Some(at)) => at,
            Ok(None) => return Step::More,
            Err(used) => return Step::NoMember { used },
        };
        let limit = chunk.len().min(start + longest - self.before.len());
        let Some(length) = self.close(&chunk[inside..limit]) else {
            if limit < chunk.len() {
                return Step::NoMember { used: limit };
            }
            self.before.extend_from_slice(&chunk[start..]);
            return Step::More;
        };
        let used = inside + length;
        let here = &chunk[start..used];
        if self.before.is_empty() {
            return Step::Whole { value: here, used };
        }
        self.before.extend_from_slice(here);
        Step::Whole { value: &self.before, used }
    }

    /// Where in the chunk the value is, and where what comes after its first byte. `None` if it has
    /// not begun yet; an error where there is something else.
    fn open(&mut self, chunk: &[u8]) -> Result<Option<(usize, usize)>, usize> {
        if self.depth > 0 || self.in_string {
            return Ok(Some((0, 0)));
        }
        for (at, byte) in chunk.iter().enumerate() {
            match byte {
                b':' if !self.colon => self.colon = true,
                b'{' | b'[' if self.colon => self.depth = 1,
                b'"' if self.colon => self.in_string = true,
                _ if byte.is_ascii_whitespace() => {}
                _ => return Err(at),
            }
            if self.depth > 0 || self.in_string {
                return Ok(Some((at, at + 1)));
            }
        }
        Ok(None)
    }

    /// How many of these bytes still belong to the value, if it ends within them.
    fn close(&mut self, bytes: &[u8]) -> Option<usize> {
        let mut at = 0;
        while at < bytes.len() {
            if self.in_string && !self.escaped {
                at += memchr2(b'"', b'\\', &bytes[at..])?;
            }
            match bytes[at] {
                _ if self.escaped => self.escaped = false,
                b'\\' if self.in_string => self.escaped = true,
                b'"' => self.in_string = !self.in_string,
                b'{' | b'[' => self.depth += 1,
                b'}' | b']' => self.depth -= 1,
                _ => {}
            }
            at += 1;
            if self.depth == 0 && !self.in_string {
                return Some(at);
            }
        }
        None
    }
}

/// The finder of `"usage"`, built once.
pub(super) fn usage() -> &'static Finder<'static> {
    static FINDER: OnceLock<Finder<'static>> = OnceLock::new();
    FINDER.get_or_init(|| Finder::new(b"\"usage\""))
}

/// The finder of `"model"`, built once.
pub(super) fn model() -> &'static Finder<'static> {
    static FINDER: OnceLock<Finder<'static>> = OnceLock::new();
    FINDER.get_or_init(|| Finder::new(b"\"model\""))
}
