//! What a start does with what the last process left behind.

use rusqlite::Connection;

use super::{OpenError, SqliteOptions, checkpoint, file, jobs, schema};
use crate::store::{
    engine::journal::{
        Commit, DatabaseId, Disk, Flaw, Journal, Position, Replay, ReplayFrom, ReplayRange, replay,
    },
    engine::pending::PendingBatch,
};

/// A journal that goes on where the last process has ended.
pub(super) struct Begun {
    pub(super) journal: Journal,
    /// What was lost, and accepted as lost.
    pub(super) losses: Vec<String>,
    /// The commits up to this one are in the database's file itself.
    pub(super) checkpointed: u64,
}

/// Looks at a database that is there before anything is written to it or its WAL, as a refused start
/// changes no file. `None` if it is new, or of another version: then its tables are looked at first.
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

/// Folds the rest of the journal and begins a new segment.
///
/// On the same boot of the machine every record of the last process is there, so the units that it
/// had charged ahead and not used are given back. After another boot records may be missing, and
/// those units count as used. Requests that never ended were cut off: they have failed.
pub(super) fn begin(
    connection: &Connection,
    disk: Box<dyn Disk>,
    options: &SqliteOptions,
    examined: Option<Rest>,
) -> Result<Begun, OpenError> {
    let shown = options.path.display();
    let unreadable =
        |error| OpenError::because(format!("the journal of {shown} cannot be read"), error);
    let unwritable =
        |error| OpenError::because(format!("the journal of {shown} cannot be written"), error);
    let failed = |error| OpenError::because(format!("{shown} cannot be written"), error);

    let segments = disk.segments().map_err(unreadable)?;
    let mut rest = match examined {
        Some(rest) => rest,
        None => Rest::read(connection, &*disk, None, options)?.accepted(options)?,
    };
    let known = match rest.from {
        ReplayFrom::Begin => 0,
        ReplayFrom::Position(Position { segment, .. }) | ReplayFrom::After(segment) => segment,
    };
    let last = segments.into_iter().max().unwrap_or(0).max(known);
    rest.log_dropped();
    let losses = rest.losses();
    losses.iter().for_each(|loss| tracing::warn!(loss, "accepted as lost"));
    let journal =
        Journal::begin(disk, last + 1, rest.database, rest.last_commit()).map_err(unwritable)?;
    rest.pending.append(journal.take());
    let commit = journal.next_commit();
    let fold = || {
        rest.fold(connection)?;
        checkpoint::write_boot(connection, options.boot.as_deref())?;
        checkpoint::write_commit(connection, commit)
    };
    jobs::transaction(connection, fold).map_err(failed)?;
    let checkpointed = rest.last_commit().checkpointed;
    journal.note_commit(Commit { number: commit, checkpointed });
    journal.truncate(&rest.pending).map_err(unwritable)?;
    Ok(Begun { journal, losses, checkpointed })
}

/// What the journal holds and its database does not.
pub(super) struct Rest {
    pub(super) pending: PendingBatch,
    found: Replay,
    /// How the database's path is shown.
    shown: String,
    from: ReplayFrom,
    database: DatabaseId,
    commits: u64,
    /// The last commit that the database's file holds without its WAL, if that was looked at.
    in_file: Option<u64>,
    same_boot: bool,
}

impl Rest {
    /// Reads the journal behind the database's position, up to `until`.
    pub(super) fn read(
        connection: &Connection,
        disk: &dyn Disk,
        until: Option<Position>,
        options: &SqliteOptions,
    ) -> Result<Self, OpenError> {
        let shown = options.path.display().to_string();
        let failed = |error| OpenError::because(format!("{shown} cannot be read"), error);
        let (database, commits) = checkpoint::read_identity(connection).map_err(failed)?;
        let from = checkpoint::read_position(connection).map_err(failed)?;
        let same_boot = is_same_boot(connection, options.boot.as_deref()).map_err(failed)?;
        let mut pending = PendingBatch::default();
        let range = ReplayRange { from, until };
        let found = replay(disk, range, database, |record| pending.add(&record));
        let found = found.map_err(|error| {
            OpenError::because(format!("the journal of {shown} cannot be read"), error)
        })?;
        let in_file = None;
        Ok(Self { pending, found, shown, from, database, commits, in_file, same_boot })
    }

