use std::{
    io, mem,
    sync::Arc,
    task::{Context, Poll, ready},
    time::{Duration, Instant},
};

use super::{
    Commit, DatabaseId, Disk, Lsn, Position, Record, Segment,
    segment::{HEAD, SegmentId},
    sync::{DurableLsn, Stopwatch, SyncTimer},
};
use crate::{
    error::StoreError,
    key::KeyId,
    store::{
        engine::pending::PendingBatch,
        sync::{AtomicBool, AtomicU64, Mutex, Ordering, lock},
    },
};

/// Maximum time until a record is synced.
const SYNC_INTERVAL: Duration = Duration::from_millis(200);

/// Append-only log of counter changes and usage events.
pub(crate) struct Journal {
    disk: Box<dyn Disk>,
    database: DatabaseId,
    tail: Mutex<Tail>,
    durable: DurableLsn,
    /// LSN up to which the running sync, or the last one, syncs records.
    syncing_to: AtomicU64,
    /// Whether there may be records that are not synced yet.
    dirty: AtomicBool,
    failed: AtomicBool,
    /// Set by the watchdog: rejects writes although the disk accepts them.
    suspended: AtomicBool,
    stopwatch: Stopwatch,
    ended: AtomicBool,
    /// Number of the oldest segment, as far as known.
    oldest: AtomicU64,
    /// Held while the current segment is synced or replaced.
    syncing: Mutex<()>,
    pub(super) timer: SyncTimer,
}

/// End of the journal and the records that wait for a checkpoint.
struct Tail {
    segment: Arc<dyn Segment>,
    id: SegmentId,
    position: Position,
    end: Lsn,
    /// Records before this LSN were taken by the writer.
    taken: Lsn,
    /// Number of records that were taken and are not checkpointed yet.
    taken_records: usize,
    /// Last commit of the database.
    commit: Commit,
    pending: PendingBatch,
    buffer: Vec<u8>,
}

impl Journal {
    /// Creates a journal of this database, with the segment of this number as its first.
    pub(crate) fn begin(
        disk: Box<dyn Disk>,
        number: u64,
        database: DatabaseId,
        commit: Commit,
    ) -> io::Result<Self> {
        let (segment, id, position) = create(&*disk, database, number, commit)?;
        let tail = Tail {
            segment,
            id,
            position,
            end: Lsn::default(),
            taken: Lsn::default(),
            taken_records: 0,
            commit,
            pending: PendingBatch::default(),
            buffer: Vec::new(),
        };
        Ok(Self {
            disk,
            database,
            tail: Mutex::new(tail),
            durable: DurableLsn::new(),
            syncing_to: AtomicU64::new(0),
            dirty: AtomicBool::new(false),
            failed: AtomicBool::new(false),
            suspended: AtomicBool::new(false),
            stopwatch: Stopwatch::new(),
            ended: AtomicBool::new(false),
            oldest: AtomicU64::new(0),
            syncing: Mutex::new(()),
            timer: SyncTimer::default(),
        })
    }

    /// Appends a record. When this returns, the record survives the end of the process.
    ///
    /// # Errors
    ///
    /// The record was not appended. No other is appended until [`Journal::rotate`].
    pub(crate) fn append(&self, record: Record<'_>) -> Result<Lsn, StoreError> {
        let mut tail = lock(&self.tail);
        let end = self.write(&mut tail, &record)?;
        tail.pending.add(record);
        drop(tail);
        self.mark_dirty();
        Ok(end)
    }

    /// Appends a record. If the write fails, the record is kept in memory and is lost if the process ends
    /// first.
    pub(crate) fn append_or_hold(&self, record: Record<'_>) -> Option<Lsn> {
        let mut tail = lock(&self.tail);
        let written = self.write(&mut tail, &record);
        tail.pending.add(record);
        drop(tail);
        if written.is_ok() {
            self.mark_dirty();
        }
        written.ok()
    }

    /// Keeps a record in memory only, for the next checkpoint.
    pub(crate) fn hold(&self, record: Record<'_>) {
        lock(&self.tail).pending.add(record);
    }

    fn write(&self, tail: &mut Tail, record: &Record<'_>) -> Result<Lsn, StoreError> {
        if self.has_failed() {
            return Err(failure());
        }
        tail.buffer.clear();
        let offset = tail.position.offset;
        let framed = tail.id.frame(record, offset, &mut tail.buffer);
        if let Err(error) = framed.and_then(|()| tail.segment.write_at(&tail.buffer, offset)) {
            self.fail(&error);
            return Err(failure());
        }
        tail.position.offset += tail.buffer.len() as u64;
        tail.end.0 += tail.buffer.len() as u64;
        Ok(tail.end)
    }

    /// Returns the number of the database's next commit.
    pub(crate) fn next_commit(&self) -> u64 {
        lock(&self.tail).commit.number + 1
    }

    /// Records that this commit of the database is durable, before any caller is notified. If the write
    /// fails, the next segment begins with this record.
    pub(crate) fn note_commit(&self, commit: Commit) {
        let mut tail = lock(&self.tail);
        tail.commit = commit;
        // A failure here stops admission but does not undo the commit.
        let _ = self.write(&mut tail, &Record::Commit(commit));
    }

