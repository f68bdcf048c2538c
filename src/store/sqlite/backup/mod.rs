//! Exact backups of a database that may be in use, and restoring them.
//!
//! A request is recorded first in the journal and later in the database, and no lock covers both. A
//! copy is therefore made in this order:
//!
//! 1. Find the end of the journal. All requests that were completed before are recorded before it.
//! 2. Copy the database in one read transaction. The copy contains everything to which the
//!    journal's records before that end refer, such as their keys.
//! 3. Apply the journal's records between the position of the copy and that end to the copy, as
//!    opening the database would. The copy is then complete without a journal.
//!
//! A checkpoint may remove a segment between steps 1 and 3, and a record may be read while it is
//! being written. Both look like damage, and are distinguished from it by trying again.

pub(super) mod inspect;
pub(super) mod progress;

use std::{
    error::Error,
    fmt,
    fs::{self, File},
    io,
    path::{Path, PathBuf},
    process, thread,
    time::{Duration, SystemTime},
};

use rusqlite::{
    Connection, ErrorCode, OpenFlags,
    backup::{Backup, StepResult},
};

use self::progress::{Observer, OnProgress, ProgressStep};
use super::{
    OpenError, OpenErrorKind, SqliteOptions, checkpoint,
    file::{self, FileLock, with_suffix},
    keys::adopt,
    ledger::transaction,
    reading::PROGRESS_INTERVAL,
    schema,
    start::{self, Rest},
};
use crate::{
    clock::rfc3339,
    store::engine::journal::{Disk, FileDisk, Position, ReplayFrom, sync_directory},
};

/// Number of attempts after which a failure counts as damage.
const MAX_ATTEMPTS: u32 = 5;
/// Time between the first two attempts. It grows linearly.
const RETRY_INTERVAL: Duration = Duration::from_millis(50);
/// Suffix of the copy that is made for a migration.
pub(crate) const MIGRATION_PART: &str = ".migration.part";
/// Number of pages that are copied between two reports of the progress.
const PAGES_PER_STEP: i32 = 1024;

/// Behaviour of [`backup`] if the file already exists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IfExists {
    /// Fails and leaves the file unchanged.
    Fail,
    /// Replaces the file once the copy is complete.
    Replace,
}

/// Result of [`restore`].
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Restored {
    /// Files of the previous database, under their new names.
    pub kept: Vec<PathBuf>,
    /// Whether the file was a plain copy of a database instead of a backup, so that the contents of
    /// its journal are missing.
    pub lacks_journal: bool,
}

/// Error for a backup or restore that failed. No partial copy remains.
#[derive(Debug)]
pub struct BackupError {
    kind: BackupErrorKind,
    message: String,
    source: Option<Box<dyn Error + Send + Sync>>,
    /// Whether another attempt may succeed, because the files were in use.
    may_retry: bool,
}

/// Kind of a [`BackupError`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum BackupErrorKind {
    /// The file already exists.
    Exists,
    /// Requests or changes are provably missing from the database or its journal, as in
    /// [`OpenErrorKind::Loss`].
    Loss,
    /// [`OnProgress`] has stopped the work.
    Stopped,
    /// Any other failure.
    Other,
}

impl BackupError {
    pub(crate) fn new(message: impl Into<String>) -> Self {
        Self {
            kind: BackupErrorKind::Other,
            message: message.into(),
            source: None,
            may_retry: false,
        }
    }

    fn because(
        message: impl Into<String>,
        source: impl Into<Box<dyn Error + Send + Sync>>,
    ) -> Self {
        Self { source: Some(source.into()), ..Self::new(message) }
    }

    fn exists(file: &Path) -> Self {
        let message = format!("{} exists, and was left as it is", file.display());
        Self { kind: BackupErrorKind::Exists, ..Self::new(message) }
    }

    pub(crate) fn loss(message: String) -> Self {
        Self { kind: BackupErrorKind::Loss, may_retry: true, ..Self::new(message) }
    }

