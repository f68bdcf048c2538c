//! Format of a segment: a head, framed records, then zeros (docs/journal-format.md).

use std::{fmt, io};

use bytes::{Buf, BufMut};

use super::{Commit, Disk, Record, v1, v2};

/// Identifies the format and its version. An older program rejects a segment whose payloads it cannot read.
const MAGIC: &[u8; 8] = b"tq-log-3";
/// Magic of segments with payloads of [`v2`].
const MAGIC_V2: &[u8; 8] = b"tq-log-2";
/// Version of a record's payload.
const VERSION: u8 = 2;
/// Version of the payloads of [`v2`].
const VERSION_V2: u8 = 1;
/// First byte of a record, where `tq-log-2` has the kind of its payload.
const BEGIN: u8 = 0xff;
/// Length in bytes of the frame before a record's payload.
const FRAME: usize = 16;
/// Byte that terminates a record. It is zero if the write was cut short.
const END: u8 = 0xff;
/// Maximum length of a payload, in bytes; no record reaches it.
const MAX_RECORD: usize = 1 << 26;

/// Length in bytes of the head, and offset of the first record.
pub(super) const HEAD: u64 = 48;

/// Random identifier that links a database and its journal.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct DatabaseId(pub(crate) [u8; 16]);

/// Where a replay starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ReplayFrom {
    /// At the first record.
    Start,
    /// At this position, which must exist.
    Position(Position),
    /// After this segment, which was applied completely.
    After(u64),
}

/// Position in the journal: all records before it are applied.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Position {
    /// Number of the segment.
    pub(crate) segment: u64,
    /// Offset in the segment, in bytes.
    pub(crate) offset: u64,
}

/// Identity of a segment. Checksums cover it, so records copied to another segment or offset are invalid.
#[derive(Clone)]
pub(super) struct SegmentId {
    database: DatabaseId,
    number: u64,
    /// Has the hash of both, with which the checksum of each record begins.
    hasher: crc32fast::Hasher,
}

impl SegmentId {
    pub(super) fn new(database: DatabaseId, number: u64) -> Self {
        let mut hasher = crc32fast::Hasher::new();
        hasher.update(&database.0);
        hasher.update(&number.to_le_bytes());
        Self { database, number, hasher }
    }

    /// Returns the head of the segment, which is created with this length.
    pub(super) fn head(&self, length: u64) -> Vec<u8> {
        let mut head = MAGIC.to_vec();
        head.put_u64_le(self.number);
        head.put_slice(&self.database.0);
        head.put_u64_le(length);
        head.put_u32_le(crc32fast::hash(&head));
        head.put_bytes(0, HEAD as usize - head.len());
        head
    }

    /// Appends a record to `out`, framed for this offset in the segment.
    pub(super) fn frame(
        &self,
        record: &Record<'_>,
        offset: u64,
        out: &mut Vec<u8>,
    ) -> io::Result<()> {
        let begin = out.len();
        out.put_bytes(0, FRAME);
        record.encode(out)?;
        let (frame, payload) = out[begin..].split_at_mut(FRAME);
        let length = u32::try_from(payload.len()).unwrap_or(u32::MAX);
        frame[0] = BEGIN;
        frame[1] = VERSION;
        frame[4..8].copy_from_slice(&length.to_le_bytes());
        // Saves the look at the CPU's features that a new hasher begins with.
        let mut hasher = self.hasher.clone();
        hasher.reset();
        hasher.update(payload);
        frame[8..12].copy_from_slice(&hasher.finalize().to_le_bytes());
        let checksum = self.checksum(&frame[..12], offset);
        frame[12..].copy_from_slice(&checksum.to_le_bytes());
        out.put_u8(END);
        Ok(())
    }

    fn checksum(&self, frame: &[u8], offset: u64) -> u32 {
        let mut hasher = self.hasher.clone();
        // One update costs half of what two small ones do.
        let mut bytes = [0; 20];
        let (place, rest) = bytes.split_at_mut(8);
        place.copy_from_slice(&offset.to_le_bytes());
        rest.copy_from_slice(frame);
        hasher.update(&bytes);
        hasher.finalize()
    }

