//! Where segments lie.

use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

/// Numbered files that are written at the end only.
pub(crate) trait Disk: Send + Sync + 'static {
    /// The numbers of the segments that are there, in any order.
    fn segments(&self) -> io::Result<Vec<u64>>;

    /// What a segment holds.
    fn read(&self, number: u64) -> io::Result<Vec<u8>>;

    /// How long segments are from their creation on.
    fn segment_length(&self) -> u64;

    /// A new segment that begins with these bytes, and holds zeros behind them. Its name, its length and
    /// the bytes survive a loss of power, and it is never there without them.
    fn create(&self, number: u64, begin: &[u8]) -> io::Result<Arc<dyn Segment>>;

    /// Removes a segment.
    fn remove(&self, number: u64) -> io::Result<()>;
}

/// An open segment.
pub(crate) trait Segment: Send + Sync {
    /// Writes all of `bytes` at `offset`. They survive the end of the process.
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()>;

    /// All that was written before survives a loss of power.
    fn sync(&self) -> io::Result<()>;

    /// Whether it is as long as it was when it was created, or longer.
    fn is_whole(&self) -> bool {
        true
    }

    /// Whether it is still found under its name.
    fn is_in_place(&self) -> bool {
        true
    }
}

/// Whether this path leads to this open file: not if it was removed or replaced.
pub(crate) fn is_in_place(file: &File, path: &Path) -> bool {
    #[cfg(unix)]
    {
        use std::os::unix::fs::MetadataExt;
        let id = |of: fs::Metadata| (of.dev(), of.ino());
        let (open, named) = (file.metadata().map(id), fs::metadata(path).map(id));
        matches!((open, named), (Ok(open), Ok(named)) if open == named)
    }
    // Other systems do not let go of the name of an open file.
    #[cfg(not(unix))]
    {
        let _ = (file, path);
        true
    }
}

/// Makes the names of new files in it survive a loss of power.
pub(crate) fn sync_directory(directory: &Path) -> io::Result<()> {
    // Other systems cannot open a directory, and keep names safe by themselves.
    if cfg!(unix) { File::open(directory)?.sync_all() } else { Ok(()) }
}

/// A segment that has grown beyond this is followed by another one.
pub(crate) const SEGMENT_LENGTH: u64 = 16 << 20;

/// Files beside a database: `quota.db` → `quota.db.journal.1`.
pub(crate) struct FileDisk {
    directory: PathBuf,
    prefix: String,
}

impl FileDisk {
    /// The segments that belong to the database at this path.
    pub(crate) fn beside(database: &Path) -> Self {
        let name = database.file_name().unwrap_or_default().to_string_lossy();
        let directory = match database.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
            _ => PathBuf::from("."),
        };
        Self { directory, prefix: format!("{name}.journal.") }
    }

    /// The file of the segment with this number.
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
        // Under its own name it is whole. What is there under this one did not get far.
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