    /// Records that the database has made commits up to this number, if that is not known yet.
    pub(crate) fn note_commits(&self, number: u64) {
        let Commit { number: known, checkpointed } = lock(&self.tail).commit;
        if number > known {
            self.note_commit(Commit { number, checkpointed });
        }
    }

    fn mark_dirty(&self) {
        if !self.dirty.load(Ordering::Relaxed) && !self.dirty.swap(true, Ordering::AcqRel) {
            self.sync_within(SYNC_INTERVAL);
        }
    }

    /// Returns whether all records up to `end` are durable.
    pub(crate) fn is_durable(&self, end: Lsn) -> bool {
        self.durable.reaches(end)
    }

    /// Completes once all records up to `end` are durable. [`Journal::sync_to`] must have been called.
    ///
    /// # Errors
    ///
    /// The journal has failed.
    pub(crate) fn poll_durable(
        &self,
        end: Lsn,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), StoreError>> {
        let is_durable = ready!(self.durable.poll(end, || self.has_failed(), cx));
        Poll::Ready(if is_durable { Ok(()) } else { Err(failure()) })
    }

    /// Schedules a sync within `time`.
    pub(crate) fn sync_within(&self, time: Duration) {
        self.timer.set(Instant::now() + time);
    }

    #[cfg(all(test, model))]
    pub(crate) fn is_due(&self) -> bool {
        self.dirty.load(Ordering::Acquire)
    }

    /// Schedules the next sync, unless all records up to `end` are durable or being synced.
    pub(crate) fn sync_to(&self, end: Lsn) {
        let is_syncing = end.0 <= self.syncing_to.load(Ordering::Acquire);
        if !is_syncing && !self.is_durable(end) {
            self.sync_within(Duration::ZERO);
        }
    }

    /// Syncs all appended records. Returns whether there were any.
    pub(crate) fn sync(&self) -> bool {
        let _syncing = lock(&self.syncing);
        self.dirty.store(false, Ordering::Release);
        let (segment, end) = {
            let tail = lock(&self.tail);
            (tail.segment.clone(), tail.end)
        };
        let failed = self.failed.load(Ordering::Acquire) || self.ended.load(Ordering::Acquire);
        if failed || self.is_durable(end) {
            return false;
        }
        self.syncing_to.store(end.0, Ordering::Release);
        match self.stopwatch.sync(&*segment) {
            Ok(()) => self.durable.advance(end),
            Err(error) => self.fail(&error),
        }
        true
    }

    /// Returns how long the current sync has been running, if there is one.
    pub(crate) fn sync_age(&self) -> Option<Duration> {
        self.stopwatch.age()
    }

    /// Returns whether the current segment is still at its path.
    pub(crate) fn is_in_place(&self) -> bool {
        let segment = lock(&self.tail).segment.clone();
        segment.is_in_place()
    }

    /// Fails the journal if the current segment was truncated. Its records are in memory and go to the next
    /// segment.
    pub(crate) fn check_length(&self) {
        let segment = lock(&self.tail).segment.clone();
        if !segment.is_whole() {
            self.fail(&io::Error::other("the segment was truncated"));
        }
    }

    /// Rejects records until [`Journal::resume`], and fails all waiters.
    pub(crate) fn suspend(&self) {
        self.suspended.store(true, Ordering::Release);
        self.durable.wake_all();
    }

    pub(crate) fn resume(&self) {
        self.suspended.store(false, Ordering::Release);
    }

    pub(crate) fn is_suspended(&self) -> bool {
        self.suspended.load(Ordering::Acquire)
    }

    /// Returns the number of records that wait for a checkpoint.
    pub(crate) fn pending(&self) -> usize {
        let tail = lock(&self.tail);
        tail.pending.records + tail.taken_records
    }

    /// Returns whether records of this subject wait for a checkpoint.
    pub(crate) fn is_pending(&self, subject: &KeyId) -> bool {
        lock(&self.tail).pending.has(subject)
    }

    /// Takes the records that wait for a checkpoint.
    pub(crate) fn take(&self) -> PendingBatch {
        let mut tail = lock(&self.tail);
        let mut taken = mem::take(&mut tail.pending);
        taken.position = Some(tail.position);
        tail.taken = tail.end;
        tail.taken_records += taken.records;
        taken
    }

