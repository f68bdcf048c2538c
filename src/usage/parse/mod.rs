//! Reads the model and the tokens that a response reports, as its body passes by.

mod figures;
mod inflate;
mod openai;
#[cfg(test)]
mod tests;

use std::{
    io::{self, Write},
    mem,
    ops::ControlFlow,
};

use http::{Method, response::Parts};

use self::{inflate::Inflate, openai::OpenAiUsage};
use crate::content::{
    Coding,
    events::{BYTE_ORDER_MARK, EventPart, EventReader},
    media_type,
    members::{FoundMember, MemberScanner, Selection},
};
use crate::store::Tokens;

/// Maximum length of a coded response that is decoded. A longer one is not text that a model writes, and
/// would let an upstream spend our time.
const MAX_DECODED_LEN: usize = 16 << 20;

/// The usage that a response has reported so far, as one family of APIs writes it.
///
/// A format selects members of the response's JSON and makes figures of them. Content codings,
/// server-sent events and chunk borders are the scanner's.
trait UsageFormat: Default {
    /// The members of a JSON response, or of the data of an event, that are read.
    const SELECTION: &'static Selection;

    /// Reads one of them.
    fn read_member(&mut self, found: &FoundMember<'_>);

    /// Reads a part of an event's data, which need not be JSON.
    fn read_data(&mut self, data: &[u8]);

    /// Ends the event whose data this scanner has read.
    fn end_event(&mut self, json: &MemberScanner);

    /// Returns whether these bytes, which begin with a line of an event, are whole events that report
    /// nothing new. Most are, and need not be read.
    fn can_skip(&self, events: &[u8]) -> bool;

    /// Returns whether the response has said that it is complete, whatever its body still does.
    fn is_over(&self) -> bool;

    /// Returns the model, and the tokens if all is known of them. `is_complete` says that no figures are
    /// missing because the response broke off.
    fn finish(self, is_complete: bool) -> (Option<String>, Option<Tokens>);
}

/// Reads the usage of a response in JSON or in server-sent events.
#[derive(Debug)]
pub(super) struct ResponseScanner(Source<OpenAiUsage>);

#[derive(Debug)]
enum Source<F: UsageFormat> {
    /// A response that reports nothing, or not in a way that can be read.
    Unread,
    Plain(Reader<F>),
    Coded(Box<Inflate<Reader<F>>>),
    /// A coded response that cannot be decoded any further.
    Broken(F),
}

/// Reads text, plain or decoded.
#[derive(Debug)]
struct Reader<F> {
    form: Form,
    events: EventReader,
    json: MemberScanner,
    usage: F,
    decoded: usize,
}

#[derive(Clone, Copy, Debug)]
enum Form {
    /// Nothing has come but this number of bytes of a byte order mark, and white space.
    Unknown(usize),
    Json,
    Events,
}

impl ResponseScanner {
    /// Creates a scanner for a response to a request with this method. It reads nothing of one that
    /// cannot be read, or that only repeats what was billed with another request.
    pub(super) fn new(method: &Method, head: &Parts) -> Self {
        let is_read = method == Method::POST && head.status.is_success() && is_text(head);
        Self(match Coding::of(&head.headers) {
            _ if !is_read => Source::Unread,
            Coding::Identity => Source::Plain(Reader::default()),
            Coding::Gzip => Source::Coded(Box::new(Inflate::gzip(Reader::default()))),
            Coding::Deflate => Source::Coded(Box::new(Inflate::deflate(Reader::default()))),
            Coding::Other => Source::Unread,
        })
    }

    /// Reads the next chunk.
    pub(super) fn scan(&mut self, chunk: &[u8]) {
        match &mut self.0 {
            Source::Plain(reader) => reader.scan(chunk),
            Source::Coded(coded) => {
                if coded.decode(chunk).is_err() {
                    let (reader, _) = coded.finish();
                    self.0 = Source::Broken(reader.usage);
                }
            }
            Source::Unread | Source::Broken(_) => {}
        }
    }

