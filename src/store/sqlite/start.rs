//! Checks before the journal is replayed, at a start or for a copy of the database.

use rusqlite::Connection;

use super::{OpenError, SqliteOptions, file, ledger::SqliteLedger, schema};
use crate::store::engine::{
    Recovery, RecoveryError,
    journal::{Disk, Journal, Position},
};

/// Result of comparing journal and database.
pub(super) struct Rest {
    recovery: Recovery,
    /// Path of the database, for messages.
    name: String,
    /// Last commit in the database file without its WAL, if that was read.
    in_file: Option<u64>,
}

/// Result of a start.
pub(super) struct Started {
    pub(super) journal: Journal,
    /// Descriptions of the losses that were accepted.
    pub(super) losses: Vec<String>,
    /// Number of the last commit that is in the database file itself.
    pub(super) checkpointed: u64,
}

/// Checks an existing database before anything is written to it or its WAL, so that a rejected start
/// changes no file. Returns `None` if it is new or of another version, and needs a migration first.
pub(super) fn examine(disk: &dyn Disk, options: &SqliteOptions) -> Result<Option<Rest>, OpenError> {
    let shown = options.path.display();
    let failed = |error| OpenError::because(format!("{shown} cannot be opened"), error);
    if file::is_empty(&options.path) {
        return Ok(None);
    }
    let connection = file::open_read_only(&options.path).map_err(failed)?;
    if !matches!(schema::is_current(&connection), Ok(true)) {
        return Ok(None);
    }
    let mut rest = Rest::read(&connection, disk, None, options)?;
    rest.in_file = file::read_commits_in_file(&options.path);
    rest.accepted(options).map(Some)
}

/// Applies the rest of the journal to the tables and starts a new segment.
pub(super) fn start(
    ledger: &mut SqliteLedger,
    disk: Box<dyn Disk>,
    options: &SqliteOptions,
    examined: Option<Rest>,
) -> Result<Started, OpenError> {
    let rest = match examined {
        Some(rest) => rest,
        None => Rest::read(ledger.connection(), &*disk, None, options)?.accepted(options)?,
    };
    rest.log_dropped();
    let losses = rest.losses();
    losses.iter().for_each(|loss| tracing::warn!(loss, "changes are missing: accepted as lost"));
    let Rest { recovery, name, .. } = rest;
    let checkpointed = recovery.last_commit().checkpointed;
    let journal = recovery
        .start(ledger, disk, options.boot.as_deref())
        .map_err(|error| open_error(&name, error))?;
    Ok(Started { journal, losses, checkpointed })
}

fn open_error(name: &str, error: RecoveryError<rusqlite::Error>) -> OpenError {
    match error {
        RecoveryError::Ledger(error) => {
            OpenError::because(format!("{name} cannot be written"), error)
        }
        RecoveryError::Read(error) => {
            OpenError::because(format!("the journal of {name} cannot be read"), error)
        }
        RecoveryError::Write(error) => {
            OpenError::because(format!("the journal of {name} cannot be written"), error)
        }
    }
}

impl Rest {
    /// Reads the journal from the database's position up to `until`.
    pub(super) fn read(
        connection: &Connection,
        disk: &dyn Disk,
        until: Option<Position>,
        options: &SqliteOptions,
    ) -> Result<Self, OpenError> {
        let name = options.path.display().to_string();
        let boot = options.boot.as_deref();
        match Recovery::read::<SqliteLedger>(connection, disk, until, boot) {
            Ok(recovery) => Ok(Self { recovery, name, in_file: None }),
            Err(RecoveryError::Ledger(error)) => {
                Err(OpenError::because(format!("{name} cannot be read"), error))
            }
            Err(error) => Err(open_error(&name, error)),
        }
    }

    /// Fails if something is missing, unless losses are accepted.
    fn accepted(self, options: &SqliteOptions) -> Result<Self, OpenError> {
        match first_of(&self.losses()).filter(|_| !options.accept_loss) {
            Some(loss) => Err(OpenError::loss(loss)),
            None => Ok(self),
        }
    }

    /// Returns the end of the last valid record, or the start of the journal.
    pub(super) fn end(&self) -> Position {
        self.recovery.end()
    }

    /// Returns descriptions of missing requests and changes, each with the file that shows the loss.
    pub(super) fn losses(&self) -> Vec<String> {
        let mut losses = self.flaws();
        let (name, commits) = (&self.name, self.recovery.last_commit().number);
        let noted = self.recovery.noted_commit();
        if noted.number > commits {
            let number = noted.number;
            losses.push(format!(
                "{name} is older than its journal: it ends with commit {commits}, and \
                 {name}.journal.* says that commit {number} was confirmed; changes of keys and counts \
                 are missing from it"
            ));
        } else if let Some(in_file) = self.in_file.filter(|in_file| *in_file < noted.checkpointed) {
            let checkpointed = noted.checkpointed;
            losses.push(format!(
                "{name} is older than its WAL: it ends with commit {in_file}, and {name}-wal was begun \
                 behind commit {checkpointed}; changes of keys and counts are missing from it"
            ));
        }
        if let Some(in_file) = self.in_file.filter(|in_file| *in_file > commits) {
            losses.push(format!(
                "{name}-wal is older than its database: it leads back from commit {in_file} to commit \
                 {commits}; changes of keys and counts would be taken back"
            ));
        }
        losses
    }

    /// Returns descriptions of the flaws of the journal itself.
    pub(super) fn flaws(&self) -> Vec<String> {
        let name = &self.name;
        let flaws = self.recovery.flaws().map(|flaw| {
            let segment = flaw.segment();
            format!(
                "the journal {name}.journal.{segment} {flaw}, so what was counted may be missing"
            )
        });
        flaws.collect()
    }

    /// Logs the dropped tails of segments, on which no response depends.
    pub(super) fn log_dropped(&self) {
        self.recovery.log_dropped();
    }

    /// Applies the rest of the journal.
    pub(super) fn apply(&self, connection: &Connection) -> rusqlite::Result<()> {
        self.recovery.apply::<SqliteLedger>(connection)
    }
}

/// Returns the first loss, and the number of further ones.
pub(super) fn first_of(losses: &[String]) -> Option<String> {
    let (first, more) = losses.split_first()?;
    Some(match more.len() {
        0 => first.clone(),
        more => format!("{first} (and {more} more)"),
    })
}
