//! Records and their encoding (docs/journal-format.md).

use std::{borrow::Cow, io};

use postcard::ser_flavors::Flavor;
use serde::{Deserialize, Serialize};

use crate::{
    clock::Day,
    store::{
        UsageEvent,
        counter::{CounterKey, Origin},
    },
};

/// Maximum number of bytes that fields of later versions may be missing at the end of a payload.
const MAX_MISSING: usize = 64;

/// One entry of the journal.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) enum Record<'a> {
    /// Change of a counter.
    Count {
        #[serde(with = "counter_key")]
        key: Cow<'a, CounterKey>,
        change: CountChange,
    },
    /// Usage of a request that has ended.
    Usage(Box<UsageEntry>),
    /// Durable commit of the database.
    Commit(Commit),
    /// Last record of a segment that is followed by another segment.
    Rotated,
}

/// State of the database's commits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Commit {
    /// Number of the last durable commit.
    pub(crate) number: u64,
    /// Number of the last commit that was in the database file when the current WAL started.
    pub(crate) checkpointed: u64,
}

/// Change of the counter of one period.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct CountChange {
    #[serde(with = "origin")]
    pub(crate) origin: Origin,
    /// Time of the use, in Unix milliseconds, if units were used.
    pub(crate) used_at: Option<i64>,
    /// Number of units used; negative if units were refunded.
    pub(crate) used: i64,
    /// Refunded units under `Refund::UpToLimit`.
    pub(crate) refunded: u64,
    /// New end of the lease: number of units granted for the period.
    pub(crate) granted: Option<u64>,
    /// Change of the number of open requests: 1 if one begins, -1 if one ends without a usage entry, or 0.
    pub(crate) open: i8,
    // Absent if empty, as before it was there.
    #[serde(skip_serializing_if = "Further::is_empty")]
    pub(crate) further: Further,
}

/// Parts of a change that most changes lack.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Further {
    /// Day on which the request begins, if the counted period is longer than a day.
    #[serde(with = "optional_day")]
    pub(crate) opened_on: Option<Day>,
    /// Use of units that a shared ledger has granted.
    pub(crate) share: Option<ShareUse>,
    /// Changes of other counters by the same request.
    pub(crate) beside: Vec<ChangeBeside>,
}

/// Change of a counter in the record of another one's.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct ChangeBeside {
    #[serde(with = "counter_key")]
    pub(crate) key: Cow<'static, CounterKey>,
    #[serde(with = "WholeChange")]
    pub(crate) change: CountChange,
}

/// [`CountChange`] where it is not the last part of a payload: nothing is left out.
#[derive(Serialize, Deserialize)]
#[serde(remote = "CountChange")]
struct WholeChange {
    #[serde(with = "origin")]
    origin: Origin,
    used_at: Option<i64>,
    used: i64,
    refunded: u64,
    granted: Option<u64>,
    open: i8,
    further: Further,
}

/// Use of the units of one counter that a shared ledger has granted to a node.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct ShareUse {
    /// Number of units that the node has used in the period, including those that were given back.
    pub(crate) spent: u64,
    /// Number of units that this change gives back to all nodes.
    pub(crate) returned: u64,
}

impl Further {
    fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// Usage of a request that has ended.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct UsageEntry {
    /// Day of the request in the calendar that was configured then.
    #[serde(with = "day")]
    pub(crate) day: Day,
    /// Whether this ends an open request.
    pub(crate) closes: bool,
    /// Whether the request gets a row of its own; if not, the event has only what is summed up.
    pub(crate) keeps_row: bool,
    // At the end, as fields may be appended to it.
    pub(crate) event: UsageEvent,
}

impl<'a> Record<'a> {
    /// Creates the record of a change of this counter.
    pub(crate) fn count(key: &'a CounterKey, change: CountChange) -> Self {
        Self::Count { key: Cow::Borrowed(key), change }
    }

    /// Appends the record's payload to `out`.
    pub(super) fn encode(&self, out: &mut Vec<u8>) -> io::Result<()> {
        postcard::serialize_with_flavor(self, Appended(out)).map_err(io::Error::other)
    }

    /// Decodes a payload, or returns `None` if it is not exactly one record.
    pub(super) fn decode(payload: &[u8]) -> Option<Record<'static>> {
        // Zeros are the `None`, 0 or `false` of fields that were appended after this was written.
        let padded = [payload, &[0; MAX_MISSING]].concat();
        let (record, rest) = postcard::take_from_bytes(&padded).ok()?;
        (rest.len() <= MAX_MISSING).then_some(record)
    }
}

/// Appends a payload to a buffer, without the `write_all` per byte of [`postcard::to_io`].
struct Appended<'a>(&'a mut Vec<u8>);

