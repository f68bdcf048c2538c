//! One record, and how it is written.

use bytes::{Buf, BufMut};

use super::{
    usage_entry::UsageEntry,
    wire::{flag, get_day, get_text, put_day, put_text},
};
use crate::{key::KeyId, store::counter::Origin};

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
    /// Whether a request begins with it (1), ends without a usage entry (-1), or neither.
    pub(crate) open: i8,
}

impl CountChange {
    /// A change of this day that changes nothing yet.
    pub(crate) fn of(origin: Origin) -> Self {
        let (used_at, charged) = (None, None);
        Self { origin, used_at, used: 0, refunded: false, charged, open: 0 }
    }
}

const COUNT: u8 = 1;
const USED_AT: u8 = 1 << 1;
const REFUNDED: u8 = 1 << 2;
const CHARGED: u8 = 1 << 3;
const USAGE: u8 = 1 << 4;
const OPENS: u8 = 1 << 5;
const CLOSES: u8 = 1 << 6;

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
                | flag(count.is_some_and(|count| count.open > 0), OPENS)
                | flag(count.is_some_and(|count| count.open < 0), CLOSES),
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
                open: i8::from(has(OPENS)) - i8::from(has(CLOSES)),
            })
        } else {
            None
        };
        let usage = if has(USAGE) { Some(UsageEntry::decode(&mut bytes)?) } else { None };
        bytes.is_empty().then(|| each(Record { id: &id, count, usage }))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{
        super::{details::Details, usage_entry::Class},
        *,
    };
    use crate::store::Tokens;

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
                open: 1,
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
                closes: true,
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