    /// The same, unless something is missing and that was not accepted.
    fn accepted(self, options: &SqliteOptions) -> Result<Self, OpenError> {
        match first_of(&self.losses()).filter(|_| !options.accept_loss) {
            Some(loss) => Err(OpenError::loss(loss)),
            None => Ok(self),
        }
    }

    /// The database's last commit, and what its file is known to hold of them.
    fn last_commit(&self) -> Commit {
        let checkpointed = self.found.commit.checkpointed.min(self.commits);
        Commit { number: self.commits, checkpointed }
    }

    /// Where the journal's last good record ends; before all if there is none to be read.
    pub(super) fn end(&self) -> Position {
        self.found.end.unwrap_or_default()
    }

    /// What of answered requests and changes is not there any more, with the file that shows it.
    pub(super) fn losses(&self) -> Vec<String> {
        let mut losses = self.flaws();
        let (shown, commits) = (&self.shown, self.commits);
        let Commit { number, checkpointed } = self.found.commit;
        if number > commits {
            losses.push(format!(
                "{shown} is older than its journal: it ends with commit {commits}, and \
                 {shown}.journal.* says that commit {number} was answered; changes of keys and counts \
                 are missing from it"
            ));
        } else if let Some(in_file) = self.in_file.filter(|in_file| *in_file < checkpointed) {
            losses.push(format!(
                "{shown} is older than its WAL: it ends with commit {in_file}, and {shown}-wal was begun \
                 behind commit {checkpointed}; changes of keys and counts are missing from it"
            ));
        }
        if let Some(in_file) = self.in_file.filter(|in_file| *in_file > commits) {
            losses.push(format!(
                "{shown}-wal is older than its database: it leads back from commit {in_file} to commit \
                 {commits}; changes of keys and counts would be taken back"
            ));
        }
        losses
    }

    /// What is wrong with the journal itself.
    pub(super) fn flaws(&self) -> Vec<String> {
        let flaws = self.found.flaws.iter().filter(|flaw| !self.is_of_power(flaw));
        let shown = &self.shown;
        flaws
            .map(|flaw| {
                let segment = flaw.segment();
                format!(
                    "the journal {shown}.journal.{segment} {flaw}, so what was counted may be missing"
                )
            })
            .collect()
    }

    /// A loss of power leaves pages behind in any order, and what was answered lies before them. On
    /// the same boot every byte is as it was written.
    fn is_of_power(&self, flaw: &Flaw) -> bool {
        flaw.may_be_of_power() && !self.same_boot
    }

    /// Logs the ends of segments that are not read, and lose nothing that was answered.
    pub(super) fn log_dropped(&self) {
        for (place, bytes) in &self.found.torn {
            let (segment, offset) = (place.segment, place.offset);
            tracing::warn!(
                segment,
                offset,
                bytes,
                "journal tail dropped: its write did not finish"
            );
        }
        for flaw in self.found.flaws.iter().filter(|flaw| self.is_of_power(flaw)) {
            let segment = flaw.segment();
            tracing::warn!(segment, %flaw, "journal tail dropped: its end did not survive");
        }
    }

    /// Writes it into the tables, as what a process has left that is at its end.
    pub(super) fn fold(&self, connection: &Connection) -> rusqlite::Result<()> {
        checkpoint::write(connection, &self.pending)?;
        if self.same_boot {
            checkpoint::return_leases(connection)?;
        } else {
            checkpoint::spend_leases(connection)?;
        }
        checkpoint::fail_open_requests(connection)
    }
}

/// The first loss, and how many more there are.
pub(super) fn first_of(losses: &[String]) -> Option<String> {
    let (first, more) = losses.split_first()?;
    Some(match more.len() {
        0 => first.clone(),
        more => format!("{first} (and {more} more)"),
    })
}

fn is_same_boot(connection: &Connection, boot: Option<&str>) -> rusqlite::Result<bool> {
    Ok(boot.is_some() && checkpoint::read_boot(connection)?.as_deref() == boot)
}

/// Names this boot of the machine, where the system tells.
pub(super) fn this_boot() -> Option<String> {
    let id = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
    Some(id.trim().to_owned()).filter(|id| !id.is_empty())
}
