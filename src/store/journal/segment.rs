//! What lies in a segment: a head, then framed records.

use std::io;

use bytes::{Buf, BufMut};

use super::{Disk, Record};

/// How far the journal was folded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Position {
    /// The segment's number.
    pub(crate) segment: u64,
    /// The offset in it of the first record that was not folded.
    pub(crate) offset: u64,
}

/// Names the format; another one will have another name.
const MAGIC: &[u8; 8] = b"tq-log-1";
/// The length and the checksum of a record.
const FRAME: usize = 8;
/// Longer than any record, so that a torn length is not taken for one.
const LONGEST: usize = 1 << 26;

/// Where the first record begins.
pub(super) const HEAD: u64 = MAGIC.len() as u64 + 8;

/// The head of a segment.
pub(super) fn head(number: u64) -> Vec<u8> {
    let mut head = MAGIC.to_vec();
    head.put_u64_le(number);
    head
}

/// Appends a framed record. The segment's number goes into the checksum, so that bytes of another
/// segment are never taken for a record of this one.
pub(super) fn frame(record: &Record<'_>, number: u64, out: &mut Vec<u8>) {
    let begin = out.len();
    out.put_bytes(0, FRAME);
    record.encode(out);
    let (frame, payload) = out[begin..].split_at_mut(FRAME);
    let length = u32::try_from(payload.len()).unwrap_or(u32::MAX);
    frame[..4].copy_from_slice(&length.to_le_bytes());
    frame[4..].copy_from_slice(&checksum(payload, number).to_le_bytes());
}

fn checksum(payload: &[u8], number: u64) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&number.to_le_bytes());
    hasher.update(payload);
    hasher.finalize()
}

/// Hands on the records behind `from`, in the order of their writing. A segment is read up to its
/// first record that is torn, as the last one may be. Returns the first place where a record is
/// whole and not what was written: only a loss of power, or a damaged file, leaves one behind.
pub(crate) fn replay(
    disk: &dyn Disk,
    from: Position,
    mut each: impl FnMut(Record<'_>),
) -> io::Result<Option<Position>> {
    let mut damaged = None;
    let mut numbers = disk.segments()?;
    numbers.sort_unstable();
    for number in numbers.into_iter().filter(|number| *number >= from.segment) {
        let offset = if number == from.segment { from.offset.max(HEAD) } else { HEAD };
        let bytes = disk.read(number)?;
        if bytes.starts_with(&head(number)) {
            let records = bytes.get(offset as usize..).unwrap_or_default();
            if let Tail::Damaged(at) = read_records(records, number, &mut each) {
                let place = Position { segment: number, offset: offset + at as u64 };
                damaged.get_or_insert(place);
            }
        } else if !head(number).starts_with(&bytes) {
            let message = format!("journal segment {number} is not one of this program");
            return Err(io::Error::new(io::ErrorKind::InvalidData, message));
        }
    }
    Ok(damaged)
}

/// What lies behind the last good record.
enum Tail {
    /// Nothing, or the beginning of a record.
    Torn,
    /// At this offset, what is no record, or no good one.
    Damaged(usize),
}

fn read_records(bytes: &[u8], number: u64, each: &mut dyn FnMut(Record<'_>)) -> Tail {
    let mut rest = bytes;
    while let Some(behind) = read_record(rest, number, each) {
        rest = behind;
    }
    if is_torn(rest, number) { Tail::Torn } else { Tail::Damaged(bytes.len() - rest.len()) }
}

/// Hands a record on; what comes behind it.
fn read_record<'a>(
    mut bytes: &'a [u8],
    number: u64,
    each: &mut dyn FnMut(Record<'_>),
) -> Option<&'a [u8]> {
    let length = bytes.try_get_u32_le().ok()? as usize;
    let expected = bytes.try_get_u32_le().ok()?;
    // A length of 0 is a tail that was never written.
    let (payload, rest) = bytes.split_at_checked(length)?;
    let whole = (1..=LONGEST).contains(&length) && checksum(payload, number) == expected;
    whole.then(|| Record::decode(payload, each)).flatten().map(|()| rest)
}

/// Whether a write that did not get far may have left this: nothing, or a record that ends too
/// early and has none behind it.
fn is_torn(bytes: &[u8], number: u64) -> bool {
    let length = bytes.get(..4).map_or(usize::MAX, |mut length| length.get_u32_le() as usize);
    bytes.len() < FRAME.saturating_add(length)
        && (1..bytes.len()).all(|at| read_record(&bytes[at..], number, &mut |_| ()).is_none())
}