    /// SQLite failed to read or write the file.
    pub(crate) fn sqlite(path: &Path, error: rusqlite::Error) -> Self {
        let shown = path.display();
        let message = match error.sqlite_error_code() {
            Some(ErrorCode::NotADatabase) => format!("{shown} is not an SQLite database"),
            Some(ErrorCode::DatabaseCorrupt) => format!("{shown} is damaged"),
            Some(ErrorCode::OperationInterrupted) => return Self::stopped(),
            _ => format!("{shown} cannot be copied"),
        };
        Self::because(message, error)
    }

    fn stopped() -> Self {
        Self { kind: BackupErrorKind::Stopped, ..Self::new("the copy was stopped") }
    }

    /// Returns the kind of the error.
    pub fn kind(&self) -> BackupErrorKind {
        self.kind
    }
}

impl From<OpenError> for BackupError {
    fn from(error: OpenError) -> Self {
        let kind = match error.kind() {
            OpenErrorKind::Loss => BackupErrorKind::Loss,
            OpenErrorKind::Temporary | OpenErrorKind::Other => BackupErrorKind::Other,
        };
        Self { kind, ..Self::new(error.to_string()) }
    }
}

impl fmt::Display for BackupError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        match &self.source {
            Some(source) => write!(f, ": {source}"),
            None => Ok(()),
        }
    }
}

impl Error for BackupError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.source.as_ref().map(|source| &**source as &(dyn Error + 'static))
    }
}

/// Writes an exact copy of the database of these options to a new file. Another process may be
/// using the database.
///
/// The copy contains all requests that were completed and all changes that were made before the
/// call. Leased units are not counted, and unfinished requests are counted as failed, as after a
/// `kill -9`. The copy is checked and synced to disk, only its owner can access it, and it can be
/// opened without the journal.
///
/// # Errors
///
/// The file exists, is not a regular file, or has the name of one of the database's own files; the
/// database cannot be read, or requests are provably missing from it; or `on_progress` has stopped
/// the work.
pub fn backup(
    options: &SqliteOptions,
    file: &Path,
    if_exists: IfExists,
    on_progress: impl OnProgress + Send + 'static,
) -> Result<(), BackupError> {
    let source = with_canonical_path(options)?;
    let shown = file.display();
    if file.canonicalize().is_ok_and(|file| file == source.path) {
        return Err(BackupError::new(format!("{shown} is the database itself")));
    }
    if belongs_to(&source.path, file) {
        return Err(BackupError::new(format!(
            "{shown} is a file of the database itself; choose another name"
        )));
    }
    if let Ok(existing) = file.symlink_metadata() {
        if if_exists == IfExists::Fail {
            return Err(BackupError::exists(file));
        }
        // A rename would replace /dev/null.
        if !(existing.is_file() || existing.is_symlink()) {
            return Err(BackupError::new(format!("{shown} is not a regular file")));
        }
    }
    let part = Part::create(with_suffix(file, &format!(".{}.part", process::id())))?;
    let observer = Observer::new(on_progress);
    copy_with_journal(&source, &part, &observer)?;
    part.sync(&observer)?;
    part.publish(file, if_exists)
}

