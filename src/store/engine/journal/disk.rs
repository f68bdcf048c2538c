//! Storage of segments: the trait [`Disk`], and its implementation in files.

use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

/// Storage of numbered, append-only segments.
pub(crate) trait Disk: Send + Sync + 'static {
    /// Returns the numbers of the existing segments, in any order.
    fn segments(&self) -> io::Result<Vec<u64>>;

    /// Returns the content of a segment.
    fn read(&self, number: u64) -> io::Result<Vec<u8>>;

    /// Returns the length of a new segment, in bytes.
    fn segment_length(&self) -> u64;

    /// Creates a segment of these bytes followed by zeros. It appears atomically and durably: name, length
    /// and bytes together.
    fn create(&self, number: u64, begin: &[u8]) -> io::Result<Arc<dyn Segment>>;

    /// Removes a segment.
    fn remove(&self, number: u64) -> io::Result<()>;
}

/// An open segment.
pub(crate) trait Segment: Send + Sync {
    /// Writes all of `bytes` at `offset`. They survive the end of the process, and
    /// a power failure once they are synced.
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()>;

    /// Syncs all earlier writes to the disk.
    fn sync(&self) -> io::Result<()>;

    /// Returns whether the segment is at least as long as when it was created.
    fn is_whole(&self) -> bool {
        true
    }

    /// Returns whether the segment is still found under its name.
    fn is_in_place(&self) -> bool {
        true
    }
}

/// Returns whether the path still refers to this open file.
pub(crate) fn is_in_place(file: &File, path: &Path) -> bool {
    #[cfg(unix)]
    {
        use std::os::unix::fs::MetadataExt;
        let id = |of: fs::Metadata| (of.dev(), of.ino());
        let (open, named) = (file.metadata().map(id), fs::metadata(path).map(id));
        matches!((open, named), (Ok(open), Ok(named)) if open == named)
    }
    // Other systems do not allow an open file to be removed or replaced.
    #[cfg(not(unix))]
    {
        let _ = (file, path);
        true
    }
}

/// Syncs a directory, so that the names of its new files survive a power failure.
pub(crate) fn sync_directory(directory: &Path) -> io::Result<()> {
    // Other systems cannot open a directory, and make names durable by themselves.
    if cfg!(unix) { File::open(directory)?.sync_all() } else { Ok(()) }
}

/// Length in bytes from which a segment is followed by a new one.
pub(crate) const SEGMENT_LENGTH: u64 = 16 << 20;

/// Segments as files in the directory of the database: `quota.db` → `quota.db.journal.1`.
pub(crate) struct FileDisk {
    directory: PathBuf,
    prefix: String,
}

impl FileDisk {
    /// Returns the storage of the segments of the database at this path.
    pub(crate) fn beside(database: &Path) -> Self {
        let name = database.file_name().unwrap_or_default().to_string_lossy();
        let directory = match database.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
            _ => PathBuf::from("."),
        };
        Self { directory, prefix: format!("{name}.journal.") }
    }

    /// Returns the path of the segment with this number.
    pub(crate) fn path(&self, number: u64) -> PathBuf {
        self.named(&number.to_string())
    }

    fn named(&self, suffix: &str) -> PathBuf {
        self.directory.join(format!("{}{suffix}", self.prefix))
    }
}

impl Disk for FileDisk {
    fn segments(&self) -> io::Result<Vec<u64>> {
        let mut numbers = Vec::new();
        for entry in fs::read_dir(&self.directory)? {
            let name = entry?.file_name();
            let number = name.to_str().and_then(|name| name.strip_prefix(&self.prefix));
            numbers.extend(number.and_then(|number| number.parse::<u64>().ok()));
        }
        Ok(numbers)
    }

    fn read(&self, number: u64) -> io::Result<Vec<u8>> {
        fs::read(self.path(number))
    }

    fn segment_length(&self) -> u64 {
        SEGMENT_LENGTH
    }

    fn create(&self, number: u64, begin: &[u8]) -> io::Result<Arc<dyn Segment>> {
        let mut options = File::options();
        options.create(true).truncate(true).write(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        // Renamed only when it is complete. A file left under the temporary name is overwritten.
        let new = self.named("new");
        let segment = FileSegment { file: options.open(&new)?, path: self.path(number) };
        segment.file.set_len(SEGMENT_LENGTH)?;
        segment.write_at(begin, 0)?;
        segment.file.sync_all()?;
        fs::rename(new, &segment.path)?;
        sync_directory(&self.directory)?;
        Ok(Arc::new(segment))
    }

    fn remove(&self, number: u64) -> io::Result<()> {
        fs::remove_file(self.path(number))
    }
}

struct FileSegment {
    file: File,
    path: PathBuf,
}

impl Segment for FileSegment {
    #[cfg(unix)]
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        std::os::unix::fs::FileExt::write_all_at(&self.file, bytes, offset)
    }

    #[cfg(not(unix))]
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        use std::io::{Seek, SeekFrom, Write};
        let mut file = &self.file;
        file.seek(SeekFrom::Start(offset))?;
        file.write_all(bytes)
    }

    fn sync(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    fn is_whole(&self) -> bool {
        self.file.metadata().is_ok_and(|metadata| metadata.len() >= SEGMENT_LENGTH)
    }

    fn is_in_place(&self) -> bool {
        is_in_place(&self.file, &self.path)
    }
}
