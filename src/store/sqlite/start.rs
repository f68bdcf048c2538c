//! What a start does with what the last process left behind.

use std::fmt::Display;

use rusqlite::Connection;

use super::{OpenError, SqliteOptions, fold};
use crate::store::journal::{Disk, Journal, Position, Unfolded, replay};

/// Folds the rest of the journal and begins a new segment.
///
/// On the same boot of the machine every record of the last process is there, so the units that it
/// had charged ahead and not used are given back. After another boot records may be missing, and
/// those units count as used. Requests that never ended were cut off: they have failed.
pub(super) fn begin(
    connection: &Connection,
    disk: Box<dyn Disk>,
    options: &SqliteOptions,
) -> Result<Journal, OpenError> {
    let shown = options.path.display();
    let unreadable =
        |error| OpenError::because(format!("the journal of {shown} cannot be read"), error);
    let unwritable =
        |error| OpenError::because(format!("the journal of {shown} cannot be written"), error);
    let failed = |error| OpenError::because(format!("{shown} cannot be written"), error);

    let folded = fold::read_position(connection).map_err(failed)?;
    let segments = disk.segments().map_err(unreadable)?;
    let last = segments.into_iter().max().unwrap_or_default().max(folded.segment);
    let mut rest = Unfolded::default();
    let damaged = replay(&*disk, folded, |record| rest.add(&record)).map_err(unreadable)?;
    let same_boot = is_same_boot(connection, options.boot.as_deref()).map_err(failed)?;
    if let Some(place) = damaged {
        damage(&shown, place, same_boot)?;
    }
    let journal = Journal::begin(disk, last + 1).map_err(unwritable)?;
    rest.append(journal.take());
    fold_rest(connection, &rest, options.boot.as_deref(), same_boot).map_err(failed)?;
    journal.forget_folded(&rest).map_err(unwritable)?;
    Ok(journal)
}

fn fold_rest(
    connection: &Connection,
    unfolded: &Unfolded,
    boot: Option<&str>,
    same_boot: bool,
) -> rusqlite::Result<()> {
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
        connection.execute_batch("COMMIT")
    };
    folded().inspect_err(|_| {
        // Its own failure adds nothing: the transaction is void either way.
        let _ = connection.execute_batch("ROLLBACK");
    })
}

fn is_same_boot(connection: &Connection, boot: Option<&str>) -> rusqlite::Result<bool> {
    Ok(boot.is_some() && fold::read_boot(connection)?.as_deref() == boot)
}

/// A loss of power leaves pages behind in any order, and what was answered lies before them. On the
/// same boot every byte is as it was written, so what was counted behind the place is lost.
fn damage(shown: &impl Display, place: Position, same_boot: bool) -> Result<(), OpenError> {
    let Position { segment, offset } = place;
    if !same_boot {
        tracing::warn!(segment, offset, "the end of the journal did not survive");
        return Ok(());
    }
    Err(OpenError::new(format!(
        "the journal {shown}.journal.{segment} is damaged at byte {offset}, so requests that were \
         answered would not be counted; restore it, or cut it off there (truncate -s {offset}) to go \
         on without them"
    )))
}

/// Names this boot of the machine, where the system tells.
pub(super) fn this_boot() -> Option<String> {
    let id = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
    Some(id.trim().to_owned()).filter(|id| !id.is_empty())
}