impl Flavor for Appended<'_> {
    type Output = ();

    fn try_push(&mut self, byte: u8) -> postcard::Result<()> {
        self.0.push(byte);
        Ok(())
    }

    fn try_extend(&mut self, bytes: &[u8]) -> postcard::Result<()> {
        match bytes {
            // Most integers are one byte, which costs less without a call to copy it.
            [byte] => self.0.push(*byte),
            _ => self.0.extend_from_slice(bytes),
        }
        Ok(())
    }

    fn finalize(self) -> postcard::Result<()> {
        Ok(())
    }
}

impl CountChange {
    /// Returns an empty change of this period.
    pub(crate) fn of(origin: Origin) -> Self {
        Self {
            origin,
            used_at: None,
            used: 0,
            refunded: 0,
            granted: None,
            open: 0,
            further: Further::default(),
        }
    }
}

impl UsageEntry {
    /// Creates the entry of an event. Without a row it is reduced to what is summed up.
    pub(crate) fn new(event: UsageEvent, day: Day, closes: bool, keeps_row: bool) -> Self {
        let event = if keeps_row { event } else { summed(event) };
        Self { day, closes, keeps_row, event }
    }
}

/// Reduces an event to the fields that are summed up.
fn summed(event: UsageEvent) -> UsageEvent {
    let UsageEvent { key_id, at, outcome, refunded, model, tokens, .. } = event;
    UsageEvent { key_id, outcome, refunded, model, tokens, ..UsageEvent::new(at) }
}

mod counter_key {
    use std::borrow::Cow;

    use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error};

    use crate::{key::KeyId, store::counter::CounterKey};

    pub(super) fn serialize<S: Serializer>(key: &CounterKey, to: S) -> Result<S::Ok, S::Error> {
        (key.quota.as_str(), &key.subject).serialize(to)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        from: D,
    ) -> Result<Cow<'static, CounterKey>, D::Error> {
        let (quota, subject) = <(&str, KeyId)>::deserialize(from)?;
        Ok(Cow::Owned(CounterKey { quota: quota.parse().map_err(Error::custom)?, subject }))
    }
}

mod origin {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    use super::{Day, Origin, day};

