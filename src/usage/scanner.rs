//! Reads the usage that a response reports, as its body passes by.

use std::{
    io::{self, Write},
    mem,
};

use http::{Method, response::Parts};

use super::{ReportedUsage, UsageFormat, UsageParser, inflate::Inflate};
use crate::content::Coding;

/// Maximum length of a coded response that is decoded. A longer one is not text that a model writes, and
/// would let an upstream spend our time.
const MAX_DECODED_LEN: usize = 16 << 20;

/// Passes a response to the parser of its format, plain or decoded.
pub(crate) enum ResponseScanner {
    /// A response that reports nothing, or not in a way that can be read.
    Unread,
    Plain(Box<dyn UsageParser>),
    Coded(Box<Inflate<Decoded>>),
    /// A coded response that cannot be decoded any further.
    Broken(Box<dyn UsageParser>),
}

/// Takes what was decoded.
#[derive(Default)]
pub(crate) struct Decoded {
    parser: Option<Box<dyn UsageParser>>,
    length: usize,
}

impl ResponseScanner {
    /// Creates a scanner for a response with this head to a request with this method.
    pub(crate) fn new(format: Option<&dyn UsageFormat>, method: &Method, head: &Parts) -> Self {
        let Some(parser) = format.and_then(|format| format.parser(method, head)) else {
            return Self::Unread;
        };
        let decoded = |parser| Decoded { parser: Some(parser), length: 0 };
        match Coding::of(&head.headers) {
            Coding::Identity => Self::Plain(parser),
            Coding::Gzip => Self::Coded(Box::new(Inflate::gzip(decoded(parser)))),
            Coding::Deflate => Self::Coded(Box::new(Inflate::deflate(decoded(parser)))),
            Coding::Other => Self::Unread,
        }
    }

    /// Reads the next chunk.
    pub(crate) fn scan(&mut self, chunk: &[u8]) {
        match self {
            Self::Plain(parser) => parser.read(chunk),
            Self::Coded(coded) => {
                if coded.decode(chunk).is_err() {
                    *self = coded.finish().0.parser.map_or(Self::Unread, Self::Broken);
                }
            }
            Self::Unread | Self::Broken(_) => {}
        }
    }

    /// Returns whether the response has said that it is complete, whatever its body still does.
    pub(crate) fn is_over(&self) -> bool {
        match self {
            Self::Plain(parser) => parser.is_over(),
            Self::Coded(coded) => {
                coded.get_ref().parser.as_ref().is_some_and(|parser| parser.is_over())
            }
            Self::Unread | Self::Broken(_) => false,
        }
    }

    /// Returns what the response has reported. `is_whole` says that it did not break off.
    pub(crate) fn finish(&mut self, is_whole: bool) -> ReportedUsage {
        match mem::replace(self, Self::Unread) {
            Self::Unread => ReportedUsage::default(),
            Self::Plain(parser) => parser.finish(is_whole),
            Self::Coded(mut coded) => {
                let (decoded, is_all) = coded.finish();
                let finish = |parser: Box<dyn UsageParser>| parser.finish(is_whole && is_all);
                decoded.parser.map(finish).unwrap_or_default()
            }
            Self::Broken(parser) => ReportedUsage { tokens: None, ..parser.finish(false) },
        }
    }
}

impl Write for Decoded {
    fn write(&mut self, chunk: &[u8]) -> io::Result<usize> {
        self.length += chunk.len();
        if self.length > MAX_DECODED_LEN {
            return Err(io::Error::other("coded response too long"));
        }
        if let Some(parser) = &mut self.parser {
            parser.read(chunk);
        }
        Ok(chunk.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
