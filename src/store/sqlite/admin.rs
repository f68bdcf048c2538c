use std::time::{Duration, SystemTime};

use rusqlite::{Connection, Row, named_params};

use super::{SqliteStore, audit, changes, core::Core, jobs, reset, rows, unavailable};
use crate::{
    clock::Day,
    error::{StoreError, StoreErrorKind},
    key::KeyRecord,
    store::{
        Actor, AdminStore, AuditEntry, AuditQuery, Changed, KeyChange, KeyEdit, KeyPage,
        KeyPageQuery, KeyRef, KeySummary, NewKey, StoreFuture, journal::from_unix_millis,
    },
};

/// A write that succeeded so recently is as good as another.
const PROBE_AGE: Duration = Duration::from_secs(1);

impl AdminStore for SqliteStore {
    fn create(&self, keys: Vec<NewKey>, by: Actor) -> StoreFuture<Vec<KeyRecord>> {
        let core = self.0.core.clone();
        let now = core.clock.now();
        let records: Vec<KeyRecord> = keys.iter().map(|key| key.record(now)).collect();
        let created = core.queue.call(
            move |connection| {
                let inserted = changes::insert(connection, &keys, &records, &by, now)?;
                Ok(inserted.then_some(records))
            },
            |_| (),
        );
        StoreFuture::pending(async move {
            created.await?.ok_or_else(|| StoreError::new(StoreErrorKind::Conflict))
        })
    }

    fn list(&self, query: KeyPageQuery) -> StoreFuture<KeyPage> {
        self.read_now(move |connection, core| list(connection, core, &query))
    }

    fn get(&self, key: KeyRef) -> StoreFuture<Option<KeySummary>> {
        self.read_now(move |connection, core| summary(connection, core, &key))
    }

    fn change(&self, edit: KeyEdit) -> StoreFuture<Changed> {
        let store = self.clone();
        StoreFuture::pending(async move {
            match edit.change {
                KeyChange::ResetUsage => store.reset(edit).await,
                _ => store.change_row(edit).await,
            }
        })
    }

    fn note(&self, action: &'static str, by: Actor) -> StoreFuture<()> {
        let now = self.0.core.clock.now();
        let write =
            move |connection: &Connection| audit::write(connection, now, &by, action, None, "{}");
        self.0.core.queue.call(write, |()| ())
    }

    fn audit(&self, query: AuditQuery) -> StoreFuture<Vec<AuditEntry>> {
        self.read_now(move |connection, _| audit::read(connection, &query))
    }

    fn today(&self) -> Day {
        self.0.core.today()
    }

    fn now(&self) -> SystemTime {
        self.0.core.clock.now()
    }

    fn probe(&self) -> StoreFuture<()> {
        let core = &self.0.core;
        if core.is_open().is_ok() && core.was_written_within(PROBE_AGE) {
            return StoreFuture::ready(Ok(()));
        }
        core.queue.call(jobs::probe, |()| ())
    }

    #[cfg(feature = "metrics")]
    fn set_gauges(&self) -> StoreFuture<()> {
        self.gauges()
    }
}

impl SqliteStore {
    /// Reads what is in the file once all that was queued before is written.
    fn read_now<T: Send + 'static>(
        &self,
        query: impl FnOnce(&Connection, &Core) -> rusqlite::Result<T> + Send + 'static,
    ) -> StoreFuture<T> {
        let store = self.clone();
        StoreFuture::pending(async move {
            store.written().await;
            let core = store.0.core.clone();
            store.read(move |connection| query(connection, &core).map_err(unavailable)).await
        })
    }

    async fn change_row(&self, edit: KeyEdit) -> Result<Changed, StoreError> {
        let (core, after) = (self.0.core.clone(), self.0.core.clone());
        let work = move |connection: &Connection| {
            let Some(before) = summary(connection, &core, &edit.key)? else {
                return Ok(Changed::UnknownKey);
            };
            if !edit.applies_to(&before) {
                return Ok(Changed::OtherVersion);
            }
            let KeyEdit { change, by, .. } = edit;
            let id = before.record.id.clone();
            let now = core.clock.now();
            changes::apply(connection, &id, &change, now)?;
            let after = summary(connection, &core, &KeyRef::new(id.as_str()))?;
            let after = after.unwrap_or_else(|| before.clone());
            let detail = change.audit_detail(&before, &after);
            audit::write(connection, now, &by, change.action(), Some(&id), &detail)?;
            Ok(Changed::Done(after))
        };
        self.0.core.queue.call(work, move |_| after.forget_keys()).await
    }

    async fn reset(&self, edit: KeyEdit) -> Result<Changed, StoreError> {
        let Some(found) = self.get(edit.key.clone()).await? else {
            return Ok(Changed::UnknownKey);
        };
        let (core, id) = (&self.0.core, found.record.id);
        let counter = self.load_counter(&id, core.clock.now()).await?;
        let (job, reset) = reset::job(core.clone(), counter, id, edit);
        core.queue.push(job)?;
        reset.await
    }
}

