//! The journal: what was counted, written down one record at a time beside the database.
//!
//! [`Journal::append`] is one `write` of a few checksummed bytes. When it returns, the record
//! survives the end of the process; once [`Journal::poll_durable`] is ready, it survives a loss of
//! power. Whoever folds the records into a database takes them from memory
//! ([`Journal::take`]) and keeps the [`Position`] beside them in the same transaction; after a
//! restart [`replay`] reads what lies behind that position.
//!
//! Records lie in numbered segments (docs/journal-format.md). A new one is begun when the last has
//! grown long, after a failed write, and at every start; a folded one is removed.
//!
//! The database's commits are numbered, and each number is written down once the commit is durable
//! ([`Journal::note_commit`]): so a start can tell that the database is older than its journal.

mod details;
mod disk;
mod durable;
mod log;
mod meter;
mod record;
mod segment;
mod stopwatch;
mod sync;
mod usage_entry;
mod v1;
mod wire;

pub(crate) use self::{
    disk::{Disk, FileDisk, SEGMENT_LENGTH, Segment, is_in_place, sync_directory},
    log::Journal,
    record::{Commit, CountChange, Record},
    segment::{DatabaseId, Flaw, Position, Replay, ReplayFrom, ReplayRange, replay},
    sync::Syncer,
    usage_entry::UsageEntry,
    wire::{from_unix_millis, unix_millis},
};

/// A point in everything that was appended since the start, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Lsn(pub(crate) u64);
