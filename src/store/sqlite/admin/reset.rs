//! Reset of a key's counters while its requests are in flight.

use std::{future::Future, sync::Arc};

use rusqlite::Connection;

use super::{
    super::{checkpoint::write_reset, core::Core, ledger::SqliteLedger},
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
            Counter,
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
) -> (Job<SqliteLedger>, impl Future<Output = Result<ChangeOutcome, StoreError>> + Send + 'static) {
    let keys: Vec<CounterKey> = counters.iter().map(|counter| counter.key().clone()).collect();
    let work = move |connection: &Connection| {
        let key = KeyRef::new(id.as_str());
        let Some(before) = summary(connection, &core, &key)? else {
            return Ok(Err(ChangeOutcome::UnknownKey));
        };
        if !edit.applies_to(&before) {
            return Ok(Err(ChangeOutcome::VersionMismatch));
        }
        let KeyEdit { change, by, .. } = edit;
        let now = core.now();
        let reset = |key: &CounterKey| {
            let day = key.first_day(&core.engine.calendar, now);
            Ok(Origin { day, epoch: write_reset(connection, key, day)? })
        };
        let origins = keys.iter().map(reset).collect::<rusqlite::Result<Vec<_>>>()?;
        let after = KeySummary { used_today: 0, ..before.clone() };
        write_audit(connection, now, &by, &AuditNote::changed(&change, &before, &after))?;
        Ok(Ok((origins, after)))
    };
    let reset = move |done: &Result<(Vec<Origin>, KeySummary), ChangeOutcome>| {
        for (counter, origin) in done.iter().flat_map(|(origins, _)| counters.iter().zip(origins)) {
            counter.reset(|_| *origin);
        }
    };
    let (job, done) = queue::job::<SqliteLedger, _>(work, reset);
    (job, async move {
        Ok(done.await?.map_or_else(|undone| undone, |(_, after)| ChangeOutcome::Done(after.into())))
    })
}
