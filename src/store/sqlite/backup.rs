//! Exact copies of a database that may be in use, and putting one in a database's place.
//!
//! What was answered is in the database or in its journal, in two steps that no lock joins. So a copy
//! is made in this order:
//!
//! 1. The end of the journal is read. All that was answered before lies before it.
//! 2. The database is copied in one read transaction. All that the journal's records before that end
//!    refer to, such as their keys, is in it.
//! 3. What lies in the journal between the copy's position and that end is folded into the copy, as a
//!    start would do it. It becomes a database of its own, which needs no journal.
//!
//! A checkpoint may remove a segment between 1 and 3, and a record may be read while it is written.
//! Both look like damage, and are told from it by another attempt.

use std::{
    error::Error,
    fmt,
    fs::{self, File},
    io::{self, Read},
    ops::ControlFlow,
    path::{Path, PathBuf},
    process,
    sync::{Arc, atomic::Ordering},
    thread,
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use rusqlite::{
    Connection, ErrorCode, OpenFlags,
    backup::{Backup, StepResult},
};
use tokio::sync::OwnedSemaphorePermit;

use super::{
    OpenError, OpenErrorKind, SqliteOptions, SqliteStore, adopt,
    file::{self, FileLock, with_suffix},
    fold, jobs,
    progress::{Observer, OnProgress, Progress, ProgressStep},
    reading::{STEPS, Waits},
    schema,
    start::{self, Rest},
};
use crate::{
    clock::rfc3339,
    error::{StoreError, StoreErrorKind},
    store::{
        StoreBackup, StoreFuture,
        journal::{Disk, FileDisk, Position, ReplayFrom, sync_directory},
        sync::{Mutex, lock},
    },
};

/// How many times a copy is tried before what stands in its way counts as damage.
const ATTEMPTS: u32 = 5;
/// How long it waits before another attempt, longer each time.
const RETRY_INTERVAL: Duration = Duration::from_millis(50);
/// How many pages are copied between two reports of the progress.
const PAGES_PER_STEP: i32 = 1024;
/// How many bytes of a copy are read at once.
const CHUNK_LENGTH: u64 = 256 * 1024;

/// What [`backup`] does with a file that is there already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IfExists {
    /// Leaves it as it is and fails.
    Fail,
    /// Puts the copy in its place, once that is complete.
    Replace,
}

/// What [`restore`] has done.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Restored {
    /// The files of the database that was there before, under their new names.
    pub kept: Vec<PathBuf>,
    /// Whether the file was a plain copy of a database, no backup: what lay in its journal is missing.
    pub lacks_journal: bool,
}

/// A copy could not be made or put in place. Nothing is left of it.
#[derive(Debug)]
pub struct BackupError {
    kind: BackupErrorKind,
    message: String,
    source: Option<Box<dyn Error + Send + Sync>>,
    /// Whether another attempt may succeed, as the files are in use.
    may_pass: bool,
}

/// What kind of failure a [`BackupError`] is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum BackupErrorKind {
    /// The file is there already.
    Exists,
    /// Answered requests or changes are provably missing from the database or its journal, as in
    /// [`OpenErrorKind::Loss`].
    Loss,
    /// [`OnProgress`] has stopped it.
    Stopped,
    /// Anything else.
    Other,
}

