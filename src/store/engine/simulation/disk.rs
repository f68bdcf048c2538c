//! Simulated faults: a disk that fails on demand and loses unsynced bytes, and commits that fail.

use std::{
    collections::BTreeMap,
    io,
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicBool, Ordering},
    },
};

use super::Random;
use crate::store::engine::journal::{Disk, Segment};

/// Length in bytes that most segments do not reach, and some exceed.
const SEGMENT_LENGTH: u64 = 2048;

/// Faults of the journal's disk and of the database's commits. Clones share their state.
#[derive(Clone, Default)]
pub(super) struct Faults {
    pub(super) disk: SimDisk,
    /// Set while commits fail.
    broken_commits: Arc<AtomicBool>,
}

impl Faults {
    pub(super) fn break_something(&self, random: &mut Random) {
        match random.below(6) {
            0 => self.disk.break_writes(random.pick(80)),
            1 => self.disk.break_syncs(),
            2 => self.broken_commits.store(true, Ordering::Relaxed),
            3 => self.disk.heal(),
            _ => self.heal(),
        }
    }

    pub(super) fn heal(&self) {
        self.disk.heal();
        self.broken_commits.store(false, Ordering::Relaxed);
    }

    pub(super) fn breaks_commits(&self) -> bool {
        self.broken_commits.load(Ordering::Relaxed)
    }

    pub(super) fn is_set(&self) -> bool {
        self.disk.is_broken() || self.breaks_commits()
    }
}

#[derive(Clone, Default)]
pub(super) struct SimDisk(Arc<Mutex<Files>>);

#[derive(Default)]
struct Files {
    files: BTreeMap<u64, File>,
    /// Number of bytes after which each write fails, while writes fail.
    broken_writes: Option<usize>,
    broken_syncs: bool,
}

#[derive(Clone, Default)]
struct File {
    bytes: Vec<u8>,
    /// Number of written bytes, which are followed by zeros.
    written: usize,
    /// Number of synced bytes.
    synced: usize,
}

struct SimSegment {
    disk: SimDisk,
    number: u64,
}

fn full() -> io::Error {
    io::Error::from(io::ErrorKind::StorageFull)
}

impl SimDisk {
    fn lock(&self) -> MutexGuard<'_, Files> {
        self.0.lock().unwrap()
    }

    /// Makes all further writes fail, each after `torn` bytes.
    pub(super) fn break_writes(&self, torn: usize) {
        self.lock().broken_writes = Some(torn);
    }

    pub(super) fn break_syncs(&self) {
        self.lock().broken_syncs = true;
    }

    pub(super) fn heal(&self) {
        let mut disk = self.lock();
        (disk.broken_writes, disk.broken_syncs) = (None, false);
    }

    pub(super) fn is_broken(&self) -> bool {
        let disk = self.lock();
        disk.broken_writes.is_some() || disk.broken_syncs
    }

    /// Loses the unsynced bytes from one offset on and garbles those before it from another, as `pick` chooses.
    pub(super) fn lose_power(&self, mut pick: impl FnMut(usize) -> usize) {
        let mut disk = self.lock();
        for file in disk.files.values_mut() {
            let garbled = file.synced + pick(file.written - file.synced + 1);
            let lost = garbled + pick(file.written - garbled + 1);
            file.bytes[garbled..lost].fill(if pick(2) == 0 { 0 } else { 0xa5 });
            file.bytes[lost..].fill(0);
            (file.written, file.synced) = (lost, lost);
        }
    }
}

impl Disk for SimDisk {
    fn segments(&self) -> io::Result<Vec<u64>> {
        Ok(self.lock().files.keys().copied().collect())
    }

    fn read(&self, number: u64) -> io::Result<Vec<u8>> {
        Ok(self.lock().files[&number].bytes.clone())
    }

    fn segment_length(&self) -> u64 {
        SEGMENT_LENGTH
    }

    fn create(&self, number: u64, begin: &[u8]) -> io::Result<Arc<dyn Segment>> {
        let mut disk = self.lock();
        if disk.broken_writes.is_some() || disk.broken_syncs {
            return Err(full());
        }
        let mut bytes = begin.to_vec();
        bytes.resize(SEGMENT_LENGTH as usize, 0);
        disk.files.insert(number, File { bytes, written: begin.len(), synced: begin.len() });
        Ok(Arc::new(SimSegment { disk: self.clone(), number }))
    }

    fn remove(&self, number: u64) -> io::Result<()> {
        self.lock().files.remove(&number);
        Ok(())
    }
}

impl Segment for SimSegment {
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let mut disk = self.disk.lock();
        let torn = disk.broken_writes;
        // A removed file can still be written through an open handle.
        let Some(file) = disk.files.get_mut(&self.number) else { return Ok(()) };
        let written = torn.map_or(bytes.len(), |torn| torn.min(bytes.len() - 1));
        let (begin, end) = (offset as usize, offset as usize + written);
        let length = file.bytes.len().max(end);
        file.bytes.resize(length, 0);
        file.bytes[begin..end].copy_from_slice(&bytes[..written]);
        file.written = end;
        if torn.is_some() { Err(full()) } else { Ok(()) }
    }

    fn sync(&self) -> io::Result<()> {
        let mut disk = self.disk.lock();
        if disk.broken_syncs {
            return Err(full());
        }
        if let Some(file) = disk.files.get_mut(&self.number) {
            file.synced = file.written;
        }
        Ok(())
    }
}
