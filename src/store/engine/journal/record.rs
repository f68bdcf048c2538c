//! Records and their encoding (docs/journal-format.md).

use std::{borrow::Cow, time::Duration};

use bytes::{Buf, BufMut};
use http::Method;
use jiff::civil::Date;

use crate::{
    clock::{Day, from_unix_millis, unix_millis},
    key::KeyId,
    store::{
        RequestOutcome, RequestRecord, Tokens, UsageEvent, UsageFigures,
        counter::{CounterKey, Origin},
        plain_path,
    },
};

/// One entry of the journal.
#[derive(Clone, Debug, PartialEq)]
#[expect(clippy::large_enum_variant, reason = "one at a time is on the stack")]
pub(crate) enum Record<'a> {
    /// Change of a counter.
    Count { key: &'a CounterKey, change: CountChange },
    /// Usage entry of a request.
    Usage { key: &'a KeyId, entry: UsageEntry<'a> },
    /// Durable commit of the database.
    Commit(Commit),
    /// Last record of a segment that is followed by another segment.
    Rotated,
}

/// State of the database's commits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Commit {
    /// Number of the last durable commit.
    pub(crate) number: u64,
    /// Number of the last commit that was in the database file when the current WAL started.
    pub(crate) checkpointed: u64,
}

/// Change of the counter of one day.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct CountChange {
    pub(crate) origin: Origin,
    /// Time of the use, in Unix milliseconds, if units were used.
    pub(crate) used_at: Option<i64>,
    /// Number of units used; negative if units were refunded.
    pub(crate) used: i64,
    /// Refunded units under `Refund::UpToLimit`.
    pub(crate) refunded: u64,
    /// New end of the lease: number of units granted for the day.
    pub(crate) granted: Option<u64>,
    /// Change of the number of open requests: 1 if one begins, -1 if one ends without a usage entry, or 0.
    pub(crate) open: i8,
}

impl CountChange {
    /// Returns an empty change of this day.
    pub(crate) fn of(origin: Origin) -> Self {
        Self { origin, used_at: None, used: 0, refunded: 0, granted: None, open: 0 }
    }
}

const COUNT: u8 = 1;
const USAGE: u8 = 2;
const COMMIT: u8 = 3;
const ROTATED: u8 = 4;

const USED_AT: u8 = 1;
const GRANTED: u8 = 1 << 1;

impl<'a> Record<'a> {
    /// Returns the kind of the record, for its frame.
    pub(super) fn kind(&self) -> u8 {
        match self {
            Self::Count { .. } => COUNT,
            Self::Usage { .. } => USAGE,
            Self::Commit(_) => COMMIT,
            Self::Rotated => ROTATED,
        }
    }

    /// Appends the record's payload to `out`.
    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Self::Count { key, change } => {
                let CountChange { origin, used_at, used, refunded, granted, open } = change;
                out.put_u8(flag(used_at.is_some(), USED_AT) | flag(granted.is_some(), GRANTED));
                put_text(out, key.quota.as_str());
                put_text(out, key.subject.as_str());
                put_day(out, origin.day);
                out.put_u32_le(origin.epoch);
                out.put_i64_le(*used);
                out.put_u64_le(*refunded);
                out.put_i8(*open);
                used_at.iter().for_each(|at| out.put_i64_le(*at));
                granted.iter().for_each(|granted| out.put_u64_le(*granted));
            }
            Self::Usage { key, entry } => {
                put_text(out, key.as_str());
                entry.encode(out);
            }
            Self::Commit(Commit { number, checkpointed }) => {
                out.put_u64_le(*number);
                out.put_u64_le(*checkpointed);
            }
            Self::Rotated => {}
        }
    }

    /// Decodes a record of this kind and passes it to `each`. Returns `None` if `bytes` are not exactly one
    /// record.
    pub(super) fn decode(
        kind: u8,
        mut bytes: &[u8],
        each: &mut dyn FnMut(Record<'_>),
    ) -> Option<()> {
        let bytes = &mut bytes;
        match kind {
            COUNT => {
                let flags = bytes.try_get_u8().ok()?;
                let quota = get_text(bytes)?.parse().ok()?;
                let key = CounterKey { quota, subject: KeyId::new(get_text(bytes)?) };
                let origin = Origin { day: get_day(bytes)?, epoch: bytes.try_get_u32_le().ok()? };
                let change = CountChange {
                    origin,
                    used: bytes.try_get_i64_le().ok()?,
                    refunded: bytes.try_get_u64_le().ok()?,
                    open: bytes.try_get_i8().ok()?,
                    used_at: match flags & USED_AT {
                        0 => None,
                        _ => Some(bytes.try_get_i64_le().ok()?),
                    },
                    granted: match flags & GRANTED {
                        0 => None,
                        _ => Some(bytes.try_get_u64_le().ok()?),
                    },
                };
                let record = Record::Count { key: &key, change };
                bytes.is_empty().then(|| each(record))
            }
            USAGE => {
                let key = KeyId::new(get_text(bytes)?);
                let entry = UsageEntry::decode(bytes)?;
                bytes.is_empty().then(|| each(Record::Usage { key: &key, entry }))
            }
            COMMIT => {
                let number = bytes.try_get_u64_le().ok()?;
                let checkpointed = bytes.try_get_u64_le().ok()?;
                bytes.is_empty().then(|| each(Record::Commit(Commit { number, checkpointed })))
            }
            ROTATED => bytes.is_empty().then(|| each(Record::Rotated)),
            _ => None,
        }
    }
}