impl BackupError {
    pub(super) fn new(message: impl Into<String>) -> Self {
        Self {
            kind: BackupErrorKind::Other,
            message: message.into(),
            source: None,
            may_pass: false,
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

    pub(super) fn loss(message: String) -> Self {
        Self { kind: BackupErrorKind::Loss, may_pass: true, ..Self::new(message) }
    }

    /// SQLite has failed to read or to write one of these files.
    pub(super) fn sqlite(path: &Path, error: rusqlite::Error) -> Self {
        let shown = path.display();
        let message = match error.sqlite_error_code() {
            Some(ErrorCode::NotADatabase) => format!("{shown} is no SQLite database"),
            Some(ErrorCode::DatabaseCorrupt) => format!("{shown} is damaged"),
            Some(ErrorCode::OperationInterrupted) => return Self::stopped(),
            _ => format!("{shown} cannot be copied"),
        };
        Self::because(message, error)
    }

    fn stopped() -> Self {
        Self { kind: BackupErrorKind::Stopped, ..Self::new("the copy was stopped") }
    }

    /// What kind of failure it is.
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

/// Writes an exact copy of the database of these options into a new file. Another process may serve
/// from the database meanwhile.
///
/// All requests that were answered and all changes that were made before the call are in the copy;
/// units that were charged ahead are not counted, and requests under way are counted and have failed,
/// as after a `kill -9`. The copy is checked, is its owner's only, survives a loss of power, and can
/// be opened anywhere, with no journal beside it.
///
/// # Errors
///
/// The file exists, is no regular file, or has the name of one of the database's own; the database cannot
/// be read, or answered requests are provably missing from it; or `on_progress` has stopped it.
pub fn backup(
    options: &SqliteOptions,
    file: &Path,
    if_exists: IfExists,
    on_progress: impl OnProgress + Send + 'static,
) -> Result<(), BackupError> {
    let source = source(options)?;
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
        // Renaming would put a file in the place of /dev/null.
        if !(existing.is_file() || existing.is_symlink()) {
            return Err(BackupError::new(format!("{shown} is no regular file")));
        }
    }
    let part = Part::create(with_suffix(file, &format!(".{}.part", process::id())))?;
    let observer = Observer::new(on_progress);
    copy_with_journal(&source, &part, &observer)?;
    part.sync(&observer)?;
    part.publish(file, if_exists)
}

/// Puts a copy of this file in the place of the database of these options, which nobody may have
/// open. The database that is there is kept under another name, with its journal, and the new one
/// begins a journal of its own.
///
/// # Errors
///
/// The database is in use; the file is damaged, newer than this program, or another program's; it
/// cannot be copied; or `on_progress` has stopped it. What is there is left as it is.
pub fn restore(
    options: &SqliteOptions,
    file: &Path,
    on_progress: impl OnProgress + Send + 'static,
) -> Result<Restored, BackupError> {
    let observer = Observer::new(on_progress);
    let from = open_source(file)?;
    let database = LockedDatabase::take(&options.path)?;
    if file.canonicalize().is_ok_and(|file| file == database.path) {
        return Err(BackupError::new(format!("{} is the database itself", file.display())));
    }
    let part = Part::create(with_suffix(&database.path, ".restore.part"))?;
    let copy = copy_pages(&from, file, &part, &observer)?;
    let failed = |error| BackupError::sqlite(file, error);
    let position = fold::read_position(&copy).map_err(failed)?;
    let lacks_journal = matches!(position, ReplayFrom::Position(_));
    let finish = || {
        // Of a plain copy nobody knows how many of the units that are charged ahead were used.
        fold::use_blocks(&copy)?;
        fold::end_open(&copy)?;
        fold::begin_anew(&copy)
    };
    jobs::transaction(&copy, finish).map_err(failed)?;
    drop((copy, from));
    part.check(file, &observer)?;
    part.sync(&observer)?;
    let kept = set_aside(&database.path)
        .map_err(|error| BackupError::because("what is there could not be set aside", error))?;
    part.publish(&database.path, IfExists::Replace)?;
    Ok(Restored { kept, lacks_journal })
}

/// Where a database lies or is to lie, locked.
struct LockedDatabase {
    path: PathBuf,
    /// Whether the file was made for the lock.
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

/// The options with the one true path of their database, which must be there.
pub(super) fn source(options: &SqliteOptions) -> Result<SqliteOptions, BackupError> {
    let shown = options.path.display();
    let path = options.path.canonicalize();
    let path =
        path.map_err(|error| BackupError::because(format!("{shown} cannot be read"), error))?;
    Ok(SqliteOptions { path, ..options.clone() })
}

/// Whether SQLite, the journal or the lock gives this name to a file beside the database.
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

/// Opens a database of ours to be read only.
pub(super) fn open_source(path: &Path) -> Result<Connection, BackupError> {
    let failed = |error| BackupError::sqlite(path, error);
    let shown = path.display();
    // SQLite says no more than that it could not open the file.
    fs::metadata(path)
        .map_err(|error| BackupError::because(format!("{shown} cannot be read"), error))?;
    let connection = file::open_read_only(path).map_err(failed)?;
    is_current(&connection, path)?;
    Ok(connection)
}

/// Whether the tables are those of this version; a failure if they are not ours, or newer.
pub(super) fn is_current(connection: &Connection, path: &Path) -> Result<bool, BackupError> {
    let shown = path.display();
    schema::is_current(connection).map_err(|error| match error {
        schema::MigrateError::Foreign => {
            BackupError::new(format!("{shown} is no database of this program"))
        }
        schema::MigrateError::Sqlite(error) => BackupError::sqlite(path, error),
        newer => file::cannot_migrate(path, newer).into(),
    })
}

fn copy_with_journal(
    options: &SqliteOptions,
    part: &Part,
    observer: &Observer,
) -> Result<(), BackupError> {
    retry(|| try_copy_with_journal(options, part, observer), || !observer.is_stopped())
}

/// Tries again what may have failed only because the files are in use, while `go_on` says so.
pub(super) fn retry<T>(
    mut work: impl FnMut() -> Result<T, BackupError>,
    go_on: impl Fn() -> bool,
) -> Result<T, BackupError> {
    let mut attempt = 1;
    loop {
        match work() {
            Err(error) if error.may_pass && attempt < ATTEMPTS && go_on() => {
                thread::sleep(RETRY_INTERVAL * attempt);
                attempt += 1;
            }
            done => return done,
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
    let source = open_source(path)?;
    let end = journal_end(&source, &disk, options)?;
    part.empty()?;
    let copy = copy_pages(&source, path, part, observer)?;
    drop(source);
    let rest = read_journal(&copy, &disk, end, options)?;
    if let Some(loss) = start::first_of(&rest.losses()) {
        return Err(BackupError::loss(loss));
    }
    let finish = || {
        rest.fold(&copy)?;
        // No key in clear travels with a copy.
        adopt::all(&copy, options.default_daily_limit)?;
        fold::begin_anew(&copy)
    };
    jobs::transaction(&copy, finish).map_err(|error| BackupError::sqlite(path, error))?;
    drop(copy);
    rest.log_dropped();
    part.check(path, observer)
}

/// Where the journal ends now; `None` if nobody writes it, as the database is an older version's.
pub(super) fn journal_end(
    connection: &Connection,
    disk: &FileDisk,
    options: &SqliteOptions,
) -> Result<Option<Position>, BackupError> {
    if !is_current(connection, &options.path)? {
        return Ok(None);
    }
    let seen = read_journal(connection, disk, None, options)?;
    match start::first_of(&seen.flaws()) {
        Some(flaw) => Err(BackupError::loss(flaw)),
        None => Ok(Some(seen.end())),
    }
}

pub(super) fn read_journal(
    connection: &Connection,
    disk: &FileDisk,
    until: Option<Position>,
    options: &SqliteOptions,
) -> Result<Rest, BackupError> {
    // A segment may be removed between the look at the directory and its reading.
    Rest::read(connection, disk, until, options)
        .map_err(|error| BackupError { may_pass: true, ..error.into() })
}

/// Copies all pages as they are at one instant, and brings the copy's tables up to date.
fn copy_pages(
    from: &Connection,
    path: &Path,
    part: &Part,
    observer: &Observer,
) -> Result<Connection, BackupError> {
    let failed = |error| BackupError::sqlite(path, error);
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let mut copy = Connection::open_with_flags(&part.path, flags).map_err(failed)?;
    // The whole file is synced at the end, and nobody else looks at it before.
    copy.execute_batch("PRAGMA locking_mode = EXCLUSIVE; PRAGMA synchronous = OFF")
        .map_err(failed)?;
    // SQLite would begin anew with each commit of another process if this were no transaction.
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
    // The pages say that there is a WAL.
    copy.execute_batch("PRAGMA journal_mode = MEMORY; PRAGMA secure_delete = ON")
        .map_err(failed)?;
    schema::migrate(&copy).map_err(|error| match error {
        schema::MigrateError::Sqlite(error) => BackupError::sqlite(path, error),
        error => file::cannot_migrate(path, error).into(),
    })?;
    Ok(copy)
}

/// Reports `step`, and again while SQLite works with this connection from now on. It works on a copy of
/// the database of this path.
fn observe(
    copy: &Connection,
    path: &Path,
    step: ProgressStep,
    observer: &Observer,
) -> Result<(), BackupError> {
    observer.report(step).then_some(()).ok_or_else(BackupError::stopped)?;
    let observer = observer.clone();
    copy.progress_handler(STEPS, Some(move || !observer.report(step)))
        .map_err(|error| BackupError::sqlite(path, error))
}

/// A file under a temporary name. It is removed on drop, with what SQLite has laid beside it.
struct Part {
    path: PathBuf,
}

impl Part {
    /// A new file for its owner only, in the place of one that was left behind.
    fn create(path: PathBuf) -> Result<Self, BackupError> {
        let part = Self { path };
        part.empty()?;
        Ok(part)
    }

    fn failed(&self, error: io::Error) -> BackupError {
        BackupError::because(format!("{} cannot be written", self.path.display()), error)
    }

    /// Begins the file anew.
    fn empty(&self) -> Result<(), BackupError> {
        self.remove();
        let mut options = File::options();
        options.create_new(true).write(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        options.open(&self.path).map(drop).map_err(|error| self.failed(error))
    }

    fn remove(&self) {
        for suffix in ["", "-journal", "-wal", "-shm"] {
            let _ = fs::remove_file(with_suffix(&self.path, suffix));
        }
    }

    /// Opens what was copied from `source` anew, and checks that it is whole.
    fn check(&self, source: &Path, observer: &Observer) -> Result<(), BackupError> {
        let failed = |error| BackupError::sqlite(source, error);
        let copy = open_source(&self.path)?;
        observe(&copy, source, ProgressStep::Check, observer)?;
        let verdict: String =
            copy.query_row("PRAGMA integrity_check(1)", [], |row| row.get(0)).map_err(failed)?;
        if verdict != "ok" {
            let shown = source.display();
            let verdict = verdict.replace('\n', " ");
            return Err(BackupError::new(format!("{shown} is damaged: {}", verdict.trim())));
        }
        fold::read_identity(&copy).map_err(failed)?;
        Ok(())
    }

    /// Makes what is in the file survive a loss of power, so that it may be published.
    fn sync(&self, observer: &Observer) -> Result<(), BackupError> {
        let report = |step| observer.report(step).then_some(()).ok_or_else(BackupError::stopped);
        report(ProgressStep::Sync)?;
        let sync = || File::open(&self.path)?.sync_all();
        sync().map_err(|error| self.failed(error))?;
        report(ProgressStep::Publish)
    }

    /// Gives the file its name, for good.
    fn publish(self, file: &Path, if_exists: IfExists) -> Result<(), BackupError> {
        let failed =
            |error| BackupError::because(format!("{} cannot be written", file.display()), error);
        match if_exists {
            IfExists::Replace => fs::rename(&self.path, file).map_err(failed)?,
            // A link is refused where the name is taken, which a rename is not.
            IfExists::Fail => match fs::hard_link(&self.path, file) {
                Ok(()) => {}
                Err(_) if file.symlink_metadata().is_ok() => return Err(BackupError::exists(file)),
                // Some file systems have no links.
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

/// Gives the files of a database other names, under which they still belong together, and returns
/// these. The database itself also keeps its name until another one takes it: if this is cut short,
/// its start is refused, for want of its journal.
fn set_aside(database: &Path) -> io::Result<Vec<PathBuf>> {
    if fs::metadata(database)?.len() == 0 {
        return Ok(Vec::new());
    }
    let time = rfc3339(SystemTime::now()).replace(['-', ':'], "");
    let name = (0..).map(|more| match more {
        0 => with_suffix(database, &format!(".replaced-{time}")),
        more => with_suffix(database, &format!(".replaced-{time}-{more}")),
    });
    let mut names = name.skip_while(|name| name.symlink_metadata().is_ok());
    let aside = names.next().unwrap_or_else(|| with_suffix(database, ".replaced"));
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
    // SQLite would read these into whatever lies under the name.
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

/// The copy that is read by a client, beside the database.
fn unfinished(database: &Path) -> PathBuf {
    with_suffix(database, ".backup.part")
}

/// Removes what a process that was killed has left of a copy.
pub(super) fn remove_unfinished(database: &Path) {
    for path in [unfinished(database), with_suffix(database, ".restore.part")] {
        drop(Part { path });
    }
}

/// A copy that is read, and kept nowhere.
struct ReadCopy {
    file: File,
    _part: Part,
    /// Given up last: the next copy has the same name.
    _turn: OwnedSemaphorePermit,
}

impl ReadCopy {
    fn make(
        options: &SqliteOptions,
        turn: OwnedSemaphorePermit,
        observer: &Observer,
    ) -> Result<(Self, u64), BackupError> {
        let part = Part::create(unfinished(&options.path))?;
        copy_with_journal(options, &part, observer)?;
        let open = || {
            let file = File::open(&part.path)?;
            let length = file.metadata()?.len();
            Ok((file, length))
        };
        let (file, length) = open().map_err(|error| part.failed(error))?;
        // Where files may be open without a name, nothing is left behind whatever happens.
        if cfg!(unix) {
            part.remove();
        }
        Ok((Self { file, _part: part, _turn: turn }, length))
    }

    fn chunk(&self) -> io::Result<Bytes> {
        let mut chunk = Vec::with_capacity(CHUNK_LENGTH as usize);
        (&self.file).take(CHUNK_LENGTH).read_to_end(&mut chunk)?;
        Ok(chunk.into())
    }
}

impl SqliteStore {
    /// Makes a copy beside the file, and reads it. It is gone once it was read or dropped.
    pub(super) async fn copy(&self) -> Result<StoreBackup, StoreError> {
        let turn = self.0.copying.clone().try_acquire_owned();
        let turn = turn.map_err(|_| StoreError::new(StoreErrorKind::Busy))?;
        // What is held in memory only, such as figures of rejections.
        self.written().await;
        let (_waits, still) = Waits::new();
        let observer = Observer::new(move |_: &Progress| match still.load(Ordering::Relaxed) {
            true => ControlFlow::Continue(()),
            false => ControlFlow::Break(()),
        });
        let store = self.clone();
        let make = move || ReadCopy::make(&store.0.options, turn, &observer);
        let made = tokio::task::spawn_blocking(make).await.map_err(StoreError::unavailable)?;
        let (copy, length) = made.map_err(StoreError::unavailable)?;
        let copy = Arc::new(Mutex::new(copy));
        Ok(StoreBackup::new(length, move || {
            let copy = copy.clone();
            StoreFuture::pending(async move {
                let chunk = tokio::task::spawn_blocking(move || lock(&copy).chunk()).await;
                chunk.map_err(StoreError::unavailable)?.map_err(StoreError::unavailable)
            })
        }))
    }
}
