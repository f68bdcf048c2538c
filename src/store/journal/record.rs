//! One record, and how it is written.

use std::{
    borrow::Cow,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use bytes::{Buf, BufMut};
use jiff::civil::Date;

use crate::{
    clock::Day,
    key::KeyId,
    store::{Outcome, RequestRow, Tokens, UsageEvent, UsageFigures, counter::Origin, plain_path},
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
    /// What is kept of it beside the sums.
    pub(crate) details: Option<Details<'a>>,
}

/// What is kept of a single request.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Details<'a> {
    method: &'a str,
    path: Cow<'a, str>,
    outcome: &'a str,
    code: Option<&'a str>,
    model_asked: Option<&'a str>,
    status: Option<u16>,
    units: u32,
    bytes_in: u64,
    bytes_out: u64,
    time_to_head: Option<Duration>,
    time_to_first_byte: Option<Duration>,
    duration: Duration,
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
        Self { origin, used_at: None, used: 0, refunded: false, charged: None }
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
            details: None,
        }
    }

    /// The same with what is kept of the single request.
    pub(crate) fn with_details(self, event: &'a UsageEvent) -> Self {
        Self { details: Some(Details::new(event)), ..self }
    }

    /// The row of the single request, if it is to be kept.
    pub(crate) fn row(&self, id: &KeyId) -> Option<RequestRow> {
        let details = self.details.as_ref()?;
        Some(RequestRow {
            number: 0,
            key_id: id.clone(),
            at: from_unix_millis(self.at),
            method: details.method.to_owned(),
            path: details.path.to_string(),
            status: details.status,
            outcome: details.outcome.to_owned(),
            code: details.code.map(str::to_owned),
            units: details.units,
            refunded: self.refunded,
            model_asked: details.model_asked.map(str::to_owned),
            model: self.model.map(str::to_owned),
            tokens: self.tokens,
            bytes_in: details.bytes_in,
            bytes_out: details.bytes_out,
            time_to_head: details.time_to_head,
            time_to_first_byte: details.time_to_first_byte,
            duration: details.duration,
        })
    }

    pub(crate) fn figures(&self) -> UsageFigures {
        UsageFigures {
            requests: (self.class != Class::Rejected).into(),
            succeeded: (self.class == Class::Succeeded).into(),
            failed: (self.class == Class::Failed).into(),
            refunded: self.refunded.into(),
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

const GIVEN_BACK: u8 = 1;
const TOKENS: u8 = 1 << 1;
const MODEL: u8 = 1 << 2;
const CACHED: u8 = 1 << 3;
const REASONING: u8 = 1 << 4;
const DETAILS: u8 = 1 << 5;

impl<'a> Record<'a> {
    /// Appends the record's bytes.
    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        let count = self.count.as_ref();
        out.put_u8(
            flag(count.is_some(), COUNT)
                | flag(count.is_some_and(|count| count.used_at.is_some()), USED_AT)
                | flag(count.is_some_and(|count| count.refunded), REFUNDED)
                | flag(count.is_some_and(|count| count.charged.is_some()), CHARGED)
                | flag(self.usage.is_some(), USAGE),
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
                | flag(self.details.is_some(), DETAILS),
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
        Some(Self { at, day, class, refunded: has(GIVEN_BACK), tokens, model, details })
    }
}

const CODE: u8 = 1;
const MODEL_ASKED: u8 = 1 << 1;
const STATUS: u8 = 1 << 2;
const HEAD: u8 = 1 << 3;
const FIRST_BYTE: u8 = 1 << 4;

impl<'a> Details<'a> {
    fn new(event: &'a UsageEvent) -> Self {
        Self {
            method: event.method.as_str(),
            path: plain_path(&event.path).into(),
            outcome: event.outcome.as_str(),
            code: event.outcome.reason().or(event.fault),
            model_asked: event.model_asked.as_deref(),
            status: event.status,
            units: event.units,
            bytes_in: event.bytes_in,
            bytes_out: event.bytes_out,
            time_to_head: event.time_to_head,
            time_to_first_byte: event.time_to_first_byte,
            duration: event.duration,
        }
    }

    fn encode(&self, out: &mut Vec<u8>) {
        out.put_u8(
            flag(self.code.is_some(), CODE)
                | flag(self.model_asked.is_some(), MODEL_ASKED)
                | flag(self.status.is_some(), STATUS)
                | flag(self.time_to_head.is_some(), HEAD)
                | flag(self.time_to_first_byte.is_some(), FIRST_BYTE),
        );
        put_text(out, self.method);
        put_text(out, &self.path);
        put_text(out, self.outcome);
        self.code.into_iter().for_each(|code| put_text(out, code));
        self.model_asked.into_iter().for_each(|model| put_text(out, model));
        self.status.into_iter().for_each(|status| out.put_u16_le(status));
        out.put_u32_le(self.units);
        out.put_u64_le(self.bytes_in);
        out.put_u64_le(self.bytes_out);
        put_time(out, self.duration);
        self.time_to_head.into_iter().for_each(|time| put_time(out, time));
        self.time_to_first_byte.into_iter().for_each(|time| put_time(out, time));
    }

    fn decode(bytes: &mut &'a [u8]) -> Option<Self> {
        let flags = bytes.try_get_u8().ok()?;
        let has = |flag| flags & flag != 0;
        let (method, path, outcome) = (get_text(bytes)?, get_text(bytes)?, get_text(bytes)?);
        Some(Self {
            method,
            path: path.into(),
            outcome,
            code: if has(CODE) { Some(get_text(bytes)?) } else { None },
            model_asked: if has(MODEL_ASKED) { Some(get_text(bytes)?) } else { None },
            status: if has(STATUS) { Some(bytes.try_get_u16_le().ok()?) } else { None },
            units: bytes.try_get_u32_le().ok()?,
            bytes_in: bytes.try_get_u64_le().ok()?,
            bytes_out: bytes.try_get_u64_le().ok()?,
            duration: get_time(bytes)?,
            time_to_head: if has(HEAD) { Some(get_time(bytes)?) } else { None },
            time_to_first_byte: if has(FIRST_BYTE) { Some(get_time(bytes)?) } else { None },
        })
    }
}

fn put_time(out: &mut Vec<u8>, time: Duration) {
    out.put_u64_le(u64::try_from(time.as_micros()).unwrap_or(u64::MAX));
}

fn get_time(bytes: &mut &[u8]) -> Option<Duration> {
    bytes.try_get_u64_le().ok().map(Duration::from_micros)
}

fn flag(set: bool, flag: u8) -> u8 {
    if set { flag } else { 0 }
}

fn put_text(out: &mut Vec<u8>, text: &str) {
    out.put_u64_le(text.len() as u64);
    out.put_slice(text.as_bytes());
}

fn get_text<'a>(bytes: &mut &'a [u8]) -> Option<&'a str> {
    let length = usize::try_from(bytes.try_get_u64_le().ok()?).ok()?;
    let (text, rest) = bytes.split_at_checked(length)?;
    *bytes = rest;
    std::str::from_utf8(text).ok()
}

fn put_day(out: &mut Vec<u8>, day: Day) {
    let date = day.date();
    out.put_i16_le(date.year());
    out.put_i8(date.month());
    out.put_i8(date.day());
}

fn get_day(bytes: &mut &[u8]) -> Option<Day> {
    let year = bytes.try_get_i16_le().ok()?;
    let (month, day) = (bytes.try_get_i8().ok()?, bytes.try_get_i8().ok()?);
    Date::new(year, month, day).ok().map(Day::from_date)
}

pub(crate) fn unix_millis(at: SystemTime) -> i64 {
    let millis = at.duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
    i64::try_from(millis).unwrap_or(i64::MAX)
}

pub(crate) fn from_unix_millis(millis: i64) -> SystemTime {
    UNIX_EPOCH + Duration::from_millis(u64::try_from(millis).unwrap_or_default())
}

#[cfg(test)]
mod tests {
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