/// Usage entry of a request.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct UsageEntry<'a> {
    /// Time at which the request was received, in Unix milliseconds.
    pub(crate) at: i64,
    /// Day of `at` in the calendar that was configured then.
    pub(crate) day: Day,
    pub(crate) class: Class,
    pub(crate) refunded: bool,
    pub(crate) tokens: Option<Tokens>,
    pub(crate) model: Option<&'a str>,
    /// Whether this entry ends an open request.
    pub(crate) closes: bool,
    /// Fields of the single request, if it is kept.
    pub(crate) details: Option<Details<'a>>,
}

/// Outcome of a request for the usage figures.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Class {
    Succeeded = 1,
    Failed = 2,
    Rejected = 3,
}

const REFUNDED: u8 = 1;
const TOKENS: u8 = 1 << 1;
const MODEL: u8 = 1 << 2;
const CACHED: u8 = 1 << 3;
const REASONING: u8 = 1 << 4;
const DETAILS: u8 = 1 << 5;
const CLOSES: u8 = 1 << 6;

impl<'a> UsageEntry<'a> {
    pub(crate) fn new(event: &'a UsageEvent, day: Day, closes: bool) -> Self {
        let class = match event.outcome {
            RequestOutcome::Succeeded => Class::Succeeded,
            RequestOutcome::Failed | RequestOutcome::ClientGone => Class::Failed,
            RequestOutcome::Rejected => Class::Rejected,
        };
        let (refunded, tokens) = (event.refunded, event.tokens);
        Self {
            at: unix_millis(event.at),
            day,
            class,
            refunded,
            tokens,
            model: event.model.as_deref(),
            closes,
            details: None,
        }
    }

    /// Adds the fields of the single request.
    pub(crate) fn with_details(self, event: &'a UsageEvent) -> Self {
        Self { details: Some(Details::new(event)), ..self }
    }

    /// Returns the row of the single request, if it is kept.
    pub(crate) fn record(&self, id: &KeyId) -> Option<RequestRecord> {
        let details = self.details.as_ref()?;
        let mut event = UsageEvent::new(from_unix_millis(self.at));
        event.key_id = Some(id.clone());
        event.method = details.method.clone();
        event.path = details.path.to_string();
        event.status = details.status;
        event.outcome = details.outcome;
        event.code = details.code.clone().map(|code| code.into_owned().into());
        event.units = details.units;
        event.refunded = self.refunded;
        event.requested_model = details.requested_model.map(str::to_owned);
        event.request_id = details.request_id.map(str::to_owned);
        event.model = self.model.map(str::to_owned);
        event.tokens = self.tokens;
        event.bytes_in = details.bytes_in;
        event.bytes_out = details.bytes_out;
        event.time_to_head = details.time_to_head;
        event.time_to_first_byte = details.time_to_first_byte;
        event.duration = Some(details.duration);
        RequestRecord::new(0, event)
    }