    /// Returns the first two bytes of the frame at this offset, and length and checksum of its payload, if the
    /// frame is valid.
    fn read_frame(&self, bytes: &[u8], at: usize) -> Option<([u8; 2], usize, u32)> {
        let frame = bytes.get(at..at + FRAME)?;
        let mut fields = &frame[4..];
        let (length, payload) = (fields.get_u32_le() as usize, fields.get_u32_le());
        let is_good = self.checksum(&frame[..12], at as u64) == fields.get_u32_le()
            && [VERSION, VERSION_V2].contains(&frame[1])
            && length <= MAX_RECORD;
        is_good.then_some(([frame[0], frame[1]], length, payload))
    }

    /// Returns the record at this offset and the offset of the next one.
    fn read_record(&self, bytes: &[u8], at: usize) -> Option<(Record<'static>, usize)> {
        let ([kind, version], length, checksum) = self.read_frame(bytes, at)?;
        let end = at + FRAME + length;
        let payload = bytes.get(at + FRAME..end)?;
        let is_whole = bytes.get(end) == Some(&END) && crc32fast::hash(payload) == checksum;
        let record = match version {
            _ if !is_whole => None,
            VERSION_V2 => v2::decode(kind, payload),
            _ => Record::decode(payload),
        };
        record.map(|record| (record, end + 1))
    }

    /// Classifies the bytes at `at`, which are not a valid record: end, torn write or damage. A torn write
    /// is the beginning of a record with only zeros after it.
    fn classify_tail(&self, bytes: &[u8], at: usize) -> Tail {
        let Some(last) = last_written(&bytes[at..]) else { return Tail::End };
        let whole = self.read_frame(bytes, at).map_or(FRAME, |(_, length, _)| FRAME + length);
        let bytes = last as u64 + 1;
        if last < whole { Tail::Torn { bytes } } else { Tail::Damaged { bytes } }
    }
}

/// Returns the index of the last byte that is not zero. Compares blocks, as most of a segment is zeros.
fn last_written(bytes: &[u8]) -> Option<usize> {
    const BLOCK: usize = 4096;
    let mut end = bytes.len();
    for block in bytes.rchunks(BLOCK) {
        if *block != [0; BLOCK][..block.len()] {
            let in_block = block.iter().rposition(|byte| *byte != 0)?;
            return Some(end - block.len() + in_block);
        }
        end -= block.len();
    }
    None
}

/// Bytes after the last valid record, up to the last one that is not zero.
enum Tail {
    /// There are none.
    End,
    /// Beginning of a record whose write was cut short.
    Torn { bytes: u64 },
    /// Any other bytes.
    Damaged { bytes: u64 },
}

/// Flaw of a journal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Flaw {
    /// A segment is missing.
    Missing { segment: u64 },
    /// A segment has another format, or its head is damaged.
    BadHead { segment: u64 },
    /// A segment belongs to another database.
    Foreign { segment: u64 },
    /// A segment is shorter than it was when it was created.
    Short { segment: u64, length: u64, created: u64 },
    /// A segment has no record that ends where the database has read up to.
    Lacks { segment: u64, offset: u64 },
    /// The bytes at this position are damaged.
    Damaged { segment: u64, offset: u64, bytes: u64 },
}

impl Flaw {
    /// Returns whether a power failure can cause this flaw in bytes that were not synced.
    pub(crate) fn may_be_power_loss(&self) -> bool {
        match self {
            Self::Short { .. } | Self::Lacks { .. } | Self::Damaged { .. } => true,
            Self::Missing { .. } | Self::BadHead { .. } | Self::Foreign { .. } => false,
        }
    }

