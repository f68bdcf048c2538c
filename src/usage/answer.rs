//! What an answer tells of its model and its tokens, while it passes by.

use std::{mem, ops::ControlFlow, sync::OnceLock};

use http::{Method, response::Parts};
use memchr::memmem::Finder;

use super::{
    Tokens,
    event::{EventScanner, Piece},
    member::{Found, Member, MemberScanner, Wanted},
    tokens::Figures,
};
use crate::content::{is_plain, media_type};

/// Reads the model and the tokens that an OpenAI-compatible answer tells, in JSON or in server-sent
/// events.
#[derive(Debug, Default)]
pub(super) struct AnswerScanner {
    text: Option<Text>,
    told: Told,
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
    /// A usage object could not be read.
    is_unclear: bool,
    /// No other figures are to come.
    is_final: bool,
    /// The answer says that it is over: `[DONE]`, or the last event of `/v1/responses`.
    is_over: bool,
    event: Event,
}

/// What the event that is being read has told.
#[derive(Debug, Default)]
struct Event {
    usage: bool,
    no_choices: bool,
    /// How many of its bytes are those of `[DONE]`, and whether there are others.
    done: usize,
    is_other: bool,
}

const WANTED: Wanted = Wanted {
    members: &[
        Member { name: USAGE_NAME, longest: 4096 },
        Member { name: b"\"model\"", longest: 256 },
        // It only matters whether there are any.
        Member { name: b"\"choices\"", longest: 16 },
    ],
    // The object of the events of `/v1/responses`, and that of Anthropic's `message_start`.
    inner: &[b"\"response\"", b"\"message\""],
};
const USAGE: u8 = 0;
const MODEL: u8 = 1;
const CHOICES: u8 = 2;
const RESPONSE: u8 = 0;
const USAGE_NAME: &[u8] = b"\"usage\"";

const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";
const DONE: &[u8] = b"[DONE]";

impl AnswerScanner {
    /// A scanner for an answer to a request with this method; it reads nothing of one that cannot be
    /// read, and of one that shows again what was billed with another request.
    pub(super) fn new(method: &Method, head: &Parts) -> Self {
        let is_read = method == Method::POST && head.status.is_success() && is_readable(head);
        Self { text: is_read.then(Text::new), told: Told::default() }
    }

    pub(super) fn scan(&mut self, chunk: &[u8]) {
        if let Some(text) = &mut self.text {
            text.scan(chunk, &mut self.told);
        }
    }

    /// Whether the answer has said that it is over, whatever its body still does.
    pub(super) fn is_over(&self) -> bool {
        self.told.is_over
    }

    /// The model, and the tokens if all is known of them; `is_whole` says that the answer did not
    /// break off.
    pub(super) fn finish(&mut self, is_whole: bool) -> (Option<String>, Option<Tokens>) {
        let text = self.text.take();
        let told = mem::take(&mut self.told);
        // JSON tells its figures once.
        let is_json = text.is_some_and(|text| matches!(text.form, Form::Json));
        let is_known = !told.is_unclear && (is_whole || told.is_final || is_json);
        (told.model, told.figures.tokens().filter(|_| is_known))
    }
}

impl Text {
    fn new() -> Self {
        Self {
            form: Form::Unknown(0),
            events: EventScanner::default(),
            json: MemberScanner::new(&WANTED),
        }
    }

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
                    && tell_nothing(chunk) => {}
            Form::Events => events.scan(chunk, |piece| match piece {
                Piece::Data(data) => {
                    told.event.note(data);
                    json.scan(data, |found| told.note(&found));
                }
                Piece::End => {
                    told.end_event();
                    json.reset();
                }
            }),
        }
    }
}

/// Whether this is whole events of which none tells of usage or is the last. Most are, and need no
/// reading.
fn tell_nothing(events: &[u8]) -> bool {
    static FINDERS: OnceLock<[Finder<'static>; 2]> = OnceLock::new();
    let [usage, done] = FINDERS.get_or_init(|| [Finder::new(USAGE_NAME), Finder::new(DONE)]);
    let is_null = |at| {
        let value = &events[at + usage.needle().len()..];
        value.starts_with(b":null,") || value.starts_with(b":null}")
    };
    (events.ends_with(b"\n\n") || events.ends_with(b"\r\n\r\n"))
        && usage.find_iter(events).all(is_null)
        && done.find(events).is_none()
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
        match (found.member, found.within) {
            (USAGE, _) => self.note_usage(found),
            (MODEL, _) if self.model.is_none() => {
                self.model = found.value.and_then(|value| serde_json::from_slice(value).ok());
            }
            (CHOICES, None) => self.event.no_choices = found.value.is_some_and(is_empty),
            _ => {}
        }
        // Figures that are told again count as told last.
        ControlFlow::Continue(())
    }

    fn note_usage(&mut self, found: &Found<'_>) {
        if found.value == Some(b"null") {
            return;
        }
        match found.value.and_then(|value| self.figures.and(value)) {
            Some(figures) => self.figures = figures,
            None => self.is_unclear = true,
        }
        // The events of `/v1/responses` tell figures with the last of them only.
        self.is_final = found.within == Some(RESPONSE);
        self.is_over |= self.is_final;
        self.event.usage = true;
    }

    fn end_event(&mut self) {
        let event = mem::take(&mut self.event);
        let is_extra = event.usage && event.no_choices;
        let is_done = event.done == DONE.len() && !event.is_other;
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

/// Whether an array has nothing in it.
fn is_empty(array: &[u8]) -> bool {
    let inside = array.strip_prefix(b"[").and_then(|array| array.strip_suffix(b"]"));
    inside.is_some_and(|inside| inside.trim_ascii().is_empty())
}

fn is_readable(head: &Parts) -> bool {
    let is_text = media_type(&head.headers).is_none_or(|kind| {
        kind.eq_ignore_ascii_case(b"application/json")
            || kind.eq_ignore_ascii_case(b"text/event-stream")
    });
    is_text && is_plain(&head.headers)
}

#[cfg(test)]
mod tests;
