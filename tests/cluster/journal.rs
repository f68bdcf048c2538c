//! The journal of a gateway as files: copied, and after a loss of power.

use std::{
    fs::{self, File},
    ops::Range,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
};

use crate::common::{Random, postgres::psql};

/// Size of the parts of a file that reach the disk independently of each other.
const PAGE: usize = 4096;

/// A journal in a directory of its own.
pub(crate) struct JournalFiles {
    directory: PathBuf,
}

/// End of what is written in a journal.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Written {
    segment: u64,
    offset: usize,
}

impl JournalFiles {
    /// A journal that is still to be made.
    pub(crate) fn new(directory: PathBuf) -> Self {
        fs::create_dir(&directory).unwrap();
        Self { directory }
    }

    /// The value for the gateway's `JOURNAL_PATH`.
    pub(crate) fn path(&self) -> String {
        self.directory.join("quota").to_str().unwrap().to_owned()
    }

    /// Copies all files, one after the other, as they are found.
    pub(crate) fn copy_to(&self, directory: PathBuf) -> Self {
        let copy = Self::new(directory);
        for entry in fs::read_dir(&self.directory).unwrap() {
            let entry = entry.unwrap();
            // A segment may have been removed since.
            let _ = fs::copy(entry.path(), copy.directory.join(entry.file_name()));
        }
        copy
    }

    /// The id of the node, as the database writes it.
    pub(crate) fn node_id(&self) -> String {
        let segment = fs::read(self.segment(self.last_segment())).unwrap();
        segment[16..32].iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// Lets the database believe that the machine has been restarted since its node was started.
    pub(crate) fn note_another_boot(&self, url: &str) {
        let id = self.node_id();
        let note = format!("UPDATE nodes SET boot = 'another' WHERE id = '\\x{id}' RETURNING 1");
        assert_eq!(psql(url, &note), "1");
    }

    /// How far it is written.
    pub(crate) fn written(&self) -> Written {
        let segment = self.last_segment();
        let bytes = fs::read(self.segment(segment)).unwrap();
        let zeros = bytes.rchunks(PAGE).take_while(|page| **page == [0; PAGE][..page.len()]);
        let end = bytes.len() - zeros.map(<[u8]>::len).sum::<usize>();
        let offset = bytes[..end].iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
        Written { segment, offset }
    }

    /// Takes away all that was written since. Returns the number of bytes.
    pub(crate) fn lose_since(&self, since: Written) -> usize {
        let range = self.written_since(since);
        self.lose(since.segment, range)
    }

    /// Takes away some of what was written since: all from some byte on, or a page. Returns the number of bytes.
    pub(crate) fn lose_some_since(&self, since: Written, random: &mut Random) -> usize {
        let Range { start, end } = self.written_since(since);
        if start == end {
            return 0;
        }
        let start = start + random.below((end - start) as u64) as usize;
        let end = match random.below(2) {
            0 => end,
            _ => end.min((start / PAGE + 1) * PAGE),
        };
        self.lose(since.segment, start..end)
    }

    fn written_since(&self, since: Written) -> Range<usize> {
        let end = self.written();
        // A segment is synced when another one takes its place.
        if end.segment == since.segment { since.offset..end.offset } else { 0..0 }
    }

    fn lose(&self, segment: u64, range: Range<usize>) -> usize {
        let file = File::options().write(true).open(self.segment(segment)).unwrap();
        file.write_all_at(&vec![0; range.len()], range.start as u64).unwrap();
        range.len()
    }

    fn segment(&self, number: u64) -> PathBuf {
        self.directory.join(format!("quota.journal.{number}"))
    }

    fn last_segment(&self) -> u64 {
        let number = |path: &Path| path.extension()?.to_str()?.parse().ok();
        let entries = fs::read_dir(&self.directory).unwrap();
        entries.filter_map(|entry| number(&entry.unwrap().path())).max().unwrap()
    }
}
