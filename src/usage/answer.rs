//! What an answer tells of its model and its tokens, while it passes by.

use std::{
    io::{self, Write},
    mem,
    ops::ControlFlow,
    sync::OnceLock,
};

use http::{Method, response::Parts};
use memchr::memmem::Finder;

use super::{
    Tokens,
    event::{EventScanner, Piece},
    inflate::Inflate,
    member::{Found, Inner, Member, MemberScanner, Wanted},
    tokens::Figures,
};
use crate::content::{Coding, media_type};

/// How much of a coded answer is decoded: what is longer is no text that a model writes, and more
/// would let an upstream spend our time.
const MAX_DECODED: usize = 16 << 20;

/// Reads the model and the tokens that an OpenAI-compatible answer tells, in JSON or in server-sent
/// events.
#[derive(Debug)]
pub(super) struct AnswerScanner(Source);

/// What is read.
#[derive(Debug)]
enum Source {
    /// An answer that tells nothing, or not in a way that is read.
    Unread,
    Plain(Reader),
    Coded(Box<Inflate<Reader>>),
    /// A coded answer that could not be decoded any further; what was told so far.
    Broken(Told),
}

/// The text, as far as it has come, and what it has told.
#[derive(Debug, Default)]
struct Reader {
    text: Text,
    told: Told,
    decoded: usize,
}

/// The text of an answer that can be read.
#[derive(Debug)]
struct Text {
    form: Form,
    events: EventScanner,
    json: MemberScanner,
}

#[derive(Clone, Copy, Debug)]
enum Form {
    /// So many bytes of a byte order mark have come, and nothing else.
    Unknown(usize),
    Json,
    Events,
}

/// What was told so far.
#[derive(Debug, Default)]
struct Told {
    model: Option<String>,
    figures: Figures,
    /// Those that count if there are no others: of [`GROQ`] and [`CHOICE`].
    other_figures: Figures,
    /// No other figures are to come.
    is_final: bool,
    /// The answer says that it is over: `[DONE]`, `message_stop`, or the last event of
    /// `/v1/responses`.
    is_over: bool,
    /// The answer is Anthropic's, whose last event has nothing but a name.
    is_message: bool,
    event: Event,
}

/// What the event that is being read has told.
#[derive(Debug, Default)]
struct Event {
    usage: bool,
    is_stop: bool,
    /// How many of its bytes are those of `[DONE]`, and whether there are others.
    done: usize,
    is_other: bool,
}

const WANTED: Wanted = Wanted {
    members: &[
        Member { name: USAGE_NAME, longest: 4096 },
        Member { name: b"\"model\"", longest: 256 },
        Member { name: b"\"type\"", longest: 32 },
    ],
    inner: &[
        // The object of the events of `/v1/responses`.
        Inner::Object(b"\"response\""),
        // Anthropic's `message_start`.
        Inner::Object(b"\"message\""),
        Inner::Object(b"\"x_groq\""),
        // Kimi.
        Inner::FirstItem(b"\"choices\""),
    ],
};
const USAGE: u8 = 0;
const MODEL: u8 = 1;
const TYPE: u8 = 2;
const RESPONSE: u8 = 0;
const MESSAGE: u8 = 1;
const GROQ: u8 = 2;
const CHOICE: u8 = 3;
const USAGE_NAME: &[u8] = b"\"usage\"";
const STOP: &[u8] = b"\"message_stop\"";

const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";
const DONE: &[u8] = b"[DONE]";

impl AnswerScanner {
    /// A scanner for an answer to a request with this method; it reads nothing of one that cannot be
    /// read, and of one that shows again what was billed with another request.
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

    pub(super) fn scan(&mut self, chunk: &[u8]) {
        match &mut self.0 {
            Source::Plain(reader) => reader.scan(chunk),
            Source::Coded(coded) => {
                if coded.decode(chunk).is_err() {
                    let (reader, _) = coded.finish();
                    self.0 = Source::Broken(reader.told);
                }
            }
            Source::Unread | Source::Broken(_) => {}
        }
    }

    /// Whether the answer has said that it is over, whatever its body still does.
    pub(super) fn is_over(&self) -> bool {
        match &self.0 {
            Source::Plain(reader) => reader.told.is_over,
            Source::Coded(coded) => coded.out().told.is_over,
            Source::Unread | Source::Broken(_) => false,
        }
    }

    /// The model, and the tokens if all is known of them; `is_whole` says that the answer did not
    /// break off.
    pub(super) fn finish(&mut self, is_whole: bool) -> (Option<String>, Option<Tokens>) {
        match mem::replace(&mut self.0, Source::Unread) {
            Source::Unread => (None, None),
            Source::Plain(reader) => reader.finish(is_whole),
            Source::Coded(mut coded) => {
                let (reader, is_all) = coded.finish();
                reader.finish(is_whole && is_all)
            }
            Source::Broken(told) => (told.model, None),
        }
    }
}

impl Reader {
    fn scan(&mut self, chunk: &[u8]) {
        self.text.scan(chunk, &mut self.told);
    }