    /// Returns the number of the segment with the flaw.
    pub(crate) fn segment(&self) -> u64 {
        match self {
            Self::Missing { segment }
            | Self::BadHead { segment }
            | Self::Foreign { segment }
            | Self::Short { segment, .. }
            | Self::Lacks { segment, .. }
            | Self::Damaged { segment, .. } => *segment,
        }
    }
}

impl fmt::Display for Flaw {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing { .. } => f.write_str("is missing"),
            Self::BadHead { .. } => f.write_str("has a damaged head"),
            Self::Foreign { .. } => f.write_str("belongs to another database"),
            Self::Short { length, created, .. } => {
                write!(f, "has {length} bytes of the {created} it was created with")
            }
            Self::Lacks { offset, .. } => {
                write!(f, "does not hold what the database has read of it up to byte {offset}")
            }
            Self::Damaged { offset, bytes, .. } => {
                write!(f, "is damaged at byte {offset} ({bytes} bytes from there on are not read)")
            }
        }
    }
}

/// Result of a replay, apart from the records.
#[derive(Debug, Default)]
pub(crate) struct Replay {
    pub(crate) flaws: Vec<Flaw>,
    /// Positions of torn writes and their lengths in bytes.
    pub(crate) torn: Vec<(Position, u64)>,
    /// Last commit that the journal has recorded.
    pub(crate) commit: Commit,
    /// End of the last valid record.
    pub(crate) end: Option<Position>,
}

/// Range of records to replay.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ReplayRange {
    pub(crate) from: ReplayFrom,
    /// End of the range; `None` for the end of the journal.
    pub(crate) until: Option<Position>,
}

impl ReplayRange {
    /// Returns the offset at which the range ends in this segment.
    fn end_in(&self, segment: u64) -> u64 {
        match self.until {
            Some(until) if until.segment == segment => until.offset,
            Some(until) if until.segment < segment => 0,
            _ => u64::MAX,
        }
    }
}

/// Returns the identity of the journal, from the head of its newest segment that has a valid one.
#[cfg(feature = "postgres")]
pub(crate) fn owner(disk: &dyn Disk) -> io::Result<Option<DatabaseId>> {
    let mut numbers = disk.segments()?;
    numbers.sort_unstable();
    for number in numbers.into_iter().rev() {
        if let Ok(head) = Head::read(number, &disk.read(number)?) {
            return Ok(Some(head.database));
        }
    }
    Ok(None)
}

