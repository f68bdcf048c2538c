//! One record, and how it is written (docs/journal-format.md).

use bytes::{Buf, BufMut};

use super::{
    usage_entry::UsageEntry,
    wire::{flag, get_day, get_text, put_day, put_text},
};
use crate::{
    key::KeyId,
    store::engine::counter::{CounterKey, Origin},
};

/// One entry of the journal.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Record<'a> {
    /// What changes about a count.
    Count { key: &'a CounterKey, change: CountChange },
    /// What the ledger keeps of one request.
    Usage { key: &'a KeyId, entry: UsageEntry<'a> },
    /// A commit that the database has made durable.
    Commit(Commit),
    /// The last record of a segment that the next one follows.
    Rotated,
}

/// What is known of the database's commits once one of them is durable.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Commit {
    /// Its number.
    pub(crate) number: u64,
    /// The commits up to this one are in the database's file itself: its WAL was begun behind them.
    pub(crate) checkpointed: u64,
}

/// A change of one day's count.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct CountChange {
    pub(crate) origin: Origin,
    /// When units were used, in Unix milliseconds.
    pub(crate) used_at: Option<i64>,
    /// Units used, or given back if it is negative.
    pub(crate) used: i64,
    /// Units given back that count against the most that may be.
    pub(crate) refunded: u64,
    /// Up to which number of units the day is granted ahead from now on.
    pub(crate) granted: Option<u64>,
    /// Whether a request begins with it (1), ends without a usage entry (-1), or neither.
    pub(crate) open: i8,
}

impl CountChange {
    /// A change of this day that changes nothing yet.
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
    /// Which kind of record it is, for the frame around it.
    pub(super) fn kind(&self) -> u8 {
        match self {
            Self::Count { .. } => COUNT,
            Self::Usage { .. } => USAGE,
            Self::Commit(_) => COMMIT,
            Self::Rotated => ROTATED,
        }
    }

    /// Appends the record's payload.
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

    /// Reads a record of this kind from all of `bytes` and hands it on; `None` if they are none.
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

#[cfg(test)]
pub(super) mod tests {
    use std::time::Duration;

    use super::{
        super::{details::Details, usage_entry::Class},
        *,
    };
    use crate::store::{RequestOutcome, Tokens};

    /// A record of each kind, with all that it can hold.
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
                method: http::Method::POST,
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
    fn a_record_is_read_as_it_was_written() {
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
    fn a_part_of_a_record_is_none() {
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
