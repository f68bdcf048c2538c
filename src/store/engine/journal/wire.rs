//! The parts that records are made of, as bytes.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::{Buf, BufMut};
use jiff::civil::Date;

use crate::clock::Day;

pub(super) fn flag(set: bool, flag: u8) -> u8 {
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

pub(crate) fn unix_millis(at: SystemTime) -> i64 {
    let millis = at.duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
    i64::try_from(millis).unwrap_or(i64::MAX)
}

pub(crate) fn from_unix_millis(millis: i64) -> SystemTime {
    UNIX_EPOCH + Duration::from_millis(u64::try_from(millis).unwrap_or_default())
}