const FIGURES: &str = "
    coalesce((SELECT used FROM daily_usage u WHERE u.key_id = k.id AND u.day = :day), 0),
    coalesce((SELECT sum(used + reset_used) FROM daily_usage u WHERE u.key_id = k.id), 0),
    (SELECT max(last_used_at) FROM daily_usage u WHERE u.key_id = k.id), k.seq";

/// One row of [`rows::RECORD`] and [`FIGURES`].
fn read_summary(row: &Row<'_>, core: &Core) -> rusqlite::Result<(u64, KeySummary)> {
    let last_used_at: Option<i64> = row.get(10)?;
    let record = rows::record_for_show(row, core.default_daily_limit)?;
    let (written, total): (u64, u64) = (row.get(8)?, row.get(9)?);
    // The counter is ahead of the file by what is under way.
    let count = core.counter(&record.id).map(|counter| counter.count());
    let used = count.filter(|count| count.day == core.today()).map_or(written, |count| count.used);
    let summary = KeySummary {
        hash: rows::hash(row.get_ref(7)?),
        record,
        used_today: used,
        total_used: (total + used).saturating_sub(written),
        last_used_at: last_used_at.map(from_unix_millis),
    };
    Ok((row.get(11)?, summary))
}

pub(super) fn summary(
    connection: &Connection,
    core: &Core,
    key: &KeyRef,
) -> rusqlite::Result<Option<KeySummary>> {
    let sql = format!(
        "SELECT {}, {FIGURES} FROM api_keys k
         WHERE k.id = :id OR k.key_hash = :hash OR k.old_key_hash = :hash
            OR (k.key = :clear AND k.key_hash IS NULL)",
        rows::RECORD
    );
    let mut statement = connection.prepare_cached(&sql)?;
    let mut found = statement.query(named_params! {
        ":day": core.today().to_string(),
        ":id": key.id().as_str(),
        ":hash": key.secret().map(|secret| secret.hash().to_hex()),
        ":clear": key.secret().map(|secret| secret.expose()),
    })?;
    let row = found.next()?;
    row.map(|row| read_summary(row, core).map(|(_, summary)| summary)).transpose()
}

fn list(connection: &Connection, core: &Core, query: &KeyPageQuery) -> rusqlite::Result<KeyPage> {
    let sql = format!(
        "SELECT {}, {FIGURES} FROM api_keys k
         WHERE k.seq > :after AND (:search IS NULL
             OR k.label LIKE :search ESCAPE '\\' OR k.id LIKE :search ESCAPE '\\'
             OR (k.key LIKE :search ESCAPE '\\' AND k.key_hash IS NOT NULL))
         ORDER BY k.seq LIMIT :limit",
        rows::RECORD
    );
    let search = query.search.as_deref().map(|text| {
        let escaped = text.replace('\\', "\\\\").replace('%', "\\%").replace('_', "\\_");
        format!("%{escaped}%")
    });
    let mut statement = connection.prepare_cached(&sql)?;
    let rows = statement.query_map(
        named_params! {
            ":day": core.today().to_string(),
            ":after": query.after.unwrap_or_default(),
            ":search": search,
            // One more than is shown tells whether there is a next page.
            ":limit": query.limit.saturating_add(1),
        },
        |row| read_summary(row, core),
    )?;
    let mut found: Vec<(u64, KeySummary)> = rows.collect::<rusqlite::Result<_>>()?;
    let more = found.len() > query.limit;
    found.truncate(query.limit);
    Ok(KeyPage {
        next: found.last().map(|(seq, _)| *seq).filter(|_| more),
        keys: found.into_iter().map(|(_, summary)| summary).collect(),
    })
}