    pub(crate) fn figures(&self) -> UsageFigures {
        UsageFigures {
            requests: (self.class != Class::Rejected).into(),
            succeeded: (self.class == Class::Succeeded).into(),
            failed: (self.class == Class::Failed).into(),
            refunded: (self.refunded && self.class != Class::Rejected).into(),
            rejected: (self.class == Class::Rejected).into(),
            tokens_unknown: (self.class == Class::Succeeded && self.tokens.is_none()).into(),
            tokens: self.tokens.unwrap_or_default(),
        }
    }

    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        out.put_u8(
            flag(self.refunded, REFUNDED)
                | flag(self.tokens.is_some(), TOKENS)
                | flag(self.model.is_some(), MODEL)
                | flag(self.tokens.is_some_and(|tokens| tokens.cached.is_some()), CACHED)
                | flag(self.tokens.is_some_and(|tokens| tokens.reasoning.is_some()), REASONING)
                | flag(self.details.is_some(), DETAILS)
                | flag(self.closes, CLOSES),
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

    pub(super) fn decode(bytes: &mut &'a [u8]) -> Option<Self> {
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
            let sums = Tokens::new(number()?, number()?, number()?);
            let cached = if has(CACHED) { Some(number()?) } else { None };
            let reasoning = if has(REASONING) { Some(number()?) } else { None };
            Some(Tokens { cached, reasoning, ..sums })
        } else {
            None
        };
        let model = if has(MODEL) { Some(get_text(bytes)?) } else { None };
        let details = if has(DETAILS) { Some(Details::decode(bytes)?) } else { None };
        let (refunded, closes) = (has(REFUNDED), has(CLOSES));
        Some(Self { at, day, class, refunded, tokens, model, closes, details })
    }
}

/// Fields of a request in the table `requests`.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Details<'a> {
    pub(super) method: Method,
    pub(super) path: Cow<'a, str>,
    pub(super) outcome: RequestOutcome,
    pub(super) code: Option<Cow<'a, str>>,
    pub(super) requested_model: Option<&'a str>,
    pub(super) request_id: Option<&'a str>,
    pub(super) status: Option<u16>,
    pub(super) units: u32,
    pub(super) bytes_in: u64,
    pub(super) bytes_out: u64,
    pub(super) time_to_head: Option<Duration>,
    pub(super) time_to_first_byte: Option<Duration>,
    pub(super) duration: Duration,
}

const CODE: u8 = 1;
const REQUESTED_MODEL: u8 = 1 << 1;
const STATUS: u8 = 1 << 2;
const HEAD: u8 = 1 << 3;
const FIRST_BYTE: u8 = 1 << 4;
const REQUEST_ID: u8 = 1 << 5;

impl<'a> Details<'a> {
    pub(super) fn new(event: &'a UsageEvent) -> Self {
        Self {
            method: event.method.clone(),
            path: plain_path(&event.path).into(),
            outcome: event.outcome,
            code: event.code.clone(),
            requested_model: event.requested_model.as_deref(),
            request_id: event.request_id.as_deref(),
            status: event.status,
            units: event.units,
            bytes_in: event.bytes_in,
            bytes_out: event.bytes_out,
            time_to_head: event.time_to_head,
            time_to_first_byte: event.time_to_first_byte,
            duration: event.duration.unwrap_or_default(),
        }
    }

    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        out.put_u8(
            flag(self.code.is_some(), CODE)
                | flag(self.requested_model.is_some(), REQUESTED_MODEL)
                | flag(self.status.is_some(), STATUS)
                | flag(self.time_to_head.is_some(), HEAD)
                | flag(self.time_to_first_byte.is_some(), FIRST_BYTE)
                | flag(self.request_id.is_some(), REQUEST_ID),
        );
        put_text(out, self.method.as_str());
        put_text(out, &self.path);
        put_text(out, self.outcome.as_str());
        self.code.iter().for_each(|code| put_text(out, code));
        self.requested_model.into_iter().for_each(|model| put_text(out, model));
        self.status.into_iter().for_each(|status| out.put_u16_le(status));
        out.put_u32_le(self.units);
        out.put_u64_le(self.bytes_in);
        out.put_u64_le(self.bytes_out);
        put_time(out, self.duration);
        self.time_to_head.into_iter().for_each(|time| put_time(out, time));
        self.time_to_first_byte.into_iter().for_each(|time| put_time(out, time));
        self.request_id.into_iter().for_each(|id| put_text(out, id));
    }

    pub(super) fn decode(bytes: &mut &'a [u8]) -> Option<Self> {
        let flags = bytes.try_get_u8().ok()?;
        let has = |flag| flags & flag != 0;
        let method = get_text(bytes)?.parse().ok()?;
        let path = get_text(bytes)?;
        let outcome = RequestOutcome::from_name(get_text(bytes)?)?;
        Some(Self {
            method,
            path: path.into(),
            outcome,
            code: if has(CODE) { Some(get_text(bytes)?.into()) } else { None },
            requested_model: if has(REQUESTED_MODEL) { Some(get_text(bytes)?) } else { None },
            status: if has(STATUS) { Some(bytes.try_get_u16_le().ok()?) } else { None },
            units: bytes.try_get_u32_le().ok()?,
            bytes_in: bytes.try_get_u64_le().ok()?,
            bytes_out: bytes.try_get_u64_le().ok()?,
            duration: get_time(bytes)?,
            time_to_head: if has(HEAD) { Some(get_time(bytes)?) } else { None },
            time_to_first_byte: if has(FIRST_BYTE) { Some(get_time(bytes)?) } else { None },
            request_id: if has(REQUEST_ID) { Some(get_text(bytes)?) } else { None },
        })
    }
}

