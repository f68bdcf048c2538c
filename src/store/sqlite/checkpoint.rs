//! Checkpoints: apply the records of the journal to the tables.

use std::collections::BTreeMap;

use rusqlite::{Connection, OptionalExtension, Statement, ToSql, params};

use super::{ledger::in_savepoint, reports::requests};
use crate::{
    clock::Day,
    key::KeyId,
    store::{
        counter::MAX_UNITS,
        engine::{
            journal::{DatabaseId, Position, ReplayFrom},
            pending::{Delta, Figures, PendingBatch},
        },
        report::{FIGURES, MAX_MODELS_PER_DAY, OTHER_MODELS, UsageFigures},
    },
};

/// Writes the batch and its position in the journal.
pub(super) fn write(connection: &Connection, pending: &PendingBatch) -> rusqlite::Result<()> {
    write_counts(connection, pending)?;
    // A failure to write figures must not prevent the units from being counted.
    let figures = |connection: &Connection| {
        write_figures(connection, pending)?;
        requests::write(connection, &pending.requests).map(Some)
    };
    if in_savepoint(connection, figures)?.is_none() {
        tracing::error!("writing usage figures failed: they are lost");
    }
    match pending.position {
        Some(position) => write_position(connection, position),
        None => Ok(()),
    }
}

fn write_counts(connection: &Connection, pending: &PendingBatch) -> rusqlite::Result<()> {
    // `reset_used` sums up the units from before a reset.
    let mut count = connection.prepare_cached(
        "INSERT INTO daily_usage (key_id, day, epoch, used, refunded, last_used_at, quota)
         VALUES (?1, ?2, ?3, min(?8, max(0, ?4)), min(?8, ?5), ?6, ?7)
         ON CONFLICT (key_id, quota, day) DO UPDATE SET
             used = CASE WHEN epoch = ?3 THEN min(?8, max(0, used + ?4))
                 WHEN epoch < ?3 THEN excluded.used ELSE used END,
             refunded = CASE WHEN epoch = ?3 THEN min(?8, refunded + ?5)
                 WHEN epoch < ?3 THEN excluded.refunded ELSE refunded END,
             reset_used = CASE WHEN epoch = ?3 THEN reset_used
                 WHEN epoch < ?3 THEN min(?8, reset_used + used)
                 ELSE min(?8, max(0, reset_used + ?4)) END,
             epoch = max(epoch, ?3),
             last_used_at = max(coalesce(last_used_at, ?6), coalesce(?6, last_used_at))",
    )?;
    let mut lease = connection.prepare_cached(
        "INSERT INTO blocks (key_id, day, epoch, charged, quota) VALUES (?1, ?2, ?3, ?4, ?5)
         ON CONFLICT (key_id, quota) DO UPDATE SET day = ?2, epoch = ?3, charged = ?4
         WHERE (epoch, day) <= (?3, ?2)",
    )?;
    for (id, subject) in pending.subjects() {
        for (quota, origin, delta) in &subject.counts {
            let (id, day, quota) = (id.as_str(), origin.day.to_string(), quota.as_str());
            let Delta { used, refunded, last_used_at, granted, share: _ } = delta;
            // The end of a request does not change the count.
            if *used != 0 || *refunded != 0 || last_used_at.is_some() {
                let epoch = origin.epoch;
                count.execute(params![
                    id,
                    day,
                    epoch,
                    used,
                    refunded,
                    last_used_at,
                    quota,
                    MAX_UNITS
                ])?;
            }
            if let Some(granted) = granted {
                lease.execute(params![id, day, origin.epoch, granted, quota])?;
            }
        }
    }
    write_open(connection, pending)
}

fn write_open(connection: &Connection, pending: &PendingBatch) -> rusqlite::Result<()> {
    let mut open = connection.prepare_cached(
        "INSERT INTO awaited_events (key_id, day, events) VALUES (?1, ?2, ?3)
         ON CONFLICT (key_id) DO UPDATE SET events = events + ?3, day = max(day, ?2)",
    )?;
    for (id, subject) in pending.subjects().filter(|(_, subject)| subject.open != 0) {
        let day = subject.last_day().map(|day| day.to_string());
        open.execute(params![id.as_str(), day, subject.open])?;
    }
    Ok(())
}

