//! Usage of OpenAI-compatible APIs and of Anthropic's.

mod figures;
mod reader;
#[cfg(test)]
mod tests;

use std::{mem, sync::OnceLock};

use http::{Method, response::Parts};
use memchr::memmem::Finder;

use self::{
    figures::Figures,
    reader::{Reader, UsageMembers},
};
use crate::{
    content::{
        media_type,
        members::{FoundMember, Inner, Member, MemberScanner, Selection},
    },
    usage::{ReportedUsage, UsageFormat, UsageParser},
};

/// [`UsageFormat`] of OpenAI-compatible APIs and of Anthropic's.
///
/// # Rules
///
/// - Usage is read of 2xx responses to `POST` in JSON or in server-sent events. A response to another
///   method repeats what was billed before. A response in gzip or deflate is read through a decoded copy of
///   at most 16 MiB; of one that is longer, or in another coding, nothing is known. The client gets the
///   response as it came.
/// - Read are `usage` and `model` of the object that the response or an event's data is, and of its
///   members `response` (the events of `/v1/responses`) and `message` (Anthropic's `message_start`).
///   If none of these has a `usage`, that of `x_groq` or of the first of `choices` (Kimi) is read.
///   Anything else may be the client's own words. The first model that is reported counts.
/// - The last report of a figure counts. One that is missing or zero in a later report stays, except for the
///   total. Of two sets of names, `prompt_tokens` and `completion_tokens` win, unless they are zero. A figure
///   may be written as `11`, `11.0` or `1.1e1`.
/// - The prompt is all input that was billed: where Anthropic's names count cached input beside
///   `input_tokens`, their sum. Cached tokens are those that were read from a cache.
/// - A total that is missing, or 0, is the sum. One that is reported may be more than prompt and completion
///   together, as some include reasoning besides, but not less.
/// - Tokens are unknown if there is no figure for prompt or completion (embeddings need none for the
///   completion if the total is the prompt), if the figures are impossible, or if any `usage` cannot be
///   read. Cached and reasoning tokens that are impossible are unknown by themselves.
/// - Of a stream that broke off or whose client has left, tokens are known if it had reported the last of
///   them: in an event with empty `choices`, in `response` or `x_groq`, or before `[DONE]` or
///   `message_stop`. JSON reports them once, so they count however it ends.
#[derive(Clone, Copy, Debug, Default)]
pub struct OpenAiUsage;

impl UsageFormat for OpenAiUsage {
    fn parser(&self, method: &Method, head: &Parts) -> Option<Box<dyn UsageParser>> {
        let is_read = method == Method::POST && head.status.is_success() && is_text(head);
        is_read.then(|| Box::new(Reader::<Reported>::default()) as _)
    }
}

/// Returns whether a response is JSON or server-sent events, or does not say what it is.
fn is_text(head: &Parts) -> bool {
    media_type(&head.headers).is_none_or(|kind| {
        kind.eq_ignore_ascii_case(b"application/json")
            || kind.eq_ignore_ascii_case(b"text/event-stream")
    })
}

/// What a response has reported so far.
#[derive(Default)]
struct Reported {
    model: Option<String>,
    figures: Figures,
    /// Figures of [`GROQ`] and [`CHOICE`], which count if there are no others.
    fallback_figures: Figures,
    /// No other figures are to come.
    is_final: bool,
    /// The response says that it is complete: `[DONE]`, `message_stop`, or the last event of
    /// `/v1/responses`.
    is_over: bool,
    /// The response is Anthropic's, whose last event has nothing but a name.
    is_anthropic: bool,
    event: EventUsage,
}

/// What the current event has reported.
#[derive(Default)]
struct EventUsage {
    has_usage: bool,
    is_stop: bool,
    /// Number of bytes that are those of `[DONE]`.
    done: usize,
    /// Whether there are bytes that are not those of `[DONE]`.
    is_other: bool,
}

const SELECTION: Selection = Selection {
    members: &[
        Member { name: USAGE_NAME, max_len: 4096 },
        Member { name: b"\"model\"", max_len: 256 },
        Member { name: b"\"type\"", max_len: 32 },
    ],
    inner: &[
        // The object of the events of `/v1/responses`.
        Inner::Object(b"\"response\""),
        // Anthropic's `message_start`.
        Inner::Object(b"\"message\""),
        Inner::Object(b"\"x_groq\""),
        // Kimi reports usage in the first choice.
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
const DONE: &[u8] = b"[DONE]";

impl UsageMembers for Reported {
    const SELECTION: &'static Selection = &SELECTION;

    fn read_member(&mut self, found: &FoundMember<'_>) {
        self.is_anthropic |= found.inner == Some(MESSAGE);
        match (found.member, found.inner) {
            (USAGE, _) => self.read_usage(found),
            (MODEL, None | Some(RESPONSE | MESSAGE)) if self.model.is_none() => {
                self.model = found.value.and_then(|value| serde_json::from_slice(value).ok());
            }
            (TYPE, None) => self.event.is_stop = found.value == Some(STOP),
            _ => {}
        }
    }

    fn read_data(&mut self, data: &[u8]) {
        self.event.compare_with_done(data);
    }

    fn end_event(&mut self, json: &MemberScanner) {
        let event = mem::take(&mut self.event);
        let is_extra = event.has_usage && json.is_empty(CHOICE);
        let is_done = event.is_stop || event.done == DONE.len() && !event.is_other;
        self.is_final |= is_extra || is_done;
        self.is_over |= is_done;
    }

    fn can_skip(&self, events: &[u8]) -> bool {
        static FINDERS: OnceLock<[Finder<'static>; 3]> = OnceLock::new();
        let [usage, done, stop] = FINDERS.get_or_init(|| [USAGE_NAME, DONE, STOP].map(Finder::new));
        let is_null = |at| {
            let value = &events[at + usage.needle().len()..];
            value.starts_with(b":null,") || value.starts_with(b":null}")
        };
        self.model.is_some()
            && (events.ends_with(b"\n\n") || events.ends_with(b"\r\n\r\n"))
            && usage.find_iter(events).all(is_null)
            && done.find(events).is_none()
            && !(self.is_anthropic && stop.find(events).is_some())
    }

    fn is_over(&self) -> bool {
        self.is_over
    }

    fn finish(self, is_complete: bool) -> ReportedUsage {
        let tokens = self.figures.or(self.fallback_figures).tokens();
        let tokens = tokens.filter(|_| is_complete || self.is_final);
        ReportedUsage { model: self.model, tokens }
    }
}

impl Reported {
    fn read_usage(&mut self, found: &FoundMember<'_>) {
        if found.value == Some(b"null") {
            return;
        }
        let figures = match found.inner {
            Some(GROQ | CHOICE) => &mut self.fallback_figures,
            _ => &mut self.figures,
        };
        figures.add(found.value.unwrap_or_default());
        // The events of `/v1/responses`, and Groq's, report figures with the last of them only.
        self.is_final = matches!(found.inner, Some(RESPONSE | GROQ));
        self.is_over |= found.inner == Some(RESPONSE);
        self.event.has_usage = true;
    }
}

impl EventUsage {
    fn compare_with_done(&mut self, data: &[u8]) {
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
