//! One record, and how it is written.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::{Buf, BufMut};
use jiff::civil::Date;

use crate::{
    clock::Day,
    key::KeyId,
    store::{Outcome, Tokens, UsageEvent, UsageFigures, counter::Origin},
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
        }
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
                | flag(self.model.is_some(), MODEL),
        );
        out.put_u8(self.class as u8);
        out.put_i64_le(self.at);
        put_day(out, self.day);
        if let Some(tokens) = self.tokens {
            out.put_u64_le(tokens.prompt);
            out.put_u64_le(tokens.completion);
            out.put_u64_le(tokens.total);
        }
        if let Some(model) = self.model {
            put_text(out, model);
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
        let tokens = if flags & TOKENS != 0 {
            let mut number = || bytes.try_get_u64_le().ok();
            Some(Tokens::new(number()?, number()?, number()?))
        } else {
            None
        };
        let model = if flags & MODEL != 0 { Some(get_text(bytes)?) } else { None };
        Some(Self { at, day, class, refunded: flags & GIVEN_BACK != 0, tokens, model })
    }
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
                tokens: Some(Tokens::new(1, 2, 3)),
                model: Some("deepseek-chat"),
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
