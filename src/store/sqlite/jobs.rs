//! Work that is done within the writer's transaction.

use std::{
    collections::VecDeque,
    future::Future,
    panic::{AssertUnwindSafe, catch_unwind},
};

use rusqlite::Connection;
use tokio::sync::oneshot;

use crate::error::StoreError;

/// Work within the transaction, and word of it.
pub(super) type Job = Box<dyn FnOnce(&Connection) -> (rusqlite::Result<()>, Reply) + Send>;

/// Tells the waiting caller that the transaction is committed; dropped if it is not.
pub(super) type Reply = Box<dyn FnOnce() + Send>;

/// Makes a job of `work`, and the future of its result, which is ready once the transaction is
/// committed and `after` has run with it.
pub(super) fn job<T: Send + 'static>(
    work: impl FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    after: impl FnOnce(&T) + Send + 'static,
) -> (Job, impl Future<Output = Result<T, StoreError>> + Send + 'static) {
    let (told, result) = oneshot::channel();
    let job: Job = Box::new(move |connection| match work(connection) {
        Ok(answer) => {
            let reply: Reply = Box::new(move || {
                after(&answer);
                // The caller may have left.
                let _ = told.send(answer);
            });
            (Ok(()), reply)
        }
        Err(error) => (Err(error), Box::new(move || drop(told))),
    });
    let result = async move {
        result.await.map_err(|_| StoreError::unavailable("the transaction was not committed"))
    };
    (job, result)
}

/// Does `work` in one transaction.
pub(super) fn transaction<T>(
    connection: &Connection,
    work: impl FnOnce() -> rusqlite::Result<T>,
) -> rusqlite::Result<T> {
    connection.execute_batch("BEGIN IMMEDIATE")?;
    let worked = work().and_then(|answer| {
        connection.execute_batch("COMMIT")?;
        Ok(answer)
    });
    if worked.is_err() && !connection.is_autocommit() {
        // Its own failure adds nothing: the transaction is void either way.
        let _ = connection.execute_batch("ROLLBACK");
    }
    worked
}

/// Runs the jobs in their order, and leaves in `replies` whom to tell after the commit. A job that
/// fails or panics on its own account is undone alone, and its caller told. If the store fails,
/// nobody is told before `jobs` and `replies` are dropped.
pub(super) fn run(
    connection: &Connection,
    jobs: &mut VecDeque<Job>,
    replies: &mut Vec<Reply>,
) -> rusqlite::Result<()> {
    while let Some(job) = jobs.pop_front() {
        let mut reply = None;
        let run = |connection: &Connection| {
            let ran = catch_unwind(AssertUnwindSafe(|| job(connection)));
            let (done, told) = ran.map_err(|_| rusqlite::Error::InvalidQuery)?;
            reply = Some(told);
            done
        };
        let ran = in_savepoint(connection, run);
        match ran {
            Ok(None) => {}
            Ok(Some(())) => replies.extend(reply),
            Err(error) => {
                replies.extend(reply);
                return Err(error);
            }
        }
    }
    Ok(())
}

/// Does `work` so that it can fail on its own account (`None`) without the transaction's failing.
pub(super) fn in_savepoint<T>(
    connection: &Connection,
    work: impl FnOnce(&Connection) -> rusqlite::Result<T>,
) -> rusqlite::Result<Option<T>> {
    connection.execute_batch("SAVEPOINT part")?;
    let done = match work(connection) {
        Ok(done) => Some(done),
        Err(error) if is_of_the_store(&error) => return Err(error),
        Err(error) => {
            tracing::error!(%error, "a part of a transaction was not possible");
            connection.execute_batch("ROLLBACK TO part")?;
            None
        }
    };
    connection.execute_batch("RELEASE part")?;
    Ok(done)
}

/// Whether the store has failed, rather than a row not been as the job needs it.
fn is_of_the_store(error: &rusqlite::Error) -> bool {
    error.sqlite_error_code().is_some_and(|code| code != rusqlite::ErrorCode::ConstraintViolation)
}

/// A write that changes nothing that counts.
pub(super) fn probe(connection: &Connection) -> rusqlite::Result<()> {
    connection.execute("UPDATE probe SET count = count + 1", []).map(drop)
}
