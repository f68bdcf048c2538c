//! The journal: what is counted, appended one record at a time beside the database.
//!
//! [`Journal::append`] is one `write` of a few checksummed bytes. When it returns, the record
//! survives the end of the process; once [`Journal::poll_durable`] is ready, it survives a loss of
//! power. The writer takes the records from memory ([`Journal::take`]), and stores the [`Position`]
//! behind them in the transaction that applies them; after a restart [`replay`] reads what lies behind
//! that position.
//!
//! Records lie in numbered segments (docs/journal-format.md). A new one begins when the last has
//! grown long, after a failed write, and at every start; one that was applied is removed.
//!
//! The database's commits are numbered, and each number is appended once the commit is durable
//! ([`Journal::note_commit`]): so a start can detect that the database is older than its journal.

mod disk;
mod log;
mod record;
mod segment;
mod sync;
mod v1;

pub(crate) use self::{
    disk::{Disk, FileDisk, SEGMENT_LENGTH, Segment, is_in_place, sync_directory},
    log::Journal,
    record::{Commit, CountChange, Record, UsageEntry, from_unix_millis, unix_millis},
    segment::{DatabaseId, Flaw, Position, Replay, ReplayFrom, ReplayRange, replay},
    sync::Syncer,
};

/// A point in everything that was appended since the start, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Lsn(pub(crate) u64);
