//! What a start does with what the last process left behind.

use rusqlite::Connection;

use super::{OpenError, SqliteOptions, fold, jobs};
use crate::store::journal::{
    DatabaseId, Disk, Flaw, Journal, Position, Replay, ReplayFrom, ReplayRange, Unfolded, replay,
};

/// A journal that goes on where the last process has ended.
pub(super) struct Begun {
    pub(super) journal: Journal,
    /// What was lost, and accepted as lost.
    pub(super) losses: Vec<String>,
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
) -> Result<Begun, OpenError> {
    let shown = options.path.display();
    let unreadable =
        |error| OpenError::because(format!("the journal of {shown} cannot be read"), error);
    let unwritable =
        |error| OpenError::because(format!("the journal of {shown} cannot be written"), error);
    let failed = |error| OpenError::because(format!("{shown} cannot be written"), error);

    let segments = disk.segments().map_err(unreadable)?;
    let mut rest = Rest::read(connection, &*disk, None, options)?;
    let known = match rest.from {
        ReplayFrom::Begin => 0,
        ReplayFrom::Position(Position { segment, .. }) | ReplayFrom::After(segment) => segment,
    };
    let last = segments.into_iter().max().unwrap_or(0).max(known);
    rest.log_dropped();
    let losses = rest.losses();
    if let Some(loss) = first_of(&losses).filter(|_| !options.accept_loss) {
        return Err(OpenError::loss(loss));
    }
    losses.iter().for_each(|loss| tracing::warn!(loss, "accepted as lost"));
    let journal =
        Journal::begin(disk, last + 1, rest.database, rest.commits).map_err(unwritable)?;
    rest.unfolded.append(journal.take());
    let commit = journal.next_commit();
    let fold = || {
        rest.fold(connection)?;
        fold::write_boot(connection, options.boot.as_deref())?;
        fold::write_commit(connection, commit)
    };
    jobs::transaction(connection, fold).map_err(failed)?;
    journal.note_commit(commit);
    journal.forget_folded(&rest.unfolded).map_err(unwritable)?;
    Ok(Begun { journal, losses })
}

/// What the journal holds and its database does not.
pub(super) struct Rest {
    pub(super) unfolded: Unfolded,
    found: Replay,
    /// How the database's path is shown.
    shown: String,
    from: ReplayFrom,
    database: DatabaseId,
    commits: u64,
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
        let (database, commits) = fold::read_identity(connection).map_err(failed)?;
        let from = fold::read_position(connection).map_err(failed)?;
        let same_boot = is_same_boot(connection, options.boot.as_deref()).map_err(failed)?;
        let mut unfolded = Unfolded::default();
        let range = ReplayRange { from, until };
        let found = replay(disk, range, database, |record| unfolded.add(&record));
        let found = found.map_err(|error| {
            OpenError::because(format!("the journal of {shown} cannot be read"), error)
        })?;
        Ok(Self { unfolded, found, shown, from, database, commits, same_boot })
    }

    /// Where the journal's last good record ends; before all if there is none to be read.
    pub(super) fn end(&self) -> Position {
        self.found.end.unwrap_or_default()
    }

    /// What of answered requests and changes is not there any more, with the file that shows it.
    pub(super) fn losses(&self) -> Vec<String> {
        let mut losses = self.flaws();
        if self.found.commit > self.commits {
            let (shown, commits) = (&self.shown, self.commits);
            losses.push(format!(
                "{shown} is older than its journal: it ends with commit {commits}, and \
                 {shown}.journal.* says that commit {} was answered; changes of keys and counts are \
                 missing from it",
                self.found.commit
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
        fold::write(connection, &self.unfolded)?;
        if self.same_boot {
            fold::return_blocks(connection)?;
        } else {
            fold::use_blocks(connection)?;
        }
        fold::end_open(connection)
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
    Ok(boot.is_some() && fold::read_boot(connection)?.as_deref() == boot)
}

/// Names this boot of the machine, where the system tells.
pub(super) fn this_boot() -> Option<String> {
    let id = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
    Some(id.trim().to_owned()).filter(|id| !id.is_empty())
}
