//! Segment format of versions up to 0.1, which is only read.

use std::borrow::Cow;

use bytes::Buf;

use super::{CountChange, Record, record::Further, v2};
use crate::{key::KeyId, store::counter::CounterKey};

pub(super) const MAGIC: &[u8; 8] = b"tq-log-1";
/// Length in bytes of the head: magic and number.
pub(super) const HEAD: u64 = 16;
/// Length in bytes of the frame of a record: length and checksum.
const FRAME: usize = 8;
/// Maximum length of a record, in bytes. A torn length field is rejected by it.
const MAX_RECORD: usize = 1 << 26;

const COUNT: u8 = 1;
const USED_AT: u8 = 1 << 1;
const REFUNDED: u8 = 1 << 2;
const GRANTED: u8 = 1 << 3;
const USAGE: u8 = 1 << 4;
const AWAITS_EVENT: u8 = 1 << 5;

/// Returns whether these bytes begin with the head of the segment of this number.
pub(super) fn is_head(bytes: &[u8], number: u64) -> bool {
    bytes.starts_with(&[MAGIC.as_slice(), &number.to_le_bytes()].concat())
}

/// Reads the leading records. Returns their length in bytes and whether the rest may be a torn write.
pub(super) fn read_records(
    bytes: &[u8],
    number: u64,
    each: &mut dyn FnMut(Record<'static>),
) -> (usize, bool) {
    let mut rest = bytes;
    while let Some(next) = read_record(rest, number, each) {
        rest = next;
    }
    (bytes.len() - rest.len(), is_torn(rest, number))
}

fn checksum(payload: &[u8], number: u64) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&number.to_le_bytes());
    hasher.update(payload);
    hasher.finalize()
}

fn read_record<'a>(
    mut bytes: &'a [u8],
    number: u64,
    each: &mut dyn FnMut(Record<'static>),
) -> Option<&'a [u8]> {
    let length = bytes.try_get_u32_le().ok()? as usize;
    let expected = bytes.try_get_u32_le().ok()?;
    let (payload, rest) = bytes.split_at_checked(length)?;
    let whole = (1..=MAX_RECORD).contains(&length) && checksum(payload, number) == expected;
    whole.then(|| decode(payload, each)).flatten().map(|()| rest)
}

/// Returns whether `bytes` are empty, or an incomplete record with no valid record after it.
fn is_torn(bytes: &[u8], number: u64) -> bool {
    let length = bytes.get(..4).map_or(usize::MAX, |mut length| length.get_u32_le() as usize);
    bytes.len() < FRAME.saturating_add(length)
        && (1..bytes.len()).all(|at| read_record(&bytes[at..], number, &mut |_| ()).is_none())
}

/// Decodes a payload, which has a change of a counter, a usage entry, or both.
fn decode(mut bytes: &[u8], each: &mut dyn FnMut(Record<'static>)) -> Option<()> {
    let flags = bytes.try_get_u8().ok()?;
    let has = |flag| flags & flag != 0;
    let id = KeyId::new(v2::text(&mut bytes)?);
    let mut change = None;
    if has(COUNT) {
        let origin = v2::origin(&mut bytes)?;
        let used = bytes.try_get_i8().ok()?;
        change = Some(CountChange {
            origin,
            used: used.into(),
            used_at: if has(USED_AT) { Some(bytes.try_get_i64_le().ok()?) } else { None },
            refunded: has(REFUNDED).into(),
            granted: if has(GRANTED) { Some(bytes.try_get_u64_le().ok()?) } else { None },
            open: if has(AWAITS_EVENT) { used } else { 0 },
            further: Further::default(),
        });
    }
    let entry = if has(USAGE) { Some(v2::usage(id.clone(), &mut bytes)?) } else { None };
    bytes.is_empty().then_some(())?;
    let key = || Cow::Owned(CounterKey::daily(id.clone()));
    change.into_iter().for_each(|change| each(Record::Count { key: key(), change }));
    entry.into_iter().for_each(|entry| each(Record::Usage(Box::new(entry))));
    Some(())
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use bytes::BufMut;

    use super::*;
    use crate::store::{RequestOutcome, UsageEvent, counter::Origin, engine::journal::UsageEntry};

    /// Returns one record, of a unit that was used and of a request that ended.
    fn segment() -> Vec<u8> {
        let day = |payload: &mut Vec<u8>| {
            payload.put_i16_le(2026);
            payload.extend([11, 22]);
        };
        let mut payload = vec![COUNT | USED_AT | GRANTED | AWAITS_EVENT | USAGE];
        payload.put_u64_le(5);
        payload.extend(b"alice");
        day(&mut payload);
        payload.put_u32_le(7);
        payload.put_i8(1);
        payload.put_i64_le(1_795_348_800_123);
        payload.put_u64_le(12);
        // Refunded, and succeeded.
        payload.extend([1, 1]);
        payload.put_i64_le(1_795_348_800_123);
        day(&mut payload);
        let mut bytes = Vec::new();
        bytes.put_u32_le(payload.len() as u32);
        bytes.put_u32_le(checksum(&payload, 3));
        bytes.extend(payload);
        bytes
    }

    #[test]
    fn records_of_an_older_version_are_read() {
        let day = "2026-11-22".parse().unwrap();
        let change = CountChange {
            used_at: Some(1_795_348_800_123),
            used: 1,
            granted: Some(12),
            open: 1,
            ..CountChange::of(Origin { day, epoch: 7 })
        };
        let event = UsageEvent {
            key_id: Some("alice".into()),
            outcome: RequestOutcome::Succeeded,
            refunded: true,
            ..UsageEvent::new(UNIX_EPOCH + Duration::from_millis(1_795_348_800_123))
        };
        let entry = UsageEntry::new(event, day, false, false);
        let key = Cow::Owned(CounterKey::daily("alice".into()));
        let expected = [Record::Count { key, change }, Record::Usage(Box::new(entry))];
        let record = segment();
        for torn in 0..record.len() {
            let bytes = [&record[..], &record[..torn]].concat();
            let mut read = Vec::new();
            let mut each = |record| read.push(record);
            assert_eq!(read_records(&bytes, 3, &mut each), (record.len(), true), "{torn}");
            assert_eq!(read, expected, "{torn}");
        }
        let mut damaged = [&record[..], &record[..]].concat();
        damaged[record.len() + 9] ^= 1;
        assert_eq!(read_records(&damaged, 3, &mut |_| ()), (record.len(), false));
    }
}
