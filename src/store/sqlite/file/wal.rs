//! Detection of lost commits in SQLite's write-ahead log (WAL).

use std::{
    fs::File,
    io::{self, Read, Seek, SeekFrom},
    path::{Path, PathBuf},
    time::Duration,
};

use rusqlite::{ErrorCode, ffi};

use super::{super::checkpoint, open_read_only, wal_path};
use crate::store::engine::journal::{Commit, is_in_place};

/// Time for which the check for missing commits waits for another program.
const BUSY_TIMEOUT: Duration = Duration::from_millis(100);

/// WAL of the database. A commit to a WAL that was removed or truncated succeeds, but is lost when
/// the database is opened again.
pub(crate) struct Wal {
    database: PathBuf,
    path: PathBuf,
    file: File,
    /// Length after the last commit.
    length: u64,
    /// Salts in the header of the WAL, which SQLite changes when it resets the WAL.
    salts: Option<[u8; 8]>,
    /// Number of the last commit that was checkpointed into the database file.
    checkpointed: u64,
    /// Whether commits have been found missing, which is permanent.
    lacks_commits: bool,
}

impl Wal {
    /// Opens the WAL of a database that was opened and written. `checkpointed` is the number of the
    /// last commit that was checkpointed into the database file.
    pub(crate) fn open(database: &Path, checkpointed: u64) -> io::Result<Self> {
        let path = wal_path(database);
        let file = File::open(&path)?;
        let length = file.metadata()?.len();
        let database = database.to_owned();
        let mut wal =
            Self { database, path, file, length, salts: None, checkpointed, lacks_commits: false };
        wal.salts = wal.read_salts();
        Ok(wal)
    }

    /// Whether the WAL is still at the path at which SQLite opens it.
    pub(crate) fn is_in_place(&self) -> bool {
        is_in_place(&self.file, &self.path)
    }

    /// Checks the WAL before a transaction. `commit` is the number of the last commit.
    ///
    /// # Errors
    ///
    /// The WAL was removed, replaced or truncated.
    pub(crate) fn check(&mut self, commit: u64) -> rusqlite::Result<()> {
        if !self.is_in_place() {
            return Err(unusable("the WAL was removed or replaced; put it back, or restart"));
        }
        if self.read_length()? < self.length {
            // Another program may have checkpointed and truncated it properly.
            self.lacks_commits |= self.last_commit()? < commit;
            self.note_length();
        }
        if self.lacks_commits {
            return Err(unusable("the WAL was cut, and commits with it; restart"));
        }
        Ok(())
    }

    /// Updates the state of the WAL after the commit with this number.
    pub(crate) fn note_commit(&mut self, number: u64) -> Commit {
        self.note_length();
        let salts = self.read_salts();
        if salts != self.salts {
            // SQLite resets the WAL only after all of it was checkpointed.
            (self.salts, self.checkpointed) = (salts, number - 1);
        }
        Commit { number, checkpointed: self.checkpointed }
    }

    /// Updates the length of the WAL after a checkpoint of this program.
    pub(crate) fn note_length(&mut self) {
        self.length = self.read_length().unwrap_or(self.length);
    }

    fn read_length(&self) -> rusqlite::Result<u64> {
        let metadata = self.file.metadata();
        metadata.map(|metadata| metadata.len()).map_err(|error| unusable(&error.to_string()))
    }

    /// Returns the salts in the header of the WAL, if it has one.
    fn read_salts(&self) -> Option<[u8; 8]> {
        let mut head = [0; 24];
        let mut file = &self.file;
        file.seek(SeekFrom::Start(0)).and_then(|_| file.read_exact(&mut head)).ok()?;
        let mut salts = [0; 8];
        salts.copy_from_slice(&head[16..]);
        Some(salts)
    }

    /// Returns the number of the last commit that a new connection without cached pages finds, or 0
    /// if it cannot read the file.
    fn last_commit(&self) -> rusqlite::Result<u64> {
        let read = || {
            let connection = open_read_only(&self.database)?;
            connection.busy_timeout(BUSY_TIMEOUT)?;
            checkpoint::read_identity(&connection).map(|(_, commits)| commits)
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
