//! Reads selected members of a response in JSON or in server-sent events, in any chunks.

use std::ops::ControlFlow;

use memchr::memchr_iter;

use crate::{
    content::{
        events::{BYTE_ORDER_MARK, EventPart, EventReader},
        members::{FoundMember, MemberScanner, Selection},
    },
    usage::{ReportedUsage, UsageParser},
};

/// The usage that a response has reported so far.
///
/// It selects members of the response's JSON and makes figures of them. Events and chunk borders are the
/// reader's.
pub(super) trait UsageMembers: Default + Send + Sync {
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

    /// Returns what was reported. `is_complete` says that no figures are missing because the response
    /// broke off.
    fn finish(self, is_complete: bool) -> ReportedUsage;
}

/// Reads a response in one of two forms.
pub(super) struct Reader<U> {
    form: Form,
    events: EventReader,
    json: MemberScanner,
    usage: U,
}

#[derive(Clone, Copy)]
enum Form {
    /// Nothing has come but this number of bytes of a byte order mark, and white space.
    Unknown(usize),
    Json,
    Events,
}

impl<U: UsageMembers> UsageParser for Reader<U> {
    fn read(&mut self, mut chunk: &[u8]) {
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

    fn is_over(&self) -> bool {
        self.usage.is_over()
    }

    fn finish(self: Box<Self>, is_whole: bool) -> ReportedUsage {
        // JSON reports its figures once.
        self.usage.finish(is_whole || matches!(self.form, Form::Json))
    }
}

impl<U: UsageMembers> Reader<U> {
    fn scan_events(&mut self, mut chunk: &[u8]) {
        let Self { events, json, usage, .. } = self;
        if json.is_at_start() && events.is_at_line_start() && usage.can_skip(chunk) {
            return;
        }
        // An end is looked for once for each event, and not again once there is none: lines may be many.
        let (mut may_skip, mut may_end) = (true, true);
        loop {
            if may_skip && may_end && json.is_at_start() && events.is_at_line_start() {
                match first_event(chunk) {
                    Some((event, rest)) if usage.can_skip(event) => {
                        chunk = rest;
                        continue;
                    }
                    ended => may_end = ended.is_some(),
                }
            }
            let Some((part, length)) = events.next(chunk) else { return };
            may_skip = matches!(part, EventPart::End | EventPart::EndLineFeed);
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
}

/// Splits off the rest of the event whose next line these bytes begin with, if it ends within them.
fn first_event(chunk: &[u8]) -> Option<(&[u8], &[u8])> {
    let end = memchr_iter(b'\n', chunk).find_map(|at| match &chunk[at + 1..] {
        [b'\n', ..] => Some(at + 2),
        [b'\r', b'\n', ..] => Some(at + 3),
        _ => None,
    })?;
    Some(chunk.split_at(end))
}

impl<U: UsageMembers> Default for Reader<U> {
    fn default() -> Self {
        Self {
            form: Form::Unknown(0),
            events: EventReader::default(),
            json: MemberScanner::new(U::SELECTION),
            usage: U::default(),
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
