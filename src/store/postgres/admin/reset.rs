//! Reset of a key's counters while its requests are in flight.

use std::{future::Future, sync::Arc};

use super::{
    super::{
        core::Core,
        ledger::{PostgresLedger, Tables},
        session::Error,
    },
    list::summary,
    write_audit,
};
use crate::{
    admin::store::{AuditNote, ChangeOutcome, KeyEdit, KeyRef, KeySummary},
    error::StoreError,
    key::KeyId,
    store::{
        counter::{CounterKey, Origin},
        engine::{
            Counter, Ledger,
            queue::{self, Job},
        },
    },
};

/// Creates a job that resets the rows, then the counters, before the caller is notified. A unit appended in
/// between has the previous epoch, and is counted for that.
pub(super) fn job(
    core: Arc<Core>,
    counters: Vec<Arc<Counter>>,
    id: KeyId,
    edit: KeyEdit,
) -> (Job<PostgresLedger>, impl Future<Output = Result<ChangeOutcome, StoreError>> + Send + 'static)
{
    let keys: Vec<CounterKey> = counters.iter().map(|counter| counter.key().clone()).collect();
    let work = move |tables: &Tables| {
        let key = KeyRef::new(id.as_str());
        let Some(before) = tables.run(|client| summary(client, &core, &key))? else {
            return Ok(Err(ChangeOutcome::UnknownKey));
        };
        if !edit.applies_to(&before) {
            return Ok(Err(ChangeOutcome::VersionMismatch));
        }
        let KeyEdit { change, by, .. } = edit;
        let now = core.now();
        let reset = |key: &CounterKey| {
            let day = key.first_day(&core.engine.calendar, now);
            Ok(Origin { day, epoch: PostgresLedger::reset(tables, key, day)? })
        };
        let origins = keys.iter().map(reset).collect::<Result<Vec<_>, Error>>()?;
        let after = KeySummary { used_today: 0, ..before.clone() };
        let notes = [AuditNote::changed(&change, &before, &after)];
        tables.run(|client| write_audit(client, now, &by, &notes))?;
        Ok(Ok((origins, after)))
    };
    let reset = move |done: &Result<(Vec<Origin>, KeySummary), ChangeOutcome>| {
        for (counter, origin) in done.iter().flat_map(|(origins, _)| counters.iter().zip(origins)) {
            counter.reset(|_| *origin);
        }
    };
    let (job, done) = queue::job::<PostgresLedger, _>(work, reset);
    (job, async move {
        Ok(done.await?.map_or_else(|undone| undone, |(_, after)| ChangeOutcome::Done(after.into())))
    })
}
