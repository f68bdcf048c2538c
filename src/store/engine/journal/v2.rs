//! Payloads of segments `tq-log-2`, which are only read.

use std::{borrow::Cow, time::Duration};

use bytes::Buf;
use jiff::civil::Date;

use super::{Commit, CountChange, Record, UsageEntry};
use crate::{
    clock::{Day, from_unix_millis},
    key::KeyId,
    store::{
        RequestOutcome, Tokens, UsageEvent,
        counter::{CounterKey, Origin},
    },
};

/// Decodes a payload of this kind, or returns `None` if it is not exactly one record.
pub(super) fn decode(kind: u8, mut payload: &[u8]) -> Option<Record<'static>> {
    let bytes = &mut payload;
    let record = match kind {
        1 => count(bytes)?,
        2 => {
            let key = KeyId::new(text(bytes)?);
            Record::Usage(Box::new(usage(key, bytes)?))
        }
        3 => Record::Commit(Commit { number: u64(bytes)?, checkpointed: u64(bytes)? }),
        4 => Record::Rotated,
        _ => return None,
    };
    bytes.is_empty().then_some(record)
}

fn count(bytes: &mut &[u8]) -> Option<Record<'static>> {
    let [has_used_at, has_granted, ..] = flags(bytes)?;
    let quota = text(bytes)?.parse().ok()?;
    let key = CounterKey { quota, subject: KeyId::new(text(bytes)?) };
    let mut change = CountChange::of(origin(bytes)?);
    change.used = i64(bytes)?;
    change.refunded = u64(bytes)?;
    change.open = bytes.try_get_i8().ok()?;
    change.used_at = optional(has_used_at, bytes, i64)?;
    change.granted = optional(has_granted, bytes, u64)?;
    Some(Record::Count { key: Cow::Owned(key), change })
}

/// Reads a usage entry of this key.
pub(super) fn usage(key: KeyId, bytes: &mut &[u8]) -> Option<UsageEntry> {
    let [refunded, has_tokens, has_model, has_cached, has_reasoning, keeps_row, closes, _] =
        flags(bytes)?;
    let outcome = match bytes.try_get_u8().ok()? {
        1 => RequestOutcome::Succeeded,
        2 => RequestOutcome::Failed,
        3 => RequestOutcome::Rejected,
        _ => return None,
    };
    let mut event = UsageEvent::new(from_unix_millis(i64(bytes)?));
    (event.key_id, event.outcome, event.refunded) = (Some(key), outcome, refunded);
    let day = day(bytes)?;
    if has_tokens {
        let sums = Tokens::new(u64(bytes)?, u64(bytes)?, u64(bytes)?);
        let cached = optional(has_cached, bytes, u64)?;
        let reasoning = optional(has_reasoning, bytes, u64)?;
        event.tokens = Some(Tokens { cached, reasoning, ..sums });
    }
    event.model = optional(has_model, bytes, text)?.map(str::to_owned);
    if keeps_row {
        row(&mut event, bytes)?;
    }
    Some(UsageEntry { day, closes, keeps_row, event })
}

/// Reads the fields that only the row of a request has.
fn row(event: &mut UsageEvent, bytes: &mut &[u8]) -> Option<()> {
    let [has_code, has_model, has_status, has_head, has_first_byte, has_id, ..] = flags(bytes)?;
    event.method = text(bytes)?.parse().ok()?;
    event.path = text(bytes)?.to_owned();
    event.outcome = RequestOutcome::from_name(text(bytes)?)?;
    event.code = optional(has_code, bytes, text)?.map(|code| code.to_owned().into());
    event.requested_model = optional(has_model, bytes, text)?.map(str::to_owned);
    event.status = optional(has_status, bytes, |bytes| bytes.try_get_u16_le().ok())?;
    event.units = bytes.try_get_u32_le().ok()?;
    event.bytes_in = u64(bytes)?;
    event.bytes_out = u64(bytes)?;
    event.duration = Some(duration(bytes)?);
    event.time_to_head = optional(has_head, bytes, duration)?;
    event.time_to_first_byte = optional(has_first_byte, bytes, duration)?;
    event.request_id = optional(has_id, bytes, text)?.map(str::to_owned);
    Some(())
}

/// Reads a byte of flags, the lowest bit first.
fn flags(bytes: &mut &[u8]) -> Option<[bool; 8]> {
    let flags = bytes.try_get_u8().ok()?;
    Some(std::array::from_fn(|bit| flags & 1 << bit != 0))
}

fn optional<'a, T>(
    is_present: bool,
    bytes: &mut &'a [u8],
    read: impl FnOnce(&mut &'a [u8]) -> Option<T>,
) -> Option<Option<T>> {
    if is_present { read(bytes).map(Some) } else { Some(None) }
}

fn u64(bytes: &mut &[u8]) -> Option<u64> {
    bytes.try_get_u64_le().ok()
}

fn i64(bytes: &mut &[u8]) -> Option<i64> {
    bytes.try_get_i64_le().ok()
}

pub(super) fn text<'a>(bytes: &mut &'a [u8]) -> Option<&'a str> {
    let length = usize::try_from(u64(bytes)?).ok()?;
    let (text, rest) = bytes.split_at_checked(length)?;
    *bytes = rest;
    str::from_utf8(text).ok()
}

pub(super) fn origin(bytes: &mut &[u8]) -> Option<Origin> {
    Some(Origin { day: day(bytes)?, epoch: bytes.try_get_u32_le().ok()? })
}

fn day(bytes: &mut &[u8]) -> Option<Day> {
    let year = bytes.try_get_i16_le().ok()?;
    let (month, day) = (bytes.try_get_i8().ok()?, bytes.try_get_i8().ok()?);
    Date::new(year, month, day).ok().map(Day::from_date)
}

fn duration(bytes: &mut &[u8]) -> Option<Duration> {
    u64(bytes).map(Duration::from_micros)
}