    /// Returns whether the response has said that it is complete, whatever its body still does.
    pub(super) fn is_over(&self) -> bool {
        match &self.0 {
            Source::Plain(reader) => reader.usage.is_over(),
            Source::Coded(coded) => coded.get_ref().usage.is_over(),
            Source::Unread | Source::Broken(_) => false,
        }
    }

    /// Returns the model, and the tokens if all is known of them. `is_whole` says that the response did
    /// not break off.
    pub(super) fn finish(&mut self, is_whole: bool) -> (Option<String>, Option<Tokens>) {
        match mem::replace(&mut self.0, Source::Unread) {
            Source::Unread => (None, None),
            Source::Plain(reader) => reader.finish(is_whole),
            Source::Coded(mut coded) => {
                let (reader, is_all) = coded.finish();
                reader.finish(is_whole && is_all)
            }
            Source::Broken(usage) => (usage.finish(false).0, None),
        }
    }
}

impl<F: UsageFormat> Reader<F> {
    fn scan(&mut self, mut chunk: &[u8]) {
        if let Form::Unknown(_) = self.form {
            chunk = self.form.detect(chunk);
        }
        match self.form {
            Form::Unknown(_) => {}
            Form::Json => self.json.scan(chunk, |found| {
                self.usage.read_member(&found);
                ControlFlow::Continue(())
            }),
            Form::Events => self.scan_events(chunk),
        }
    }

    fn scan_events(&mut self, mut chunk: &[u8]) {
        let Self { events, json, usage, .. } = self;
        if json.is_at_start() && events.is_at_line_start() && usage.can_skip(chunk) {
            return;
        }
        while let Some((part, length)) = events.next(chunk) {
            let (bytes, rest) = chunk.split_at(length);
            match part {
                EventPart::Data => {
                    usage.read_data(bytes);
                    json.scan(bytes, |found| {
                        usage.read_member(&found);
                        ControlFlow::Continue(())
                    });
                }
                EventPart::End => {
                    usage.end_event(json);
                    json.reset();
                }
                EventPart::Comment | EventPart::Field | EventPart::EndLineFeed => {}
            }
            chunk = rest;
        }
    }

    fn finish(self, is_whole: bool) -> (Option<String>, Option<Tokens>) {
        // JSON reports its figures once.
        self.usage.finish(is_whole || matches!(self.form, Form::Json))
    }
}

/// Reads what was decoded.
impl<F: UsageFormat> Write for Reader<F> {
    fn write(&mut self, chunk: &[u8]) -> io::Result<usize> {
        self.decoded += chunk.len();
        if self.decoded > MAX_DECODED_LEN {
            return Err(io::Error::other("coded response too long"));
        }
        self.scan(chunk);
        Ok(chunk.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<F: UsageFormat> Default for Reader<F> {
    fn default() -> Self {
        Self {
            form: Form::Unknown(0),
            events: EventReader::default(),
            json: MemberScanner::new(F::SELECTION),
            usage: F::default(),
            decoded: 0,
        }
    }
}

impl Form {
    /// Detects the form by the first byte of the text. Returns what is left to read.
    fn detect<'a>(&mut self, mut chunk: &'a [u8]) -> &'a [u8] {
        while let Self::Unknown(mark) = *self
            && let Some((byte, rest)) = chunk.split_first()
        {
            if BYTE_ORDER_MARK.get(mark) == Some(byte) {
                *self = Self::Unknown(mark + 1);
                chunk = rest;
            } else if byte.is_ascii_whitespace() {
                *self = Self::Unknown(BYTE_ORDER_MARK.len());
                chunk = rest;
            } else {
                *self = if *byte == b'{' { Self::Json } else { Self::Events };
            }
        }
        chunk
    }
}

/// Returns whether a response is JSON or server-sent events, or does not say what it is.
fn is_text(head: &Parts) -> bool {
    media_type(&head.headers).is_none_or(|kind| {
        kind.eq_ignore_ascii_case(b"application/json")
            || kind.eq_ignore_ascii_case(b"text/event-stream")
    })
}