    #[derive(Serialize, Deserialize)]
    struct Fields(#[serde(with = "day")] Day, u32);

    pub(super) fn serialize<S: Serializer>(origin: &Origin, to: S) -> Result<S::Ok, S::Error> {
        Fields(origin.day, origin.epoch).serialize(to)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Origin, D::Error> {
        Fields::deserialize(from).map(|Fields(day, epoch)| Origin { day, epoch })
    }
}

mod day {
    use jiff::civil::Date;
    use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error};

    use super::Day;

    pub(super) fn serialize<S: Serializer>(day: &Day, to: S) -> Result<S::Ok, S::Error> {
        let date = day.date();
        (date.year(), date.month(), date.day()).serialize(to)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Day, D::Error> {
        let (year, month, day) = Deserialize::deserialize(from)?;
        Date::new(year, month, day).map(Day::from_date).map_err(Error::custom)
    }
}

mod optional_day {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    use super::{Day, day};

    #[derive(Serialize, Deserialize)]
    struct Field(#[serde(with = "day")] Day);

    pub(super) fn serialize<S: Serializer>(day: &Option<Day>, to: S) -> Result<S::Ok, S::Error> {
        day.map(Field).serialize(to)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Day>, D::Error> {
        Ok(Option::deserialize(from)?.map(|Field(day)| day))
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use http::Method;

    use super::*;
    use crate::{
        key::KeyId,
        store::{RequestOutcome, Tokens},
    };

    fn event() -> UsageEvent {
        let mut event = UsageEvent::new(UNIX_EPOCH + Duration::from_millis(1_795_348_800_123));
        event.key_id = Some("key_0123456789abcdef".into());
        event
    }

    /// Returns a record of each kind, with all optional fields set that `tq-log-2` has.
    pub(in super::super) fn full(key: &CounterKey) -> [Record<'_>; 4] {
        let day = "2026-11-22".parse().unwrap();
        let change = CountChange {
            used_at: Some(1_795_348_800_123),
            used: -1,
            refunded: 1,
            granted: Some(12),
            open: -1,
            further: Further::default(),
            origin: Origin { day, epoch: 7 },
        };
        let event = UsageEvent {
            request_id: Some("5b1c".into()),
            method: Method::POST,
            path: "/v1/chat".into(),
            status: Some(500),
            outcome: RequestOutcome::Failed,
            code: Some("upstream_failed".into()),
            units: 0,
            refunded: true,
            requested_model: Some("m".into()),
            model: Some("deepseek-chat".into()),
            tokens: Some(Tokens { cached: Some(4), reasoning: Some(5), ..Tokens::new(1, 2, 3) }),
            bytes_in: 1 << 40,
            bytes_out: 7,
            time_to_head: Some(Duration::from_micros(8)),
            time_to_first_byte: Some(Duration::from_micros(9)),
            duration: Some(Duration::from_micros(10)),
            ..event()
        };
        [
            Record::count(key, change),
            Record::Usage(Box::new(UsageEntry::new(event, day, true, true))),
            Record::Commit(Commit { number: 1 << 40, checkpointed: 7 }),
            Record::Rotated,
        ]
    }

    fn encoded(record: &Record<'_>) -> Vec<u8> {
        let mut bytes = Vec::new();
        record.encode(&mut bytes).unwrap();
        bytes
    }

    #[test]
    fn record_round_trips() {
        let id = CounterKey::daily(KeyId::from("key_0123456789abcdef"));
        let day = "2026-11-22".parse().unwrap();
        let change = CountChange::of(Origin { day, epoch: 0 });
        let entries = RequestOutcome::ALL.into_iter().flat_map(|outcome| {
            let event = UsageEvent { outcome, ..event() };
            let entry = move |keeps_row| UsageEntry::new(event.clone(), day, false, keeps_row);
            [true, false].map(|keeps_row| Record::Usage(Box::new(entry(keeps_row))))
        });
        let opened_on = Some("2026-11-23".parse().unwrap());
        let share = Some(ShareUse { spent: 300, returned: 1 });
        let with = |opened_on, share| CountChange {
            further: Further { opened_on, share, ..Further::default() },
            ..change.clone()
        };
        let beside = |change| {
            let tokens = CounterKey { quota: "tokens/month".parse().unwrap(), ..id.clone() };
            ChangeBeside { key: Cow::Owned(tokens), change }
        };
        let several = [with(None, None), with(None, share), with(opened_on, None)];
        let mut together = with(opened_on, share);
        together.further.beside = several.map(beside).to_vec();
        let bare = [
            Record::count(&id, change.clone()),
            Record::count(&id, with(opened_on, None)),
            Record::count(&id, with(None, share)),
            Record::count(&id, with(opened_on, share)),
            Record::count(&id, together),
            Record::Commit(Commit::default()),
        ];
        for record in full(&id).into_iter().chain(bare).chain(entries) {
            assert_eq!(Record::decode(&encoded(&record)), Some(record));
        }
    }

    #[test]
    fn entry_without_a_row_holds_only_what_is_summed_up() {
        let id = CounterKey::daily(KeyId::from("key_0123456789abcdef"));
        let [_, Record::Usage(full), ..] = full(&id) else { unreachable!() };
        let entry = UsageEntry::new(full.event.clone(), full.day, true, false);
        let bytes = encoded(&Record::Usage(Box::new(entry)));
        let text = String::from_utf8_lossy(&bytes);
        assert!(text.contains("deepseek-chat") && text.contains("key_0123456789abcdef"));
        for absent in ["5b1c", "POST", "/v1/chat", "upstream_failed"] {
            assert!(!text.contains(absent), "{absent}");
        }
    }

    #[test]
    fn event_without_the_last_field_is_read() {
        let id = CounterKey::daily(KeyId::from("key_0123456789abcdef"));
        let [_, Record::Usage(mut entry), ..] = full(&id) else { unreachable!() };
        entry.event.duration = None;
        let mut bytes = encoded(&Record::Usage(entry.clone()));
        assert_eq!(bytes.pop(), Some(0));
        assert_eq!(Record::decode(&bytes), Some(Record::Usage(entry)));
    }

    #[test]
    fn change_of_a_daily_quota_has_the_bytes_that_it_had_before_there_were_months() {
        let id = CounterKey::daily(KeyId::from("a"));
        let day = "2026-11-22".parse().unwrap();
        let change = CountChange { used: 1, open: 1, ..CountChange::of(Origin { day, epoch: 0 }) };
        let bytes = encoded(&Record::count(&id, change));
        let (key, change): (&[u8], &[u8]) =
            (b"\x05daily\x01a", b"\xd4\x1f\x0b\x16\x00\x00\x02\x00\x00\x01");
        assert_eq!(bytes, [&[0][..], key, change].concat());
    }

    #[test]
    fn record_with_more_bytes_is_rejected() {
        let id = CounterKey::daily(KeyId::from("key_0123456789abcdef"));
        for mut record in full(&id) {
            if let Record::Count { change, .. } = &mut record {
                // Otherwise one more zero is its `None`.
                change.further.share = Some(ShareUse { spent: 1, returned: 0 });
            }
            assert_eq!(Record::decode(&[encoded(&record), vec![0]].concat()), None);
        }
        assert_eq!(Record::decode(&[]), None);
    }
}