/// Replaces the database of these options, which must not be in use, with a copy of this file. The
/// previous database and its journal are kept under other names, and the new one starts a new
/// journal.
///
/// # Errors
///
/// The database is in use; the file is damaged, newer than this program, or of another program; it
/// cannot be copied; or `on_progress` has stopped the work. The database is left unchanged.
pub fn restore(
    options: &SqliteOptions,
    file: &Path,
    on_progress: impl OnProgress + Send + 'static,
) -> Result<Restored, BackupError> {
    let observer = Observer::new(on_progress);
    let source = Source::open(file)?;
    let database = LockedDatabase::take(&options.path)?;
    if file.canonicalize().is_ok_and(|file| file == database.path) {
        return Err(BackupError::new(format!("{} is the database itself", file.display())));
    }
    let part = Part::create(with_suffix(&database.path, ".restore.part"))?;
    let copy = copy_pages(&source.connection, file, &part, &observer)?;
    let failed = |error| BackupError::sqlite(file, error);
    let position = checkpoint::read_position(&copy).map_err(failed)?;
    let lacks_journal = matches!(position, ReplayFrom::Position(_));
    let finish = || {
        // In a plain copy, the number of leased units that were used is unknown.
        checkpoint::spend_leases(&copy)?;
        checkpoint::fail_open_requests(&copy)?;
        checkpoint::detach_journal(&copy)
    };
    transaction(&copy, finish).map_err(failed)?;
    drop((copy, source));
    part.check(file, &observer)?;
    part.sync(&observer)?;
    let kept = set_aside(&database.path)
        .map_err(|error| BackupError::because("the database could not be renamed", error))?;
    part.publish(&database.path, IfExists::Replace)?;
    Ok(Restored { kept, lacks_journal })
}

/// Lock on the database that is to be replaced. The file is created if it does not exist.
struct LockedDatabase {
    path: PathBuf,
    /// Whether the file was created for the lock.
    is_new: bool,
    _lock: FileLock,
}

impl LockedDatabase {
    fn take(path: &Path) -> Result<Self, BackupError> {
        let is_new = path.symlink_metadata().is_err();
        let path = file::create(path)?;
        let lock = FileLock::take(&path)?;
        Ok(Self { path, is_new, _lock: lock })
    }
}

