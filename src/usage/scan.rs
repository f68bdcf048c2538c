//! Finds the value of a JSON member in bytes that pass by in any chunks.

use std::sync::OnceLock;

use memchr::memmem::Finder;

/// Captures the value of one member name wherever it stands, in bounded memory.
///
/// The name is looked for with its quotes. Inside of a JSON string the quotes would be escaped, so
/// text that only speaks of the member is not taken for it.
#[derive(Debug)]
pub(super) struct MemberScanner {
    finder: &'static Finder<'static>,
    /// The last bytes of the chunk before, which may begin the name.
    carry: Vec<u8>,
    capture: Option<Capture>,
    longest: usize,
}

/// A value that has begun.
#[derive(Debug, Default)]
struct Capture {
    /// What of it came in earlier chunks.
    before: Vec<u8>,
    length: usize,
    colon: bool,
    depth: u32,
    in_string: bool,
    escaped: bool,
}

enum Step {
    More,
    Whole,
    NoMember,
}

impl MemberScanner {
    /// Looks for `finder`'s needle (a quoted name) and values of at most `longest` bytes.
    pub(super) fn new(finder: &'static Finder<'static>, longest: usize) -> Self {
        Self { finder, carry: Vec::new(), capture: None, longest }
    }

    /// Scans the next chunk, and hands each whole value to `found`.
    pub(super) fn scan(&mut self, mut chunk: &[u8], mut found: impl FnMut(&[u8])) {
        if self.capture.is_none() && !self.carry.is_empty() {
            chunk = self.find_across(chunk);
        }
        loop {
            if let Some(capture) = &mut self.capture {
                let Some((step, used)) = capture.take(chunk, self.longest) else {
                    return;
                };
                if let Step::Whole = step {
                    found(capture.value(&chunk[..used]));
                }
                self.capture = None;
                chunk = &chunk[used..];
            }
            let Some(at) = self.finder.find(chunk) else {
                self.keep_tail(chunk);
                return;
            };
            chunk = &chunk[at + self.finder.needle().len()..];
            self.capture = Some(Capture::default());
        }
    }

    /// Looks for a name that began in an earlier chunk; returns what of `chunk` is left to scan.
    fn find_across<'a>(&mut self, chunk: &'a [u8]) -> &'a [u8] {
        let needle = self.finder.needle().len();
        let before = self.carry.len();
        let joined = chunk.len().min(needle - 1);
        self.carry.extend_from_slice(&chunk[..joined]);
        match self.finder.find(&self.carry) {
            Some(at) => {
                self.carry.clear();
                self.capture = Some(Capture::default());
                &chunk[at + needle - before..]
            }
            None if joined == chunk.len() => {
                let excess = self.carry.len().saturating_sub(needle - 1);
                self.carry.drain(..excess);
                &[]
            }
            None => {
                self.carry.clear();
                chunk
            }
        }
    }

    fn keep_tail(&mut self, chunk: &[u8]) {
        if !chunk.is_empty() {
            let tail = chunk.len().min(self.finder.needle().len() - 1);
            self.carry.clear();
            self.carry.extend_from_slice(&chunk[chunk.len() - tail..]);
        }
    }
}

impl Capture {
    /// Takes bytes until the value is whole: how it ended and how many bytes were used, or `None`
    /// when the chunk ended first.
    fn take(&mut self, chunk: &[u8], longest: usize) -> Option<(Step, usize)> {
        let begun = self.length;
        for (at, &byte) in chunk.iter().enumerate() {
            match self.step(byte) {
                Step::More if self.length <= longest => {}
                Step::More | Step::NoMember => return Some((Step::NoMember, at)),
                Step::Whole => return Some((Step::Whole, at + 1)),
            }
        }
        self.before.extend_from_slice(&chunk[chunk.len() - (self.length - begun)..]);
        None
    }

    /// The whole value, whose last byte is that of `chunk`.
    fn value<'a>(&'a mut self, chunk: &'a [u8]) -> &'a [u8] {
        let here = &chunk[chunk.len() - (self.length - self.before.len())..];
        if self.before.is_empty() {
            return here;
        }
        self.before.extend_from_slice(here);
        &self.before
    }

    fn step(&mut self, byte: u8) -> Step {
        if self.length == 0 {
            return self.begin(byte);
        }
        self.length += 1;
        match byte {
            _ if self.escaped => self.escaped = false,
            b'\\' if self.in_string => self.escaped = true,
            b'"' => self.in_string = !self.in_string,
            b'{' | b'[' if !self.in_string => self.depth += 1,
            b'}' | b']' if !self.in_string => self.depth -= 1,
            _ => {}
        }
        if self.depth == 0 && !self.in_string { Step::Whole } else { Step::More }
    }

    /// The bytes before the value, and its first.
    fn begin(&mut self, byte: u8) -> Step {
        match byte {
            b':' if !self.colon => self.colon = true,
            b'{' | b'[' if self.colon => (self.length, self.depth) = (1, 1),
            b'"' if self.colon => (self.length, self.in_string) = (1, true),
            _ if byte.is_ascii_whitespace() => {}
            _ => return Step::NoMember,
        }
        Step::More
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