fn flag(set: bool, flag: u8) -> u8 {
    if set { flag } else { 0 }
}

pub(super) fn put_text(out: &mut Vec<u8>, text: &str) {
    out.put_u64_le(text.len() as u64);
    out.put_slice(text.as_bytes());
}

pub(super) fn get_text<'a>(bytes: &mut &'a [u8]) -> Option<&'a str> {
    let length = usize::try_from(bytes.try_get_u64_le().ok()?).ok()?;
    let (text, rest) = bytes.split_at_checked(length)?;
    *bytes = rest;
    std::str::from_utf8(text).ok()
}

pub(super) fn put_day(out: &mut Vec<u8>, day: Day) {
    let date = day.date();
    out.put_i16_le(date.year());
    out.put_i8(date.month());
    out.put_i8(date.day());
}

pub(super) fn get_day(bytes: &mut &[u8]) -> Option<Day> {
    let year = bytes.try_get_i16_le().ok()?;
    let (month, day) = (bytes.try_get_i8().ok()?, bytes.try_get_i8().ok()?);
    Date::new(year, month, day).ok().map(Day::from_date)
}

pub(super) fn put_time(out: &mut Vec<u8>, time: Duration) {
    out.put_u64_le(u64::try_from(time.as_micros()).unwrap_or(u64::MAX));
}

pub(super) fn get_time(bytes: &mut &[u8]) -> Option<Duration> {
    bytes.try_get_u64_le().ok().map(Duration::from_micros)
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// Returns a record of each kind, with all optional fields set.
    pub(in super::super) fn full(key: &CounterKey) -> [Record<'_>; 4] {
        let day = "2026-11-22".parse().unwrap();
        let change = CountChange {
            used_at: Some(1_795_348_800_123),
            used: -1,
            refunded: 1,
            granted: Some(12),
            open: -1,
            origin: Origin { day, epoch: 7 },
        };
        let entry = UsageEntry {
            at: 1_795_348_800_123,
            day,
            class: Class::Failed,
            refunded: true,
            tokens: Some(Tokens { cached: Some(4), reasoning: Some(5), ..Tokens::new(1, 2, 3) }),
            model: Some("deepseek-chat"),
            closes: true,
            details: Some(Details {
                method: Method::POST,
                path: "/v1/chat".into(),
                outcome: RequestOutcome::Failed,
                code: Some("upstream_failed".into()),
                requested_model: Some("m"),
                request_id: Some("5b1c"),
                status: Some(500),
                units: 0,
                bytes_in: 1 << 40,
                bytes_out: 7,
                time_to_head: Some(Duration::from_micros(8)),
                time_to_first_byte: Some(Duration::from_micros(9)),
                duration: Duration::from_micros(10),
            }),
        };
        [
            Record::Count { key, change },
            Record::Usage { key: &key.subject, entry },
            Record::Commit(Commit { number: 1 << 40, checkpointed: 7 }),
            Record::Rotated,
        ]
    }

    fn encoded(record: &Record<'_>) -> Vec<u8> {
        let mut bytes = Vec::new();
        record.encode(&mut bytes);
        bytes
    }

    #[test]
    fn record_round_trips() {
        let id = CounterKey::daily(KeyId::from("key_0123456789abcdef"));
        let day = "2026-11-22".parse().unwrap();
        let change = CountChange::of(Origin { day, epoch: 0 });
        let bare = Record::Count { key: &id, change };
        for record in full(&id).into_iter().chain([bare]) {
            let mut read = 0;
            Record::decode(record.kind(), &encoded(&record), &mut |found| {
                assert_eq!(found, record);
                read += 1;
            });
            assert_eq!(read, 1);
        }
    }

    #[test]
    fn truncated_record_is_rejected() {
        let id = CounterKey::daily(KeyId::from("key_0123456789abcdef"));
        for record in full(&id) {
            let bytes = encoded(&record);
            let is_record =
                |bytes: &[u8]| Record::decode(record.kind(), bytes, &mut |_| ()).is_some();
            for length in 0..bytes.len() {
                assert!(!is_record(&bytes[..length]), "{length} bytes of {record:?}");
            }
            assert!(!is_record(&[bytes, vec![0]].concat()), "a byte more");
        }
    }
}