impl Drop for LockedDatabase {
    fn drop(&mut self) {
        if self.is_new && file::is_empty(&self.path) {
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// Returns the options with the canonical path of their database, which must exist.
pub(crate) fn with_canonical_path(options: &SqliteOptions) -> Result<SqliteOptions, BackupError> {
    let shown = options.path.display();
    let path = options.path.canonicalize();
    let path =
        path.map_err(|error| BackupError::because(format!("{shown} cannot be read"), error))?;
    Ok(SqliteOptions { path, ..options.clone() })
}

/// Whether the file has the name of the database's WAL, rollback journal, lock or journal segment.
fn belongs_to(database: &Path, file: &Path) -> bool {
    let directory = match file.parent() {
        Some(parent) if parent != Path::new("") => parent,
        _ => Path::new("."),
    };
    let (Ok(directory), Some(name)) = (directory.canonicalize(), file.file_name()) else {
        return false;
    };
    let file = directory.join(name);
    let suffix = file.as_os_str().as_encoded_bytes();
    let suffix = suffix.strip_prefix(database.as_os_str().as_encoded_bytes());
    suffix.is_some_and(|suffix| {
        [&b"-journal"[..], b"-wal", b"-shm", b".lock"].contains(&suffix)
            || suffix.starts_with(b".journal.")
    })
}

/// Database of this program that is open read-only.
pub(crate) struct Source {
    pub(crate) connection: Connection,
    /// Whether the schema is the current one. An older one is valid, too.
    pub(crate) is_current: bool,
}

impl Source {
    pub(crate) fn open(path: &Path) -> Result<Self, BackupError> {
        let shown = path.display();
        // SQLite does not say why it cannot open a file.
        fs::metadata(path)
            .map_err(|error| BackupError::because(format!("{shown} cannot be read"), error))?;
        let connection =
            file::open_read_only(path).map_err(|error| BackupError::sqlite(path, error))?;
        let is_current = schema::is_current(&connection).map_err(|error| match error {
            schema::MigrateError::Foreign => {
                BackupError::new(format!("{shown} is not a database of this program"))
            }
            schema::MigrateError::Sqlite(error) => BackupError::sqlite(path, error),
            newer => file::cannot_migrate(path, newer).into(),
        })?;
        Ok(Self { connection, is_current })
    }
}

/// Exact copy of a database, which is removed when it is dropped.
#[cfg(feature = "postgres")]
pub(crate) struct ExactCopy {
    pub(crate) connection: Connection,
    _part: Part,
}

#[cfg(feature = "postgres")]
impl ExactCopy {
    /// Copies the database of these options, as [`backup`] does, to a file beside it with this suffix.
    pub(crate) fn make(
        options: &SqliteOptions,
        suffix: &str,
        observer: &Observer,
    ) -> Result<Self, BackupError> {
        let part = Part::create(with_suffix(&options.path, suffix))?;
        copy_with_journal(options, &part, observer)?;
        let connection = Source::open(&part.path)?.connection;
        Ok(Self { connection, _part: part })
    }
}

/// Locks a database whose contents are to be moved, so that no process counts in it meanwhile.
#[cfg(feature = "postgres")]
pub(crate) fn lock_for_migration(options: &SqliteOptions) -> Result<FileLock, BackupError> {
    if inspect::is_in_use(&options.path) {
        return Err(BackupError::new(format!(
            "{} is in use by another process: stop that gateway first, so that it counts nothing that \
             would be left behind",
            options.path.display()
        )));
    }
    Ok(FileLock::take(&options.path)?)
}

pub(super) fn copy_with_journal(
    options: &SqliteOptions,
    part: &Part,
    observer: &Observer,
) -> Result<(), BackupError> {
    retry(|| try_copy_with_journal(options, part, observer), || !observer.is_stopped())
}

/// Retries work that may have failed only because the files are in use, while `is_running` holds.
pub(crate) fn retry<T>(
    mut work: impl FnMut() -> Result<T, BackupError>,
    is_running: impl Fn() -> bool,
) -> Result<T, BackupError> {
    let mut attempt = 1;
    loop {
        match work() {
            Err(error) if error.may_retry && attempt < MAX_ATTEMPTS && is_running() => {
                thread::sleep(RETRY_INTERVAL * attempt);
                attempt += 1;
            }
            result => return result,
        }
    }
}

fn try_copy_with_journal(
    options: &SqliteOptions,
    part: &Part,
    observer: &Observer,
) -> Result<(), BackupError> {
    let path = &options.path;
    let disk = FileDisk::beside(path);
    let source = Source::open(path)?;
    let end = journal_end(&source, &disk, options)?;
    part.empty()?;
    let copy = copy_pages(&source.connection, path, part, observer)?;
    drop(source);
    let rest = read_journal(&copy, &disk, end, options)?;
    if let Some(loss) = start::first_of(&rest.losses()) {
        return Err(BackupError::loss(loss));
    }
    let finish = || {
        rest.apply(&copy)?;
        // The copy must not contain a key in clear.
        adopt::all(&copy, options.default_limits)?;
        checkpoint::detach_journal(&copy)
    };
    transaction(&copy, finish).map_err(|error| BackupError::sqlite(path, error))?;
    drop(copy);
    rest.log_dropped();
    part.check(path, observer)
}

/// Returns the current end of the journal, or `None` if the schema is older, so that no process
/// writes a journal.
pub(crate) fn journal_end(
    source: &Source,
    disk: &FileDisk,
    options: &SqliteOptions,
) -> Result<Option<Position>, BackupError> {
    if !source.is_current {
        return Ok(None);
    }
    let rest = read_journal(&source.connection, disk, None, options)?;
    match start::first_of(&rest.flaws()) {
        Some(flaw) => Err(BackupError::loss(flaw)),
        None => Ok(Some(rest.end())),
    }
}

pub(crate) fn read_journal(
    connection: &Connection,
    disk: &FileDisk,
    until: Option<Position>,
    options: &SqliteOptions,
) -> Result<Rest, BackupError> {
    // A segment may be removed after the directory was listed.
    Rest::read(connection, disk, until, options)
        .map_err(|error| BackupError { may_retry: true, ..error.into() })
}

/// Copies all pages in one read transaction, and migrates the copy.
fn copy_pages(
    from: &Connection,
    path: &Path,
    part: &Part,
    observer: &Observer,
) -> Result<Connection, BackupError> {
    let failed = |error| BackupError::sqlite(path, error);
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let mut copy = Connection::open_with_flags(&part.path, flags).map_err(failed)?;
    // The copy is synced once it is complete, and no other process uses it before.
    copy.execute_batch("PRAGMA locking_mode = EXCLUSIVE; PRAGMA synchronous = OFF")
        .map_err(failed)?;
    // Without a transaction, SQLite restarts the backup at each commit of another process.
    from.execute_batch("BEGIN; SELECT count(*) FROM sqlite_master").map_err(failed)?;
    let page_size: u64 =
        from.query_row("PRAGMA page_size", [], |row| row.get(0)).map_err(failed)?;
    {
        let pages = Backup::new(from, &mut copy).map_err(failed)?;
        loop {
            let step = pages.step(PAGES_PER_STEP).map_err(failed)?;
            let rusqlite::backup::Progress { remaining, pagecount } = pages.progress();
            let bytes = |pages: i32| u64::try_from(pages).unwrap_or_default() * page_size;
            let (done, total) = (bytes(pagecount - remaining), bytes(pagecount));
            if !observer.report_part(ProgressStep::Copy, done, Some(total)) {
                return Err(BackupError::stopped());
            }
            match step {
                StepResult::Done => break,
                StepResult::More => {}
                _ => {
                    let shown = path.display();
                    return Err(BackupError::new(format!("{shown} is locked by another process")));
                }
            }
        }
    }
    from.execute_batch("COMMIT").map_err(failed)?;
    observe(&copy, path, ProgressStep::Checkpoint, observer)?;
    // The copied header says that the database is in WAL mode.
    copy.execute_batch("PRAGMA journal_mode = MEMORY; PRAGMA secure_delete = ON")
        .map_err(failed)?;
    schema::migrate(&copy).map_err(|error| match error {
        schema::MigrateError::Sqlite(error) => BackupError::sqlite(path, error),
        error => file::cannot_migrate(path, error).into(),
    })?;
    Ok(copy)
}

/// Reports `step` now and while SQLite executes statements on this connection, which belongs to a
/// copy of the database at `path`.
fn observe(
    copy: &Connection,
    path: &Path,
    step: ProgressStep,
    observer: &Observer,
) -> Result<(), BackupError> {
    observer.report(step).then_some(()).ok_or_else(BackupError::stopped)?;
    let observer = observer.clone();
    copy.progress_handler(PROGRESS_INTERVAL, Some(move || !observer.report(step)))
        .map_err(|error| BackupError::sqlite(path, error))
}

/// Fails if SQLite's integrity check finds damage in the database, which is, or is a copy of, the
/// one at `path`.
pub(crate) fn check_integrity(
    connection: &Connection,
    path: &Path,
    pragma: &str,
) -> Result<(), BackupError> {
    let result: Result<String, _> = connection.query_row(pragma, [], |row| row.get(0));
    match result.map_err(|error| BackupError::sqlite(path, error))?.as_str() {
        "ok" => Ok(()),
        damage => {
            let (shown, damage) = (path.display(), damage.replace('\n', " "));
            Err(BackupError::new(format!("{shown} is damaged: {}", damage.trim())))
        }
    }
}

/// File under a temporary name. It is removed on drop, together with SQLite's files beside it.
pub(super) struct Part {
    pub(super) path: PathBuf,
}

impl Part {
    /// Creates the file for its owner only, after removing a leftover one.
    pub(super) fn create(path: PathBuf) -> Result<Self, BackupError> {
        let part = Self { path };
        part.empty()?;
        Ok(part)
    }

    pub(super) fn failed(&self, error: io::Error) -> BackupError {
        BackupError::because(format!("{} cannot be written", self.path.display()), error)
    }

    /// Replaces the file with an empty one.
    fn empty(&self) -> Result<(), BackupError> {
        self.remove();
        let mut options = File::options();
        options.create_new(true).write(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        options.open(&self.path).map(drop).map_err(|error| self.failed(error))
    }

    pub(super) fn remove(&self) {
        for suffix in ["", "-journal", "-wal", "-shm"] {
            let _ = fs::remove_file(with_suffix(&self.path, suffix));
        }
    }

    /// Checks the complete copy of `source` for damage.
    fn check(&self, source: &Path, observer: &Observer) -> Result<(), BackupError> {
        let copy = Source::open(&self.path)?.connection;
        observe(&copy, source, ProgressStep::Check, observer)?;
        check_integrity(&copy, source, "PRAGMA integrity_check(1)")?;
        checkpoint::read_identity(&copy).map_err(|error| BackupError::sqlite(source, error))?;
        Ok(())
    }

    /// Syncs the file to disk, before it is published.
    fn sync(&self, observer: &Observer) -> Result<(), BackupError> {
        let report = |step| observer.report(step).then_some(()).ok_or_else(BackupError::stopped);
        report(ProgressStep::Sync)?;
        let sync = || File::open(&self.path)?.sync_all();
        sync().map_err(|error| self.failed(error))?;
        report(ProgressStep::Publish)
    }

    /// Renames the file to `file` durably.
    fn publish(self, file: &Path, if_exists: IfExists) -> Result<(), BackupError> {
        let failed =
            |error| BackupError::because(format!("{} cannot be written", file.display()), error);
        match if_exists {
            IfExists::Replace => fs::rename(&self.path, file).map_err(failed)?,
            // Unlike a rename, a link fails if the file exists.
            IfExists::Fail => match fs::hard_link(&self.path, file) {
                Ok(()) => {}
                Err(_) if file.symlink_metadata().is_ok() => return Err(BackupError::exists(file)),
                // Some file systems do not support links.
                Err(_) => fs::rename(&self.path, file).map_err(failed)?,
            },
        }
        sync_directory(directory(file)).map_err(failed)
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        self.remove();
    }
}

fn directory(file: &Path) -> &Path {
    file.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Renames the files of a database consistently and returns their new names.
///
/// The database file itself also keeps its old name until it is replaced, so that it cannot be
/// opened without its journal if the process ends in between.
fn set_aside(database: &Path) -> io::Result<Vec<PathBuf>> {
    if fs::metadata(database)?.len() == 0 {
        return Ok(Vec::new());
    }
    let time = rfc3339(SystemTime::now()).replace(['-', ':'], "");
    let names = (0..).map(|n| match n {
        0 => with_suffix(database, &format!(".replaced-{time}")),
        n => with_suffix(database, &format!(".replaced-{time}-{n}")),
    });
    let mut unused = names.skip_while(|name| name.symlink_metadata().is_ok());
    let aside = unused.next().unwrap_or_else(|| with_suffix(database, ".replaced"));
    if fs::hard_link(database, &aside).is_err() {
        fs::copy(database, &aside)?;
    }
    let mut kept = vec![aside.clone()];
    let mut rename = |from: PathBuf, to: PathBuf| match fs::rename(from, &to) {
        Ok(()) => {
            kept.push(to);
            Ok(())
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    };
    // SQLite would apply these to the new database.
    for suffix in ["-wal", "-journal", "-shm"] {
        rename(with_suffix(database, suffix), with_suffix(&aside, suffix))?;
    }
    let (disk, kept_disk) = (FileDisk::beside(database), FileDisk::beside(&aside));
    for number in disk.segments()? {
        rename(disk.path(number), kept_disk.path(number))?;
    }
    sync_directory(directory(database))?;
    Ok(kept)
}

/// Returns the path of the copy that is made for a download.
pub(super) fn unfinished(database: &Path) -> PathBuf {
    with_suffix(database, ".backup.part")
}

/// Removes the incomplete copies of a process that was killed.
pub(crate) fn remove_unfinished(database: &Path) {
    let of = |suffix| with_suffix(database, suffix);
    for path in [unfinished(database), of(".restore.part"), of(MIGRATION_PART)] {
        drop(Part { path });
    }
}