    /// Starts a new segment. All taken records must be checkpointed; after a failure, all records, as the
    /// old segment can no longer be trusted.
    ///
    /// # Errors
    ///
    /// The new segment cannot be created, the old one cannot be synced, or records written before a
    /// failure are not checkpointed yet.
    pub(crate) fn rotate(&self) -> io::Result<()> {
        let _syncing = lock(&self.syncing);
        if self.ended.load(Ordering::Acquire) {
            return Err(io::Error::other("the journal has ended"));
        }
        let (number, commit) = {
            let tail = lock(&self.tail);
            (tail.position.segment + 1, tail.commit)
        };
        let (segment, id, position) = create(&*self.disk, self.database, number, commit)?;
        // Writes fail while `tail` is locked and syncs while `syncing` is, so only an earlier failure can
        // be cleared here.
        let (old, end, had_failed) = {
            let mut tail = lock(&self.tail);
            let had_failed = self.failed.load(Ordering::Acquire);
            if had_failed && tail.taken < tail.end {
                return Err(io::Error::other("records are not checkpointed yet"));
            }
            if !had_failed && self.write(&mut tail, &Record::Rotated).is_err() {
                return Err(io::Error::other("the old segment could not be closed"));
            }
            (tail.id, tail.position) = (id, position);
            let old = mem::replace(&mut tail.segment, segment);
            self.failed.store(false, Ordering::Release);
            let commit_since = tail.commit;
            if commit_since != commit {
                let _ = self.write(&mut tail, &Record::Commit(commit_since));
            }
            (old, tail.end, had_failed)
        };
        if !had_failed && let Err(error) = self.stopwatch.sync(&*old) {
            self.fail(&error);
            return Err(error);
        }
        self.durable.advance(end);
        Ok(())
    }

    /// Notes that what was taken is checkpointed, and removes the segments that are not needed any more after this batch.
    pub(crate) fn truncate(&self, batch: &PendingBatch) -> io::Result<()> {
        lock(&self.tail).taken_records = 0;
        let Some(position) = batch.position else { return Ok(()) };
        if self.oldest.load(Ordering::Relaxed) >= position.segment {
            return Ok(());
        }
        for number in self.disk.segments()? {
            if number < position.segment {
                self.disk.remove(number)?;
            }
        }
        self.oldest.store(position.segment, Ordering::Relaxed);
        Ok(())
    }

    /// Returns whether the journal rejects records: a write or sync has failed since the current segment
    /// was created, or the journal is suspended or closed.
    pub(crate) fn has_failed(&self) -> bool {
        let set = |flag: &AtomicBool| flag.load(Ordering::Acquire);
        set(&self.failed) || set(&self.suspended) || set(&self.ended)
    }

    /// Closes the journal.
    pub(crate) fn end(&self) {
        self.ended.store(true, Ordering::Release);
        // Waits for a write that is in progress.
        drop(lock(&self.tail));
        self.durable.wake_all();
    }

    fn fail(&self, error: &io::Error) {
        let is_new = !self.failed.swap(true, Ordering::AcqRel);
        self.durable.wake_all();
        if is_new {
            self.stopwatch.count_failure();
            tracing::error!(%error, "journal write or sync failed: rejecting requests until it recovers");
        }
    }
}

/// Creates a segment that begins with the last commit. Returns it, its identity and the position of its next record.
fn create(
    disk: &dyn Disk,
    database: DatabaseId,
    number: u64,
    commit: Commit,
) -> io::Result<(Arc<dyn Segment>, SegmentId, Position)> {
    let id = SegmentId::new(database, number);
    let mut begin = id.head(disk.segment_length());
    id.frame(&Record::Commit(commit), HEAD, &mut begin)?;
    let position = Position { segment: number, offset: begin.len() as u64 };
    Ok((disk.create(number, &begin)?, id, position))
}

fn failure() -> StoreError {
    StoreError::unavailable("the journal cannot be written")
}

#[cfg(all(test, not(model)))]
mod tests {
    use super::*;
    use crate::store::{
        counter::{CounterKey, Origin},
        engine::journal::CountChange,
    };

    /// Disk on which every sync fails.
    struct Broken;

    impl Disk for Broken {
        fn segments(&self) -> io::Result<Vec<u64>> {
            Ok(Vec::new())
        }

        fn read(&self, _: u64) -> io::Result<Vec<u8>> {
            Ok(Vec::new())
        }

        fn segment_length(&self) -> u64 {
            0
        }

        fn create(&self, _: u64, _: &[u8]) -> io::Result<Arc<dyn Segment>> {
            Ok(Arc::new(Self))
        }

        fn remove(&self, _: u64) -> io::Result<()> {
            Ok(())
        }
    }

    impl Segment for Broken {
        fn write_at(&self, _: &[u8], _: u64) -> io::Result<()> {
            Ok(())
        }

        fn sync(&self) -> io::Result<()> {
            Err(io::Error::other("EIO"))
        }
    }

    fn append(journal: &Journal) -> Lsn {
        let origin = Origin { day: "2026-11-23".parse().unwrap(), epoch: 0 };
        let change = CountChange { used: 1, ..CountChange::of(origin) };
        let key = CounterKey::daily("alice".into());
        journal.append(Record::count(&key, change)).unwrap()
    }

    #[test]
    fn failure_persists_until_all_written_records_are_checkpointed() {
        let journal =
            Journal::begin(Box::new(Broken), 1, DatabaseId::default(), Commit::default()).unwrap();
        append(&journal);
        journal.take();
        let end = append(&journal);
        journal.sync();
        assert!(journal.rotate().is_err());
        assert!(journal.has_failed() && !journal.is_durable(end));
        journal.take();
        journal.rotate().unwrap();
        assert!(!journal.has_failed() && journal.is_durable(end));
    }
}