/// Replays the records of the range in order, each segment up to its first flaw.
pub(crate) fn replay(
    disk: &dyn Disk,
    range: ReplayRange,
    database: DatabaseId,
    mut each: impl FnMut(Record<'static>),
) -> io::Result<Replay> {
    let mut found = Replay::default();
    let (from, first) = match range.from {
        ReplayFrom::Start => (None, 0),
        ReplayFrom::Position(position) => (Some(position), position.segment),
        ReplayFrom::After(segment) => (None, segment + 1),
    };
    let mut next = from.map(|from| from.segment);
    let mut next_must_exist = from.is_some();
    let mut numbers = disk.segments()?;
    let last = range.until.map_or(u64::MAX, |until| until.segment.max(next.unwrap_or(0)));
    numbers.retain(|number| (first..=last).contains(number));
    numbers.sort_unstable();
    for number in numbers {
        let absent = next.map_or(0..0, |next| next..number);
        found.flaws.extend(absent.map(|segment| Flaw::Missing { segment }));
        let bytes = disk.read(number)?;
        let from = from.filter(|from| from.segment == number).map(|from| from.offset);
        next_must_exist = if bytes.starts_with(v1::MAGIC) {
            replay_v1(&bytes, number, from, &mut found, &mut each);
            false
        } else {
            let id = SegmentId::new(database, number);
            replay_segment(&id, &bytes, (from, range.end_in(number)), &mut found, &mut each)
        };
        next = Some(number + 1);
    }
    if let Some(segment) = next.filter(|_| next_must_exist) {
        found.flaws.push(Flaw::Missing { segment });
    }
    Ok(found)
}

/// Replays one segment. Returns whether its last record says that another segment follows.
fn replay_segment(
    id: &SegmentId,
    bytes: &[u8],
    (from, until): (Option<u64>, u64),
    found: &mut Replay,
    each: &mut dyn FnMut(Record<'static>),
) -> bool {
    let segment = id.number;
    let head = Head::read(segment, bytes).and_then(|head| {
        if head.database == id.database { Ok(head) } else { Err(Flaw::Foreign { segment }) }
    });
    let created = match head {
        Ok(head) => head.length,
        Err(flaw) => {
            found.flaws.push(flaw);
            return false;
        }
    };
    let length = bytes.len() as u64;
    if length < created {
        found.flaws.push(Flaw::Short { segment, length, created });
    }
    let offset = from.unwrap_or(HEAD).max(HEAD);
    let mut at = usize::try_from(offset).unwrap_or(usize::MAX);
    if offset > HEAD && bytes.get(at - 1) != Some(&END) {
        found.flaws.push(Flaw::Lacks { segment, offset });
        return false;
    }
    let mut is_rotated = false;
    while (at as u64) < until
        && let Some((record, next)) = id.read_record(bytes, at)
    {
        match record {
            Record::Commit(commit) if commit.number >= found.commit.number => found.commit = commit,
            Record::Commit(_) => {}
            Record::Rotated => is_rotated = true,
            record => each(record),
        }
        at = next;
    }
    let offset = at as u64;
    if offset >= until {
        return false;
    }
    found.end = Some(Position { segment, offset });
    match id.classify_tail(bytes, at) {
        Tail::End => {}
        Tail::Torn { bytes } => found.torn.push((Position { segment, offset }, bytes)),
        Tail::Damaged { bytes } => found.flaws.push(Flaw::Damaged { segment, offset, bytes }),
    }
    is_rotated
}

/// Head of a segment.
struct Head {
    database: DatabaseId,
    /// Length in bytes with which the segment was created.
    length: u64,
}

impl Head {
    /// Reads the head of the segment with this number.
    fn read(segment: u64, bytes: &[u8]) -> Result<Self, Flaw> {
        let mut fields = bytes.get(..HEAD as usize).ok_or(Flaw::BadHead { segment })?;
        let checksum = crc32fast::hash(&fields[..40]);
        let is_ours = fields.starts_with(MAGIC) || fields.starts_with(MAGIC_V2);
        fields.advance(MAGIC.len());
        let number = fields.get_u64_le();
        let mut database = DatabaseId::default();
        fields.copy_to_slice(&mut database.0);
        let length = fields.get_u64_le();
        let is_whole = fields.get_u32_le() == checksum && fields == [0; 4];
        if is_ours && is_whole && number == segment {
            Ok(Self { database, length })
        } else {
            Err(Flaw::BadHead { segment })
        }
    }
}

fn replay_v1(
    bytes: &[u8],
    segment: u64,
    from: Option<u64>,
    found: &mut Replay,
    each: &mut dyn FnMut(Record<'static>),
) {
    if !v1::is_head(bytes, segment) {
        found.flaws.push(Flaw::BadHead { segment });
        return;
    }
    let offset = from.unwrap_or(v1::HEAD).max(v1::HEAD);
    let records = bytes.get(offset as usize..).unwrap_or_default();
    let (read, is_torn) = v1::read_records(records, segment, each);
    let (offset, bytes) = (offset + read as u64, (records.len() - read) as u64);
    found.end = Some(Position { segment, offset });
    if !is_torn {
        found.flaws.push(Flaw::Damaged { segment, offset, bytes });
    } else if bytes > 0 {
        found.torn.push((Position { segment, offset }, bytes));
    }
}

#[cfg(test)]
mod tests {
    use std::{
        sync::LazyLock,
        time::{Duration, UNIX_EPOCH},
    };

    use super::{
        super::{CountChange, UsageEntry, record::tests::full},
        *,
    };
    use crate::{
        key::KeyId,
        store::{
            RequestOutcome, Tokens, UsageEvent,
            counter::{CounterKey, Origin},
        },
    };

    static ID: LazyLock<SegmentId> = LazyLock::new(|| SegmentId::new(DatabaseId([7; 16]), 3));
    const LENGTH: u64 = 4096;

    /// Returns a segment of these records, the offset of each, and the end of the last one.
    fn segment(records: &[Record<'_>]) -> (Vec<u8>, Vec<usize>) {
        let mut bytes = ID.head(LENGTH);
        let mut offsets = vec![bytes.len()];
        for record in records {
            let offset = bytes.len() as u64;
            ID.frame(record, offset, &mut bytes).unwrap();
            offsets.push(bytes.len());
        }
        bytes.resize(LENGTH as usize, 0);
        (bytes, offsets)
    }

    fn read(bytes: &[u8]) -> (usize, Replay) {
        let (mut found, mut records) = (Replay::default(), 0);
        replay_segment(&ID, bytes, (None, u64::MAX), &mut found, &mut |_| records += 1);
        (records, found)
    }

    #[test]
    fn every_flipped_bit_is_a_flaw_unless_it_lies_behind_the_records() {
        let id = CounterKey::daily(KeyId::from("alice"));
        let [count, usage, ..] = full(&id);
        let records = [count.clone(), usage, count];
        let (bytes, offsets) = segment(&records);
        for bit in 0..offsets[records.len()] * 8 {
            let mut bytes = bytes.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            let (_, found) = read(&bytes);
            assert!(found.torn.is_empty(), "bit {bit}: {found:?}");
            let [flaw] = &*found.flaws else { panic!("bit {bit}: {found:?}") };
            let before = offsets.iter().rfind(|offset| **offset <= bit / 8);
            match (flaw, before) {
                (Flaw::Damaged { offset, .. }, Some(before)) => {
                    assert_eq!(*offset, *before as u64, "bit {bit}");
                }
                (Flaw::BadHead { .. } | Flaw::Foreign { .. }, None) => {}
                _ => panic!("bit {bit}: {flaw:?}"),
            }
        }
    }

    #[test]
    fn torn_write_is_distinguished_from_damage() {
        let id = CounterKey::daily(KeyId::from("alice"));
        let [count, ..] = full(&id);
        let (whole, offsets) = segment(&[count.clone(), count]);
        for cut in offsets[1]..offsets[2] {
            let mut bytes = whole.clone();
            bytes[cut..].fill(0);
            let (records, found) = read(&bytes);
            assert_eq!((records, found.flaws), (1, vec![]), "{cut}");
            // Bytes before the cut may be zeros themselves.
            assert!(found.torn.iter().all(|(_, torn)| *torn <= (cut - offsets[1]) as u64));
            assert!(cut == offsets[1] || !found.torn.is_empty(), "{cut}");
        }
    }

    #[test]
    fn records_after_the_range_are_ignored() {
        let id = CounterKey::daily(KeyId::from("alice"));
        let [count, ..] = full(&id);
        let (mut bytes, offsets) = segment(&[count.clone(), count.clone(), count]);
        // Damages the third record.
        bytes[offsets[2] + 20] ^= 1;
        for (until, records, flaws) in [(offsets[1], 1, 0), (offsets[2], 2, 0), (offsets[3], 2, 1)]
        {
            let (mut found, mut read) = (Replay::default(), 0);
            let range = (None, until as u64);
            replay_segment(&ID, &bytes, range, &mut found, &mut |_| read += 1);
            assert_eq!((read, found.flaws.len()), (records, flaws), "until {until}: {found:?}");
        }
        let (_, found) = read(&bytes);
        assert_eq!(found.end, Some(Position { segment: 3, offset: offsets[2] as u64 }));
    }

    #[test]
    fn copied_record_and_shortened_file_are_flaws() {
        let id = CounterKey::daily(KeyId::from("alice"));
        let [count, ..] = full(&id);
        let (mut bytes, offsets) = segment(&[count.clone(), count]);
        let (_, found) = read(&bytes[..offsets[2]]);
        let length = offsets[2] as u64;
        assert_eq!(found.flaws, [Flaw::Short { segment: 3, length, created: LENGTH }]);
        bytes.copy_within(offsets[1]..offsets[2], offsets[2]);
        let (records, found) = read(&bytes);
        assert_eq!(records, 2);
        assert!(matches!(*found.flaws, [Flaw::Damaged { offset, .. }] if offset == length));
    }

    #[test]
    fn truncated_record_is_rejected() {
        let id = CounterKey::daily(KeyId::from("alice"));
        for record in full(&id) {
            let mut bytes = Vec::new();
            ID.frame(&record, 0, &mut bytes).unwrap();
            assert_eq!(ID.read_record(&bytes, 0), Some((record, bytes.len())));
            for length in 0..bytes.len() {
                assert_eq!(ID.read_record(&bytes[..length], 0), None, "{length} bytes");
            }
        }
    }

    /// The last programs that wrote a format have written these segments of every kind of record.
    #[test]
    fn records_of_tq_log_2_are_read() {
        read_every_kind(include_bytes!("../../../../tests/store/journals/tq-log-2.journal"));
    }

    /// Without the fields that were appended to an event since.
    #[test]
    fn records_of_tq_log_3_are_read() {
        read_every_kind(include_bytes!("../../../../tests/store/journals/tq-log-3.journal"));
    }

    fn read_every_kind(segment: &[u8]) {
        let mut bytes = segment.to_vec();
        let end = bytes.len() as u64;
        bytes.resize(LENGTH as usize, 0);
        let (mut found, mut records) = (Replay::default(), Vec::new());
        let mut each = |record| records.push(record);
        let is_rotated = replay_segment(&ID, &bytes, (None, u64::MAX), &mut found, &mut each);
        assert!(is_rotated && found.flaws.is_empty(), "{found:?}");
        assert_eq!(found.end, Some(Position { segment: 3, offset: end }));
        let key = CounterKey {
            quota: "tokens".parse().unwrap(),
            subject: KeyId::from("key_0123456789abcdef"),
        };
        let [count, usage, Record::Commit(commit), _] = full(&key) else { unreachable!() };
        assert_eq!(found.commit, commit);
        let alice = CounterKey::daily(KeyId::from("alice"));
        let day = "2026-11-22".parse().unwrap();
        let change =
            CountChange { used: 4_000_000_000, ..CountChange::of(Origin { day, epoch: 0 }) };
        let at = UNIX_EPOCH + Duration::from_millis(1_795_348_800_456);
        let event = |outcome, path: &str| UsageEvent {
            key_id: Some(alice.subject.clone()),
            outcome,
            path: path.to_owned(),
            ..UsageEvent::new(at)
        };
        let gone = UsageEvent {
            duration: Some(Duration::ZERO),
            ..event(RequestOutcome::ClientGone, "/v1/models/…")
        };
        let good = UsageEvent {
            tokens: Some(Tokens::new(1, 2, 3)),
            model: Some("m".to_owned()),
            ..event(RequestOutcome::Succeeded, "")
        };
        let entry = |event, closes, keeps_row| {
            Record::Usage(Box::new(UsageEntry { day, closes, keeps_row, event }))
        };
        let expected = [
            count,
            usage,
            Record::count(&alice, change),
            entry(gone, false, true),
            entry(event(RequestOutcome::Rejected, ""), false, false),
            entry(good, true, false),
        ];
        assert_eq!(records, expected);
        for cut in HEAD as usize..end as usize {
            let mut torn = bytes.clone();
            torn[cut..].fill(0);
            let (read, found) = read(&torn);
            assert!(read <= expected.len() && found.flaws.is_empty(), "{cut}: {found:?}");
        }
    }
}
