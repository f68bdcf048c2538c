//! Beginning a subject's day anew while its requests run.

use std::{future::Future, sync::Arc};

use rusqlite::Connection;

use super::{
    audit, checkpoint,
    core::{Core, Counter},
    jobs::{self, Job},
    listing::summary,
};
use crate::{
    error::StoreError,
    key::KeyId,
    store::{ChangeOutcome, KeyEdit, KeyRef, KeySummary, engine::counter::Origin},
};

/// Resets the row, then the counter before the answer. A unit that is written down in between
/// carries the number of the reset before, and counts to that.
pub(super) fn job(
    core: Arc<Core>,
    counter: Arc<Counter>,
    id: KeyId,
    edit: KeyEdit,
) -> (Job, impl Future<Output = Result<ChangeOutcome, StoreError>> + Send + 'static) {
    let work = move |connection: &Connection| {
        let key = KeyRef::new(id.as_str());
        let Some(before) = summary(connection, &core, &key)? else {
            return Ok(Err(ChangeOutcome::UnknownKey));
        };
        if !edit.applies_to(&before) {
            return Ok(Err(ChangeOutcome::VersionMismatch));
        }
        let KeyEdit { change, by, .. } = edit;
        let now = core.clock.now();
        let day = core.calendar.window(now).day;
        let epoch = checkpoint::write_reset(connection, &id, day)?;
        let after = KeySummary { used_today: 0, ..before.clone() };
        let detail = change.audit_detail(&before, &after);
        audit::write(connection, now, &by, change.action(), Some(&id), &detail)?;
        Ok(Ok((Origin { day, epoch }, after)))
    };
    let reset = move |done: &Result<(Origin, KeySummary), ChangeOutcome>| {
        done.iter().for_each(|(origin, _)| counter.reset(|_| *origin));
    };
    let (job, done) = jobs::job(work, reset);
    (job, async move {
        Ok(done.await?.map_or_else(|undone| undone, |(_, after)| ChangeOutcome::Done(after.into())))
    })
}
