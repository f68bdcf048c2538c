//! Reset of a key's day while its requests are in flight.

use std::{future::Future, sync::Arc};

use rusqlite::Connection;

use super::{admin::write_audit, core::Core, keys::list::summary, ledger::SqliteLedger};
use crate::{
    error::StoreError,
    key::KeyId,
    store::{
        ChangeOutcome, KeyEdit, KeyRef, KeySummary,
        counter::Origin,
        engine::{
            Counter, Ledger,
            queue::{self, Job},
        },
    },
};

/// Creates a job that resets the row, then the counter, before the caller is notified. A unit appended in
/// between has the previous epoch, and is counted for that.
pub(super) fn job(
    core: Arc<Core>,
    counter: Arc<Counter>,
    id: KeyId,
    edit: KeyEdit,
) -> (Job<SqliteLedger>, impl Future<Output = Result<ChangeOutcome, StoreError>> + Send + 'static) {
    let counter_key = counter.key().clone();
    let work = move |connection: &Connection| {
        let key = KeyRef::new(id.as_str());
        let Some(before) = summary(connection, &core, &key)? else {
            return Ok(Err(ChangeOutcome::UnknownKey));
        };
        if !edit.applies_to(&before) {
            return Ok(Err(ChangeOutcome::VersionMismatch));
        }
        let KeyEdit { change, by, .. } = edit;
        let (now, day) = (core.now(), core.today());
        let epoch = SqliteLedger::reset(connection, &counter_key, day)?;
        let after = KeySummary { used_today: 0, ..before.clone() };
        let detail = change.audit_detail(&before, &after);
        write_audit(connection, now, &by, change.action(), Some(&id), &detail)?;
        Ok(Ok((Origin { day, epoch }, after)))
    };
    let reset = move |done: &Result<(Origin, KeySummary), ChangeOutcome>| {
        done.iter().for_each(|(origin, _)| counter.reset(|_| *origin));
    };
    let (job, done) = queue::job::<SqliteLedger, _>(work, reset);
    (job, async move {
        Ok(done.await?.map_or_else(|undone| undone, |(_, after)| ChangeOutcome::Done(after.into())))
    })
}