/// Counts the requests that were open at the end of the process as failed, on the last day on which their
/// key was used.
pub(super) fn fail_open_requests(connection: &Connection) -> rusqlite::Result<()> {
    connection.execute_batch(
        "INSERT INTO usage_totals (day, key_id, model, requests, failed)
         SELECT day, key_id, '', events, events FROM awaited_events WHERE events > 0
         ON CONFLICT (day, key_id, model) DO UPDATE SET
             requests = requests + excluded.requests, failed = failed + excluded.failed;
         INSERT INTO model_totals (day, model, requests, failed)
         SELECT day, '', sum(events), sum(events) FROM awaited_events WHERE events > 0
         GROUP BY day
         ON CONFLICT (day, model) DO UPDATE SET
             requests = requests + excluded.requests, failed = failed + excluded.failed;
         DELETE FROM awaited_events",
    )
}

fn write_figures(connection: &Connection, pending: &PendingBatch) -> rusqlite::Result<()> {
    let columns = format!("day, model, {}", FIGURES.join(", "));
    let sums = add_figures();
    let mut of_key = connection.prepare_cached(&format!(
        "INSERT INTO usage_totals AS t ({columns}, key_id)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14)
         ON CONFLICT (day, key_id, model) DO UPDATE SET {sums}"
    ))?;
    let mut of_all = connection.prepare_cached(&format!(
        "INSERT INTO model_totals AS t ({columns})
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13)
         ON CONFLICT (day, model) DO UPDATE SET {sums}"
    ))?;
    let mut has_row = connection.prepare_cached(
        "SELECT EXISTS (SELECT 1 FROM usage_totals WHERE day = ?1 AND key_id = ?2 AND model = ?3)
             OR (SELECT count(*) FROM usage_totals
                 WHERE day = ?1 AND key_id = ?2 AND model NOT IN ('', ?4)) < ?5",
    )?;
    let mut sums: BTreeMap<(Day, &str), UsageFigures> = BTreeMap::new();
    for (id, subject) in pending.subjects() {
        for Figures { day, model, figures } in &subject.figures {
            let model = summed_as(&mut has_row, *day, id, model)?;
            add(&mut of_key, *day, model, figures, Some(id))?;
            *sums.entry((*day, model)).or_default() += *figures;
        }
    }
    for ((day, model), figures) in &sums {
        add(&mut of_all, *day, model, figures, None)?;
    }
    Ok(())
}

/// Returns the model under which figures are summed up: `model`, if it has or can get a row, or
/// [`OTHER_MODELS`].
fn summed_as<'a>(
    has_row: &mut Statement<'_>,
    day: Day,
    id: &KeyId,
    model: &'a str,
) -> rusqlite::Result<&'a str> {
    if model.is_empty() || model == OTHER_MODELS {
        return Ok(model);
    }
    let row = params![day.to_string(), id.as_str(), model, OTHER_MODELS, MAX_MODELS_PER_DAY];
    let has_row = has_row.query_row(row, |row| row.get(0))?;
    Ok(if has_row { model } else { OTHER_MODELS })
}

/// Runs the statement with these figures, and the key's id if there is one.
fn add(
    statement: &mut Statement<'_>,
    day: Day,
    model: &str,
    figures: &UsageFigures,
    id: Option<&KeyId>,
) -> rusqlite::Result<()> {
    let UsageFigures { requests, succeeded, failed, refunded, rejected, tokens_unknown, tokens } =
        figures;
    let day = day.to_string();
    let mut values: Vec<&dyn ToSql> =
        vec![&day, &model, requests, succeeded, failed, refunded, rejected, tokens_unknown];
    values.extend::<[&dyn ToSql; 3]>([&tokens.prompt, &tokens.completion, &tokens.total]);
    values.extend::<[&dyn ToSql; 2]>([&tokens.cached, &tokens.reasoning]);
    let id = id.map(KeyId::as_str);
    values.extend(id.as_ref().map(|id| id as &dyn ToSql));
    statement.execute(&*values).map(drop)
}

fn write_position(connection: &Connection, position: Position) -> rusqlite::Result<()> {
    connection
        .prepare_cached(
            "INSERT INTO journal (id, segment, offset) VALUES (1, ?1, ?2)
             ON CONFLICT (id) DO UPDATE SET segment = ?1, offset = ?2, is_closed = 0",
        )?
        .execute(params![position.segment, position.offset])?;
    Ok(())
}

/// Marks the journal as fully applied.
pub(super) fn close_journal(connection: &Connection) -> rusqlite::Result<()> {
    connection.execute("UPDATE journal SET is_closed = 1", []).map(drop)
}