    fn finish(self, is_whole: bool) -> (Option<String>, Option<Tokens>) {
        let Self { text, told, .. } = self;
        // JSON tells its figures once.
        let is_json = matches!(text.form, Form::Json);
        let is_known = is_whole || told.is_final || is_json;
        let figures = told.figures.or(told.other_figures);
        (told.model, figures.tokens().filter(|_| is_known))
    }
}

/// Takes what was decoded.
impl Write for Reader {
    fn write(&mut self, chunk: &[u8]) -> io::Result<usize> {
        self.decoded += chunk.len();
        if self.decoded > MAX_DECODED {
            return Err(io::Error::other("a coded answer is too long"));
        }
        self.scan(chunk);
        Ok(chunk.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Default for Text {
    fn default() -> Self {
        Self {
            form: Form::Unknown(0),
            events: EventScanner::default(),
            json: MemberScanner::new(&WANTED),
        }
    }
}

impl Text {
    fn scan(&mut self, mut chunk: &[u8], told: &mut Told) {
        let Self { form, events, json } = self;
        if let Form::Unknown(_) = form {
            chunk = form.find(chunk);
        }
        match form {
            Form::Unknown(_) => {}
            Form::Json => json.scan(chunk, |found| told.note(&found)),
            Form::Events
                if told.model.is_some()
                    && json.is_unbegun()
                    && events.is_between_lines()
                    && tell_nothing(chunk, told.is_message) => {}
            Form::Events => events.scan(chunk, |piece| match piece {
                Piece::Data(data) => {
                    told.event.note(data);
                    json.scan(data, |found| told.note(&found));
                }
                Piece::End => {
                    told.end_event(json.is_empty(CHOICE));
                    json.reset();
                }
            }),
        }
    }
}

/// Whether this is whole events of which none tells of usage or is the last. Most are, and need no
/// reading.
fn tell_nothing(events: &[u8], is_message: bool) -> bool {
    static FINDERS: OnceLock<[Finder<'static>; 3]> = OnceLock::new();
    let [usage, done, stop] = FINDERS.get_or_init(|| [USAGE_NAME, DONE, STOP].map(Finder::new));
    let is_null = |at| {
        let value = &events[at + usage.needle().len()..];
        value.starts_with(b":null,") || value.starts_with(b":null}")
    };
    (events.ends_with(b"\n\n") || events.ends_with(b"\r\n\r\n"))
        && usage.find_iter(events).all(is_null)
        && done.find(events).is_none()
        && !(is_message && stop.find(events).is_some())
}

impl Form {
    /// Finds the form by the first byte of the text; returns what is left to scan.
    fn find<'a>(&mut self, mut chunk: &'a [u8]) -> &'a [u8] {
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

impl Told {
    fn note(&mut self, found: &Found<'_>) -> ControlFlow<()> {
        self.is_message |= found.within == Some(MESSAGE);
        match (found.member, found.within) {
            (USAGE, _) => self.note_usage(found),
            (MODEL, None | Some(RESPONSE | MESSAGE)) if self.model.is_none() => {
                self.model = found.value.and_then(|value| serde_json::from_slice(value).ok());
            }
            (TYPE, None) => self.event.is_stop = found.value == Some(STOP),
            _ => {}
        }
        // Figures that are told again count as told last.
        ControlFlow::Continue(())
    }

    fn note_usage(&mut self, found: &Found<'_>) {
        if found.value == Some(b"null") {
            return;
        }
        let figures = match found.within {
            Some(GROQ | CHOICE) => &mut self.other_figures,
            _ => &mut self.figures,
        };
        figures.add(found.value.unwrap_or_default());
        // The events of `/v1/responses`, and Groq's, tell figures with the last of them only.
        self.is_final = matches!(found.within, Some(RESPONSE | GROQ));
        self.is_over |= found.within == Some(RESPONSE);
        self.event.usage = true;
    }

    fn end_event(&mut self, no_choices: bool) {
        let event = mem::take(&mut self.event);
        let is_extra = event.usage && no_choices;
        let is_done = event.is_stop || event.done == DONE.len() && !event.is_other;
        self.is_final |= is_extra || is_done;
        self.is_over |= is_done;
    }
}

impl Event {
    /// Compares its data with `[DONE]`.
    fn note(&mut self, data: &[u8]) {
        for byte in data {
            if self.is_other {
                return;
            }
            let is_around = self.done == 0 || self.done == DONE.len();
            if is_around && byte.is_ascii_whitespace() {
                continue;
            }
            self.is_other = DONE.get(self.done) != Some(byte);
            self.done += 1;
        }
    }
}

/// Whether an answer is JSON or server-sent events, or does not say what it is.
fn is_text(head: &Parts) -> bool {
    media_type(&head.headers).is_none_or(|kind| {
        kind.eq_ignore_ascii_case(b"application/json")
            || kind.eq_ignore_ascii_case(b"text/event-stream")
    })
}

#[cfg(test)]
mod tests;
