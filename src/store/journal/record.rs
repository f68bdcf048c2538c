//! One record, and how it is written.

use bytes::{Buf, BufMut};

use super::{
    details::Details,
    wire::{flag, get_day, get_text, put_day, put_text, unix_millis},
};
use crate::{
    clock::Day,
    key::KeyId,
    store::{Outcome, RequestRow, Tokens, UsageEvent, UsageFigures, counter::Origin},
};

/// What changes about one subject: its count, its usage figures, or both at once.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Record<'a> {
    pub(crate) id: &'a KeyId,
    pub(crate) count: Option<CountChange>,
    pub(crate) usage: Option<UsageEntry<'a>>,
}

/// A change of a day's count.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct CountChange {
    pub(crate) origin: Origin,
    /// When a unit was used, in Unix milliseconds.
    pub(crate) used_at: Option<i64>,
    /// Units used (1), given back (-1), or neither.
    pub(crate) used: i8,
    /// Whether a unit was given back that counts against the most that may be.
    pub(crate) refunded: bool,
    /// Up to which number of units the day is charged ahead from now on.
    pub(crate) charged: Option<u64>,
    /// Whether the event of the request that the unit was used for comes by itself.
    pub(crate) awaits_event: bool,
}

/// What the ledger keeps of one request.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct UsageEntry<'a> {
    /// When it was received, and the day by the calendar of that time.
    pub(crate) at: i64,
    pub(crate) day: Day,
    pub(crate) class: Class,
    pub(crate) refunded: bool,
    pub(crate) tokens: Option<Tokens>,
    pub(crate) model: Option<&'a str>,
    /// Whether its unit was written down as one whose event is to come.
    pub(crate) awaited: bool,
    /// What is kept of it beside the sums.
    pub(crate) details: Option<Details<'a>>,
}

/// How a request ended, as far as it is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Class {
    Succeeded = 1,
    Failed = 2,
    Rejected = 3,
}

impl CountChange {
    /// A change of this day that changes nothing yet.
    pub(crate) fn of(origin: Origin) -> Self {
        let (used_at, charged) = (None, None);
        Self { origin, used_at, used: 0, refunded: false, charged, awaits_event: false }
    }
}

impl<'a> UsageEntry<'a> {
    pub(crate) fn new(event: &'a UsageEvent, day: Day) -> Self {
        let class = match event.outcome {
            Outcome::Succeeded => Class::Succeeded,
            Outcome::Failed | Outcome::ClientGone => Class::Failed,
            Outcome::Rejected(_) => Class::Rejected,
        };
        let (refunded, tokens) = (event.refunded, event.tokens);
        Self {
            at: unix_millis(event.at),
            day,
            class,
            refunded,
            tokens,
            model: event.model.as_deref(),
            awaited: event.awaited,
            details: None,
        }
    }

    /// The same with what is kept of the single request.
    pub(crate) fn with_details(self, event: &'a UsageEvent) -> Self {
        Self { details: Some(Details::new(event)), ..self }
    }

    /// The same for the sums only.
    pub(crate) fn without_details(self) -> Self {
        Self { details: None, ..self }
    }

    /// The row of the single request, if it is to be kept.
    pub(crate) fn row(&self, id: &KeyId) -> Option<RequestRow> {
        self.details.as_ref().map(|details| details.row(self, id))
    }

    pub(crate) fn figures(&self) -> UsageFigures {
        UsageFigures {
            requests: (self.class != Class::Rejected).into(),
            succeeded: (self.class == Class::Succeeded).into(),
            failed: (self.class == Class::Failed).into(),
            refunded: (self.refunded && self.class != Class::Rejected).into(),
            rejected: (self.class == Class::Rejected).into(),
            tokens: self.tokens.unwrap_or_default(),
        }
    }
}

const COUNT: u8 = 1;
const USED_AT: u8 = 1 << 1;
const REFUNDED: u8 = 1 << 2;
const CHARGED: u8 = 1 << 3;
const USAGE: u8 = 1 << 4;
const AWAITS_EVENT: u8 = 1 << 5;

const GIVEN_BACK: u8 = 1;
const TOKENS: u8 = 1 << 1;
const MODEL: u8 = 1 << 2;
const CACHED: u8 = 1 << 3;
const REASONING: u8 = 1 << 4;
const DETAILS: u8 = 1 << 5;
const AWAITED: u8 = 1 << 6;

impl<'a> Record<'a> {
    /// Appends the record's bytes.
    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        let count = self.count.as_ref();
        out.put_u8(
            flag(count.is_some(), COUNT)
                | flag(count.is_some_and(|count| count.used_at.is_some()), USED_AT)
                | flag(count.is_some_and(|count| count.refunded), REFUNDED)
                | flag(count.is_some_and(|count| count.charged.is_some()), CHARGED)
                | flag(self.usage.is_some(), USAGE)
                | flag(count.is_some_and(|count| count.awaits_event), AWAITS_EVENT),
        );
        put_text(out, self.id.as_str());
        if let Some(count) = count {
            put_day(out, count.origin.day);
            out.put_u32_le(count.origin.epoch);
            out.put_i8(count.used);
            count.used_at.into_iter().for_each(|at| out.put_i64_le(at));
            count.charged.into_iter().for_each(|charged| out.put_u64_le(charged));
        }
        if let Some(usage) = &self.usage {
            usage.encode(out);
        }
    }

    /// Reads a record from all of `bytes` and hands it on; `None` if they are none.
    pub(super) fn decode(mut bytes: &[u8], each: &mut dyn FnMut(Record<'_>)) -> Option<()> {
        let flags = bytes.try_get_u8().ok()?;
        let has = |flag| flags & flag != 0;
        let id = KeyId::new(get_text(&mut bytes)?);
        let count = if has(COUNT) {
            Some(CountChange {
                origin: Origin { day: get_day(&mut bytes)?, epoch: bytes.try_get_u32_le().ok()? },
                used: bytes.try_get_i8().ok()?,
                used_at: if has(USED_AT) { Some(bytes.try_get_i64_le().ok()?) } else { None },
                refunded: has(REFUNDED),
                charged: if has(CHARGED) { Some(bytes.try_get_u64_le().ok()?) } else { None },
                awaits_event: has(AWAITS_EVENT),
            })
        } else {
            None
        };
        let usage = if has(USAGE) { Some(UsageEntry::decode(&mut bytes)?) } else { None };
        bytes.is_empty().then(|| each(Record { id: &id, count, usage }))
    }
}