/// Returns the position from which the journal was not applied yet.
pub(super) fn read_position(connection: &Connection) -> rusqlite::Result<ReplayFrom> {
    let read = |row: &rusqlite::Row<'_>| {
        let position = Position { segment: row.get(0)?, offset: row.get(1)? };
        let is_closed = row.get(2)?;
        Ok(if is_closed {
            ReplayFrom::After(position.segment)
        } else {
            ReplayFrom::Position(position)
        })
    };
    let sql = "SELECT segment, offset, is_closed FROM journal";
    Ok(connection.query_row(sql, [], read).optional()?.unwrap_or(ReplayFrom::Start))
}

/// Returns the identity of the database and the number of its last commit.
pub(super) fn read_identity(connection: &Connection) -> rusqlite::Result<(DatabaseId, u64)> {
    connection.query_row("SELECT name, commits FROM identity", [], |row| {
        Ok((DatabaseId(row.get(0)?), row.get(1)?))
    })
}

/// Gives the database a new identity, without a journal.
pub(super) fn detach_journal(connection: &Connection) -> rusqlite::Result<()> {
    connection.execute_batch(
        "DELETE FROM journal;
         DELETE FROM boot;
         UPDATE identity SET name = randomblob(16), commits = 0",
    )
}

/// Stores the number of the commit of the current transaction.
pub(super) fn write_commit(connection: &Connection, number: u64) -> rusqlite::Result<()> {
    connection.prepare_cached("UPDATE identity SET commits = ?1")?.execute([number]).map(drop)
}

/// Counts leased units as used: after a power failure, records of their use may be lost.
pub(super) fn spend_leases(connection: &Connection) -> rusqlite::Result<()> {
    connection.execute_batch(
        "INSERT INTO daily_usage (key_id, quota, day, epoch, used)
         SELECT key_id, quota, day, epoch, charged FROM blocks WHERE true
         ON CONFLICT (key_id, quota, day) DO UPDATE SET used = max(used, excluded.used)
         WHERE epoch = excluded.epoch;
         DELETE FROM blocks",
    )
}

/// Releases unused leases.
pub(super) fn return_leases(connection: &Connection) -> rusqlite::Result<()> {
    connection.execute("DELETE FROM blocks", []).map(drop)
}

/// Returns the boot of the machine on which the file was last opened.
pub(super) fn read_boot(connection: &Connection) -> rusqlite::Result<Option<String>> {
    connection.query_row("SELECT boot FROM boot", [], |row| row.get(0)).optional()
}

pub(super) fn write_boot(connection: &Connection, boot: Option<&str>) -> rusqlite::Result<()> {
    connection.execute("DELETE FROM boot", [])?;
    connection.execute("INSERT INTO boot (boot) SELECT ?1 WHERE ?1 IS NOT NULL", [boot]).map(drop)
}

/// Resets a day, and later ones that were counted while the clock was ahead. `reset_used` keeps the units
/// used before. Returns the new epoch.
#[cfg(any(feature = "admin", test))]
pub(super) fn write_reset(
    connection: &Connection,
    key: &crate::store::counter::CounterKey,
    day: Day,
) -> rusqlite::Result<u32> {
    let (id, quota, day) = (key.subject.as_str(), key.quota.as_str(), day.to_string());
    connection
        .prepare_cached(
            "UPDATE daily_usage SET reset_used = reset_used + used, used = 0, refunded = 0
             WHERE key_id = ?1 AND quota = ?3 AND day > ?2",
        )?
        .execute(params![id, day, quota])?;
    connection
        .prepare_cached(
            "INSERT INTO daily_usage (key_id, day, epoch, quota)
             SELECT ?1, ?2, coalesce(max(epoch), 0) + 1, ?3 FROM daily_usage
             WHERE key_id = ?1 AND quota = ?3
             ON CONFLICT (key_id, quota, day) DO UPDATE SET
                 reset_used = reset_used + used, used = 0, refunded = 0, epoch = excluded.epoch
             RETURNING epoch",
        )?
        .query_row(params![id, day, quota], |row| row.get(0))
}

/// Returns the assignments of an `ON CONFLICT` clause that add figures to those of a row of the table `t`.
fn add_figures() -> String {
    let sums = FIGURES.map(|column| match column {
        // Without a value until a response reports one.
        "cached_tokens" | "reasoning_tokens" => format!(
            "{column} = coalesce(t.{column} + excluded.{column}, t.{column}, excluded.{column})"
        ),
        _ => format!("{column} = t.{column} + excluded.{column}"),
    });
    sums.join(", ")
}
