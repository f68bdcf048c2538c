//! What is written: charges and refunds of units, and jobs of the admin service.

use std::{
    collections::HashMap,
    future::Future,
    panic::{AssertUnwindSafe, catch_unwind},
    time::{SystemTime, UNIX_EPOCH},
};

use rusqlite::{Connection, params};
use tokio::sync::oneshot;

use crate::{error::StoreError, key::KeyId, store::counter::Origin};

pub(super) enum Op {
    /// A unit was taken.
    Charge { id: KeyId, origin: Origin, at: SystemTime },
    /// A unit was given back.
    Refund { id: KeyId, origin: Origin, capped: bool },
    /// Anything else, in its turn.
    Job { counts: Option<KeyId>, job: Job },
}

impl Op {
    /// The subject whose counter this op changes.
    pub(super) fn counts(&self) -> Option<&KeyId> {
        match self {
            Self::Charge { id, .. } | Self::Refund { id, .. } => Some(id),
            Self::Job { counts, .. } => counts.as_ref(),
        }
    }
}

/// Work within the transaction, then word of its commit.
pub(super) type Job = Box<dyn FnOnce(&Connection) -> rusqlite::Result<Reply> + Send>;

/// Tells the waiting caller once the transaction is committed; dropped if it failed.
pub(super) type Reply = Box<dyn FnOnce() + Send>;

/// Makes a job of `work`, and the future of its result, which is ready once the transaction is
/// committed and `after` has run.
pub(super) fn job<T: Send + 'static>(
    work: impl FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    after: impl FnOnce() + Send + 'static,
) -> (Job, impl Future<Output = Result<T, StoreError>> + Send + 'static) {
    let (reply, result) = oneshot::channel();
    let job: Job = Box::new(move |connection| {
        let answer = work(connection)?;
        let reply: Reply = Box::new(move || {
            after();
            // The caller may have left.
            let _ = reply.send(answer);
        });
        Ok(reply)
    });
    let result = async move {
        result.await.map_err(|_| StoreError::unavailable("the transaction was not committed"))
    };
    (job, result)
}

/// What several ops change about one subject's day.
#[derive(Default)]
struct Delta {
    used: i64,
    refunded: i64,
    last_used_at: Option<i64>,
}

/// Writes the ops in their order; what changes one subject's day becomes one row change. Returns
/// whom to tell after the commit.
pub(super) fn write(connection: &Connection, ops: Vec<Op>) -> rusqlite::Result<Vec<Reply>> {
    let mut deltas: HashMap<(KeyId, Origin), Delta> = HashMap::new();
    let mut replies = Vec::new();
    for op in ops {
        match op {
            Op::Charge { id, origin, at } => {
                let delta = deltas.entry((id, origin)).or_default();
                delta.used += 1;
                delta.last_used_at = delta.last_used_at.max(Some(unix_millis(at)));
            }
            Op::Refund { id, origin, capped } => {
                let delta = deltas.entry((id, origin)).or_default();
                delta.used -= 1;
                delta.refunded += i64::from(capped);
            }
            Op::Job { counts, job } => {
                write_deltas(connection, deltas.drain())?;
                replies.extend(run_job(connection, counts.is_some(), job)?);
            }
        }
    }
    write_deltas(connection, deltas.drain())?;
    Ok(replies)
}

/// Runs a job. One that fails or panics on its own account is undone alone and its caller told;
/// but if it counts, memory is already ahead of it, and the whole batch must fail.
fn run_job(connection: &Connection, counts: bool, job: Job) -> rusqlite::Result<Option<Reply>> {
    let run = |connection: &Connection| {
        catch_unwind(AssertUnwindSafe(|| job(connection)))
            .unwrap_or(Err(rusqlite::Error::InvalidQuery))
    };
    if counts { run(connection).map(Some) } else { apart(connection, run) }
}

/// Does `work` so that it can fail on its own account (`None`) without the transaction's failing.
pub(super) fn apart<T>(
    connection: &Connection,
    work: impl FnOnce(&Connection) -> rusqlite::Result<T>,
) -> rusqlite::Result<Option<T>> {
    connection.execute_batch("SAVEPOINT apart")?;
    let done = match work(connection) {
        Ok(done) => Some(done),
        Err(error) if is_of_the_store(&error) => return Err(error),
        Err(error) => {
            tracing::error!(%error, "a part of a transaction was not possible");
            connection.execute_batch("ROLLBACK TO apart")?;
            None
        }
    };
    connection.execute_batch("RELEASE apart")?;
    Ok(done)
}

/// Whether the store has failed, rather than a row not been as the job needs it.
fn is_of_the_store(error: &rusqlite::Error) -> bool {
    error.sqlite_error_code().is_some_and(|code| code != rusqlite::ErrorCode::ConstraintViolation)
}

fn write_deltas(
    connection: &Connection,
    deltas: impl Iterator<Item = ((KeyId, Origin), Delta)>,
) -> rusqlite::Result<()> {
    let mut statement = connection.prepare_cached(
        "INSERT INTO daily_usage (key_id, day, epoch, used, refunded, last_used_at)
         VALUES (?1, ?2, ?3, max(0, ?4), ?5, ?6)
         ON CONFLICT (key_id, day) DO UPDATE SET
             used = max(0, used + ?4),
             refunded = refunded + ?5,
             last_used_at = max(coalesce(last_used_at, ?6), coalesce(?6, last_used_at))
         WHERE epoch = ?3",
    )?;
    for ((id, origin), delta) in deltas {
        let day = origin.day.to_string();
        let changed = statement.execute(params![
            id.as_str(),
            day,
            origin.epoch,
            delta.used,
            delta.refunded,
            delta.last_used_at
        ])?;
        // The row belongs to another reset than memory does: the counter must be read back.
        if changed == 0 {
            return Err(rusqlite::Error::StatementChangedRows(0));
        }
    }
    Ok(())
}

/// A day begins anew: what was used before is kept apart.
pub(super) fn write_reset(
    connection: &Connection,
    id: &KeyId,
    origin: Origin,
) -> rusqlite::Result<()> {
    connection
        .prepare_cached(
            "INSERT INTO daily_usage (key_id, day, epoch) VALUES (?1, ?2, ?3)
             ON CONFLICT (key_id, day) DO UPDATE SET
                 reset_used = reset_used + used, used = 0, refunded = 0, epoch = ?3",
        )?
        .execute(params![id.as_str(), origin.day.to_string(), origin.epoch])?;
    Ok(())
}

/// A write that changes nothing that counts.
pub(super) fn probe(connection: &Connection) -> rusqlite::Result<()> {
    connection.execute("UPDATE probe SET count = count + 1", []).map(drop)
}

pub(super) fn unix_millis(at: SystemTime) -> i64 {
    let millis = at.duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
    i64::try_from(millis).unwrap_or(i64::MAX)
}

pub(super) fn from_unix_millis(millis: i64) -> SystemTime {
    UNIX_EPOCH + std::time::Duration::from_millis(u64::try_from(millis).unwrap_or_default())
}