impl<'a> UsageEntry<'a> {
    fn encode(&self, out: &mut Vec<u8>) {
        out.put_u8(
            flag(self.refunded, GIVEN_BACK)
                | flag(self.tokens.is_some(), TOKENS)
                | flag(self.model.is_some(), MODEL)
                | flag(self.tokens.is_some_and(|tokens| tokens.cached.is_some()), CACHED)
                | flag(self.tokens.is_some_and(|tokens| tokens.reasoning.is_some()), REASONING)
                | flag(self.details.is_some(), DETAILS)
                | flag(self.awaited, AWAITED),
        );
        out.put_u8(self.class as u8);
        out.put_i64_le(self.at);
        put_day(out, self.day);
        if let Some(tokens) = self.tokens {
            out.put_u64_le(tokens.prompt);
            out.put_u64_le(tokens.completion);
            out.put_u64_le(tokens.total);
            tokens.cached.into_iter().for_each(|cached| out.put_u64_le(cached));
            tokens.reasoning.into_iter().for_each(|reasoning| out.put_u64_le(reasoning));
        }
        if let Some(model) = self.model {
            put_text(out, model);
        }
        if let Some(details) = &self.details {
            details.encode(out);
        }
    }

    fn decode(bytes: &mut &'a [u8]) -> Option<Self> {
        let flags = bytes.try_get_u8().ok()?;
        let class = match bytes.try_get_u8().ok()? {
            1 => Class::Succeeded,
            2 => Class::Failed,
            3 => Class::Rejected,
            _ => return None,
        };
        let at = bytes.try_get_i64_le().ok()?;
        let day = get_day(bytes)?;
        let has = |flag| flags & flag != 0;
        let tokens = if has(TOKENS) {
            let mut number = || bytes.try_get_u64_le().ok();
            let told = Tokens::new(number()?, number()?, number()?);
            let cached = if has(CACHED) { Some(number()?) } else { None };
            let reasoning = if has(REASONING) { Some(number()?) } else { None };
            Some(Tokens { cached, reasoning, ..told })
        } else {
            None
        };
        let model = if has(MODEL) { Some(get_text(bytes)?) } else { None };
        let details = if has(DETAILS) { Some(Details::decode(bytes)?) } else { None };
        let (refunded, awaited) = (has(GIVEN_BACK), has(AWAITED));
        Some(Self { at, day, class, refunded, tokens, model, awaited, details })
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn full(id: &KeyId) -> Record<'_> {
        let day = "2026-11-22".parse().unwrap();
        let (used_at, origin) = (Some(1_795_348_800_123), Origin { day, epoch: 7 });
        Record {
            id,
            count: Some(CountChange {
                used_at,
                used: -1,
                refunded: true,
                charged: Some(12),
                awaits_event: true,
                origin,
            }),
            usage: Some(UsageEntry {
                at: 1_795_348_800_123,
                day,
                class: Class::Failed,
                refunded: true,
                tokens: Some(Tokens {
                    cached: Some(4),
                    reasoning: Some(5),
                    ..Tokens::new(1, 2, 3)
                }),
                model: Some("deepseek-chat"),
                awaited: true,
                details: Some(Details {
                    method: "POST",
                    path: "/v1/chat".into(),
                    outcome: "failed",
                    code: Some("upstream_failed"),
                    model_asked: Some("m"),
                    status: Some(500),
                    units: 0,
                    bytes_in: 1 << 40,
                    bytes_out: 7,
                    time_to_head: Some(Duration::from_micros(8)),
                    time_to_first_byte: Some(Duration::from_micros(9)),
                    duration: Duration::from_micros(10),
                }),
            }),
        }
    }

    fn encoded(record: &Record<'_>) -> Vec<u8> {
        let mut bytes = Vec::new();
        record.encode(&mut bytes);
        bytes
    }

    #[test]
    fn a_record_is_read_as_it_was_written() {
        let id = KeyId::from("key_0123456789abcdef");
        let bare = Record { count: None, usage: None, ..full(&id) };
        let count = Record { usage: None, ..full(&id) };
        let usage = Record { count: None, ..full(&id) };
        for record in [full(&id), bare, count, usage] {
            let mut read = 0;
            Record::decode(&encoded(&record), &mut |found| {
                assert_eq!(found, record);
                read += 1;
            });
            assert_eq!(read, 1);
        }
    }

    #[test]
    fn a_part_of_a_record_is_none() {
        let bytes = encoded(&full(&KeyId::from("key_0123456789abcdef")));
        let is_record = |bytes: &[u8]| Record::decode(bytes, &mut |_| ()).is_some();
        for length in 0..bytes.len() {
            assert!(!is_record(&bytes[..length]), "{length} bytes");
        }
        assert!(!is_record(&[bytes, vec![0]].concat()), "a byte more");
    }
}
