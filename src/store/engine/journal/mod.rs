//! Append-only journal of counter changes and usage events, in files next to the database.
//!
//! [`Journal::append`] is one `write` of a few checksummed bytes. When it returns, the record
//! survives the end of the process; once [`Journal::poll_durable`] is ready, it survives a power
//! failure. The writer takes the records from memory ([`Journal::take`]), and stores the [`Position`]
//! at which they end in the transaction that applies them. After a restart, [`replay`] reads the records
//! from that position on.
//!
//! The journal consists of numbered segments (docs/journal-format.md). A new segment is started at every
//! start of the process, after a failed write, and when the current one is full. Segments that were
//! applied are removed.
//!
//! The database's commits are numbered, and each number is appended once the commit is durable
//! ([`Journal::note_commit`]), so a start can detect that the database is older than its journal.

mod disk;
mod log;
mod record;
mod segment;
mod sync;
mod v1;
mod v2;

#[cfg(feature = "sqlite")]
pub(crate) use self::disk::sync_directory;
#[cfg(feature = "postgres")]
pub(crate) use self::segment::owner;
pub(crate) use self::{
    disk::{Disk, FileDisk, SEGMENT_LENGTH, Segment, is_in_place},
    log::Journal,
    record::{ChangeBeside, Commit, CountChange, Further, Record, ShareUse, UsageEntry},
    segment::{DatabaseId, Flaw, Position, Replay, ReplayFrom, ReplayRange, replay},
    sync::Syncer,
};

/// Log sequence number: number of bytes appended since the start of the process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Lsn(pub(crate) u64);
