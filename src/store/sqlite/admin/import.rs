//! Import of keys that were issued elsewhere.

use std::time::SystemTime;

use rusqlite::{Connection, OptionalExtension, params};

use super::{
    super::{
        SqliteStore,
        backup::progress::{Observer, OnProgress, ProgressStep},
        keys::{columns, find_id, has_id},
    },
    write_audit,
};
use crate::{
    admin::store::{Actor, AuditNote, ImportOutcome, ImportedKey},
    key::KeyId,
    store::StoreFuture,
};

impl SqliteStore {
    /// Same as [`AdminStore::import`](crate::admin::store::AdminStore::import), but reports its progress.
    /// Returns `None`, with nothing imported, if `on_progress` has stopped it.
    pub fn import_with_progress(
        &self,
        keys: Vec<ImportedKey>,
        dry_run: bool,
        by: Actor,
        on_progress: impl OnProgress + Send + 'static,
    ) -> StoreFuture<Option<Vec<ImportOutcome>>> {
        let (core, now) = (self.0.core.clone(), self.0.core.now());
        let observer = Observer::new(on_progress);
        let work =
            move |connection: &Connection| import(connection, &keys, dry_run, &by, now, &observer);
        self.0.core.queue.call(work, move |_| core.keys.forget())
    }
}

/// Inserts keys that do not exist yet. A dry run, or a run that is stopped, is rolled back.
fn import(
    connection: &Connection,
    keys: &[ImportedKey],
    dry_run: bool,
    by: &Actor,
    now: SystemTime,
    observer: &Observer,
) -> rusqlite::Result<Option<Vec<ImportOutcome>>> {
    connection.execute_batch("SAVEPOINT import")?;
    let total = Some(keys.len() as u64);
    let outcomes = keys.iter().zip(0..).map(|(key, done)| {
        let is_running = observer.report_part(ProgressStep::Import, done, total);
        if is_running { import_key(connection, key, by, now).map(Some) } else { Ok(None) }
    });
    let outcomes: Option<Vec<ImportOutcome>> = outcomes.collect::<rusqlite::Result<_>>()?;
    let outcomes = outcomes.filter(|_| dry_run || observer.report(ProgressStep::Publish));
    if dry_run || outcomes.is_none() {
        connection.execute_batch("ROLLBACK TO import")?;
    }
    connection.execute_batch("RELEASE import")?;
    Ok(outcomes)
}

fn import_key(
    connection: &Connection,
    key: &ImportedKey,
    by: &Actor,
    now: SystemTime,
) -> rusqlite::Result<ImportOutcome> {
    if let Some(id) = find_id(connection, &key.hash().to_hex())?.map(KeyId::new) {
        fill_days(connection, key, &id)?;
        return Ok(ImportOutcome::Unchanged(id));
    }
    let revoked: Option<String> = connection
        .prepare_cached("SELECT key_id FROM revoked_keys WHERE key_hash = ?1")?
        .query_row([key.hash().to_hex()], |row| row.get(0))
        .optional()?;
    if let Some(id) = revoked.map(KeyId::new) {
        return Ok(ImportOutcome::Revoked(id));
    }
    let record = key.record();
    if has_id(connection, &record.id)? {
        return Ok(ImportOutcome::IdTaken);
    }
    columns::insert(connection, record, key.hash())?;
    fill_days(connection, key, &record.id)?;
    write_audit(connection, now, by, &AuditNote::imported(record))?;
    Ok(ImportOutcome::New(record.id.clone()))
}

/// Adds imported units for days without known usage. The outcomes of their requests are unknown.
fn fill_days(connection: &Connection, key: &ImportedKey, id: &KeyId) -> rusqlite::Result<()> {
    let mut units = connection.prepare_cached(
        "INSERT INTO daily_usage (key_id, day, used) VALUES (?1, ?2, ?3) ON CONFLICT DO NOTHING",
    )?;
    let mut of_key = connection.prepare_cached(
        "INSERT INTO usage_totals (key_id, day, requests, model) VALUES (?1, ?2, ?3, '')
         ON CONFLICT DO UPDATE SET requests = requests + excluded.requests",
    )?;
    let mut of_all = connection.prepare_cached(
        "INSERT INTO model_totals (day, requests, model) VALUES (?1, ?2, '')
         ON CONFLICT DO UPDATE SET requests = requests + excluded.requests",
    )?;
    for (day, used) in key.used().iter().filter(|(_, used)| *used > 0) {
        let day = day.to_string();
        if units.execute(params![id.as_str(), day, used])? > 0 {
            of_key.execute(params![id.as_str(), day, used])?;
            of_all.execute(params![day, used])?;
        }
    }
    Ok(())
}
