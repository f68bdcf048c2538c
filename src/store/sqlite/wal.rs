//! Whether SQLite's write-ahead log is still the one that commits go to.

use std::{
    fs::File,
    io::{self, Read, Seek, SeekFrom},
    path::{Path, PathBuf},
    time::Duration,
};

use rusqlite::{ErrorCode, ffi};

use super::{
    file::{self, wal_path},
    fold,
};
use crate::store::journal::{Commit, is_in_place};

/// How long the writer waits for another program while it looks whether commits are missing.
const BUSY_TIMEOUT: Duration = Duration::from_millis(100);

/// The WAL beside the database. A commit to one that was removed or cut looks like any other, and is
/// gone at the next start.
pub(super) struct Wal {
    database: PathBuf,
    path: PathBuf,
    file: File,
    /// How long it was after the last commit.
    length: u64,
    /// Which one it is: SQLite changes its salts when it begins it anew.
    salts: Option<[u8; 8]>,
    /// The commits up to this one are in the database's file itself.
    checkpointed: u64,
    /// Whether commits were found missing: that lasts.
    lacks_commits: bool,
}

impl Wal {
    /// The WAL of a database that was opened and written. The commits up to `checkpointed` are in the
    /// database's file itself.
    pub(super) fn open(database: &Path, checkpointed: u64) -> io::Result<Self> {
        let path = wal_path(database);
        let file = File::open(&path)?;
        let length = file.metadata()?.len();
        let database = database.to_owned();
        let mut wal =
            Self { database, path, file, length, salts: None, checkpointed, lacks_commits: false };
        wal.salts = wal.read_salts();
        Ok(wal)
    }

    /// Whether the WAL lies where the next start will look for it.
    pub(super) fn is_in_place(&self) -> bool {
        is_in_place(&self.file, &self.path)
    }

    /// To be asked before each transaction: `commit` is the number of the last one.
    ///
    /// # Errors
    ///
    /// The WAL was removed, replaced or cut.
    pub(super) fn check(&mut self, commit: u64) -> rusqlite::Result<()> {
        if !self.is_in_place() {
            return Err(unusable("the WAL was removed or replaced; put it back, or restart"));
        }
        if self.read_length()? < self.length {
            // Another program may have checkpointed it, and have cut it with good reason.
            self.lacks_commits |= self.last_commit()? < commit;
            self.note_length();
        }
        if self.lacks_commits {
            return Err(unusable("the WAL was cut, and commits with it; restart"));
        }
        Ok(())
    }

    /// What is known after a commit of this number.
    pub(super) fn note_commit(&mut self, number: u64) -> Commit {
        self.note_length();
        let salts = self.read_salts();
        if salts != self.salts {
            // It is begun anew only when all that was in it is in the database.
            (self.salts, self.checkpointed) = (salts, number - 1);
        }
        Commit { number, checkpointed: self.checkpointed }
    }

    /// To be called after each checkpoint of this program.
    pub(super) fn note_length(&mut self) {
        self.length = self.read_length().unwrap_or(self.length);
    }

    fn read_length(&self) -> rusqlite::Result<u64> {
        let metadata = self.file.metadata();
        metadata.map(|metadata| metadata.len()).map_err(|error| unusable(&error.to_string()))
    }

    /// The salts in its head, if it has one.
    fn read_salts(&self) -> Option<[u8; 8]> {
        let mut head = [0; 24];
        let mut file = &self.file;
        file.seek(SeekFrom::Start(0)).and_then(|_| file.read_exact(&mut head)).ok()?;
        let mut salts = [0; 8];
        salts.copy_from_slice(&head[16..]);
        Some(salts)
    }

    /// The last commit that a new connection finds, which has no page in its cache; 0 if it finds a
    /// file that it cannot read.
    fn last_commit(&self) -> rusqlite::Result<u64> {
        let read = || {
            let connection = file::open_read_only(&self.database)?;
            connection.busy_timeout(BUSY_TIMEOUT)?;
            fold::read_identity(&connection).map(|(_, commits)| commits)
        };
        read().or_else(|error| match error.sqlite_error_code() {
            Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => Err(error),
            _ => Ok(0),
        })
    }
}

fn unusable(why: &str) -> rusqlite::Error {
    rusqlite::Error::SqliteFailure(ffi::Error::new(ffi::SQLITE_IOERR), Some(why.to_owned()))
}
