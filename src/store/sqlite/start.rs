//! What a start does with what the last process left behind.

use rusqlite::Connection;

use super::{OpenError, SqliteOptions, fold};
use crate::store::journal::{Disk, Journal, Position, Replay, ReplayFrom, Unfolded, replay};

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

    let (database, commits) = fold::read_identity(connection).map_err(failed)?;
    let folded = fold::read_position(connection).map_err(failed)?;
    let segments = disk.segments().map_err(unreadable)?;
    let known = match folded {
        ReplayFrom::Begin => 0,
        ReplayFrom::Position(Position { segment, .. }) | ReplayFrom::After(segment) => segment,
    };
    let last = segments.into_iter().max().unwrap_or(0).max(known);
    let mut rest = Unfolded::default();
    let found = replay(&*disk, folded, database, |record| rest.add(&record)).map_err(unreadable)?;
    let same_boot = is_same_boot(connection, options.boot.as_deref()).map_err(failed)?;
    let losses = losses(&shown.to_string(), &found, commits, same_boot);
    if let Some(loss) = losses.first().filter(|_| !options.accept_loss) {
        return Err(OpenError::loss(match losses.len() {
            1 => loss.clone(),
            more => format!("{loss} (and {} more)", more - 1),
        }));
    }
    losses.iter().for_each(|loss| tracing::warn!(loss, "accepted as lost"));
    let journal = Journal::begin(disk, last + 1, database, commits).map_err(unwritable)?;
    rest.append(journal.take());
    fold_rest(connection, &rest, &journal, options.boot.as_deref(), same_boot).map_err(failed)?;
    journal.forget_folded(&rest).map_err(unwritable)?;
    Ok(Begun { journal, losses })
}

/// What of answered requests and changes is not there any more, with the file that shows it.
///
/// A loss of power leaves pages behind in any order, and what was answered lies before them. On the
/// same boot every byte is as it was written.
fn losses(shown: &str, found: &Replay, commits: u64, same_boot: bool) -> Vec<String> {
    for (place, bytes) in &found.torn {
        let (segment, offset) = (place.segment, place.offset);
        tracing::warn!(segment, offset, bytes, "journal tail dropped: its write did not finish");
    }
    let mut losses = Vec::new();
    for flaw in &found.flaws {
        let segment = flaw.segment();
        if flaw.may_be_of_power() && !same_boot {
            tracing::warn!(segment, %flaw, "journal tail dropped: its end did not survive");
        } else {
            losses.push(format!(
                "the journal {shown}.journal.{segment} {flaw}, so what was counted may be missing"
            ));
        }
    }
    if found.commit > commits {
        losses.push(format!(
            "{shown} is older than its journal: it ends with commit {commits}, and {shown}.journal.* \
             says that commit {} was answered; changes of keys and counts are missing from it",
            found.commit
        ));
    }
    losses
}

fn fold_rest(
    connection: &Connection,
    unfolded: &Unfolded,
    journal: &Journal,
    boot: Option<&str>,
    same_boot: bool,
) -> rusqlite::Result<()> {
    let commit = journal.next_commit();
    connection.execute_batch("BEGIN IMMEDIATE")?;
    let folded = || {
        fold::write(connection, unfolded)?;
        if same_boot {
            fold::return_blocks(connection)?;
        } else {
            fold::use_blocks(connection)?;
        }
        fold::end_open(connection)?;
        fold::write_boot(connection, boot)?;
        fold::write_commit(connection, commit)?;
        connection.execute_batch("COMMIT")
    };
    folded().inspect_err(|_| {
        // Its own failure adds nothing: the transaction is void either way.
        let _ = connection.execute_batch("ROLLBACK");
    })?;
    journal.note_commit(commit);
    Ok(())
}

fn is_same_boot(connection: &Connection, boot: Option<&str>) -> rusqlite::Result<bool> {
    Ok(boot.is_some() && fold::read_boot(connection)?.as_deref() == boot)
}

/// Names this boot of the machine, where the system tells.
pub(super) fn this_boot() -> Option<String> {
    let id = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
    Some(id.trim().to_owned()).filter(|id| !id.is_empty())
}
