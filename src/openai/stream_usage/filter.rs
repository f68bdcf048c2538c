use std::{collections::VecDeque, mem, ops::ControlFlow};

use bytes::{Bytes, BytesMut};
use serde::{Deserialize, de::IgnoredAny};
use serde_json::value::RawValue;

use crate::content::{
    events::{EventPart, EventReader},
    members::{Inner, MemberScanner, Selection},
};

/// Maximum length of a usage event. No more than that is held back.
const MAX_EVENT_LEN: usize = 16 * 1024;

/// Removes the usage events from server-sent events that arrive in any chunks.
#[derive(Default)]
pub(super) struct EventFilter {
    reader: EventReader,
    event: Event,
    /// Whether the last part was the end of an event that was removed.
    is_removed: bool,
    /// What came of the event in earlier chunks, while it may be a usage event.
    held: BytesMut,
}

/// What is known of the current event.
#[derive(Default)]
enum Event {
    /// It has no line yet but comments.
    #[default]
    Empty,
    MayBeUsage(UsageChunkDetector),
    Passes,
}

impl Event {
    /// Reads more data of the event. Returns whether it turns out not to be a usage event.
    fn passes_with(&mut self, data: &[u8]) -> bool {
        match self {
            Self::MayBeUsage(detector) => !detector.may_be_usage(data),
            Self::Empty | Self::Passes => false,
        }
    }
}

impl EventFilter {
    /// Reads the next chunk, and adds what of all that was read passes to `out`.
    pub(super) fn push(&mut self, mut chunk: Bytes, out: &mut VecDeque<Bytes>) {
        // Positions in this chunk: of the next part, of what is yet to pass, and of the event's beginning.
        let (mut at, mut from, mut event) = (0, 0, 0);
        while let Some((part, length)) = self.reader.next(&chunk[at..]) {
            let begin = at;
            at += length;
            let is_removed = mem::take(&mut self.is_removed);
            if let EventPart::Field | EventPart::Data = part
                && matches!(self.event, Event::Empty)
            {
                event = begin;
                self.event = Event::MayBeUsage(UsageChunkDetector::default());
            }
            match part {
                EventPart::Data if self.event.passes_with(&chunk[begin..at]) => {
                    self.event = Event::Passes;
                    self.release(out);
                }
                EventPart::End => {
                    if let Event::MayBeUsage(_) = mem::take(&mut self.event) {
                        match self.comments_of_usage(&chunk[event..at]) {
                            Some(comments) => {
                                send(chunk.slice(from..event), out);
                                send(comments, out);
                                from = at;
                                self.is_removed = true;
                            }
                            None => self.release(out),
                        }
                    }
                }
                EventPart::EndLineFeed if is_removed => from = at,
                _ => {}
            }
        }
        if let Event::MayBeUsage(_) = self.event {
            if self.held.len() + chunk.len() - event <= MAX_EVENT_LEN {
                self.held.extend_from_slice(&chunk.split_off(event));
            } else {
                self.event = Event::Passes;
                self.release(out);
            }
        }
        send(chunk.split_off(from), out);
    }

    /// Ends the stream: what is held back passes.
    pub(super) fn finish(&mut self, out: &mut VecDeque<Bytes>) {
        self.release(out);
    }

    /// Returns how many bytes are held back.
    pub(super) fn held(&self) -> usize {
        self.held.len()
    }

    fn release(&mut self, out: &mut VecDeque<Bytes>) {
        send(mem::take(&mut self.held).freeze(), out);
    }

    /// Returns the comments within the event that ends with these bytes, if it is a usage event. They
    /// pass nevertheless.
    fn comments_of_usage(&mut self, end: &[u8]) -> Option<Bytes> {
        if self.held.len() + end.len() > MAX_EVENT_LEN {
            return None;
        }
        let mut whole = mem::take(&mut self.held);
        let held = whole.len();
        whole.extend_from_slice(end);
        let (mut data, mut comments) = (Vec::with_capacity(whole.len()), BytesMut::new());
        let (mut reader, mut rest) = (EventReader::within_stream(), &*whole);
        while let Some((part, length)) = reader.next(rest) {
            match part {
                EventPart::Data => data.extend_from_slice(&rest[..length]),
                EventPart::Comment => comments.extend_from_slice(&rest[..length]),
                EventPart::Field | EventPart::End | EventPart::EndLineFeed => {}
            }
            rest = &rest[length..];
        }
        if is_usage_chunk(&data) {
            return Some(comments.freeze());
        }
        whole.truncate(held);
        self.held = whole;
        None
    }
}

fn send(bytes: Bytes, out: &mut VecDeque<Bytes>) {
    if !bytes.is_empty() {
        out.push_back(bytes);
    }
}

#[derive(Deserialize)]
struct Chunk<'a> {
    choices: Vec<IgnoredAny>,
    #[serde(borrow)]
    usage: &'a RawValue,
}

/// Returns whether the data of an event reports usage and nothing else.
fn is_usage_chunk(data: &[u8]) -> bool {
    let chunk = serde_json::from_slice::<Chunk<'_>>(data);
    chunk.is_ok_and(|chunk| chunk.choices.is_empty() && chunk.usage.get().starts_with('{'))
}

/// Reads the data of an event as it arrives, until it is known not to be a usage chunk: a JSON object with
/// an empty `choices` array.
struct UsageChunkDetector(MemberScanner);

const CHOICES: Selection = Selection { members: &[], inner: &[Inner::Empty(b"\"choices\"")] };

impl UsageChunkDetector {
    /// Reads more data. Returns whether it may still be a usage chunk; the whole decides.
    fn may_be_usage(&mut self, data: &[u8]) -> bool {
        self.0.scan(data, |_| ControlFlow::Continue(()));
        !self.0.is_over() || self.0.is_empty(0) || self.0.has_unread_name()
    }
}

impl Default for UsageChunkDetector {
    fn default() -> Self {
        Self(MemberScanner::new(&CHOICES))
    }
}
