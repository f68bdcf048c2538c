//! Import of keys that were issued elsewhere.

use std::{sync::Arc, time::SystemTime};

use rusqlite::{Connection, OptionalExtension, params};

use super::{
    super::{
        SqliteStore,
        backup::progress::{Observer, OnProgress, ProgressStep},
        keys::{columns, daily_counter, find_id, has_id},
    },
    write_audit,
};
use crate::{
    admin::store::{Actor, AuditNote, ImportOutcome, ImportedKey},
    clock::Day,
    key::KeyId,
    store::{
        StoreFuture,
        engine::{Counter, Engine},
    },
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
        let engine = core.engine.clone();
        let work = move |connection: &Connection| {
            let current = Vec::new();
            let mut import = Import { connection, engine: &engine, by: &by, now, current };
            let outcomes = import.keys(&keys, dry_run, &observer)?;
            Ok((outcomes, import.current))
        };
        let after = move |(_, current): &(_, Vec<CurrentUnits>)| {
            core.keys.forget();
            for CurrentUnits { counter, day, used } in current {
                counter.add(*day, *used);
            }
        };
        let imported = self.0.core.queue.call(work, after);
        StoreFuture::pending(async move { Ok(imported.await?.0) })
    }
}

/// Units of the current day that were imported, and their counter, which is in memory so that no one loads it from the
/// file before they are added.
struct CurrentUnits {
    counter: Arc<Counter>,
    day: Day,
    used: u64,
}

struct Import<'a> {
    connection: &'a Connection,
    engine: &'a Engine,
    by: &'a Actor,
    now: SystemTime,
    current: Vec<CurrentUnits>,
}

impl Import<'_> {
    /// Inserts keys that do not exist yet. A dry run, or a run that is stopped, is rolled back.
    fn keys(
        &mut self,
        keys: &[ImportedKey],
        dry_run: bool,
        observer: &Observer,
    ) -> rusqlite::Result<Option<Vec<ImportOutcome>>> {
        self.connection.execute_batch("SAVEPOINT import")?;
        let total = Some(keys.len() as u64);
        let outcomes = keys.iter().zip(0..).map(|(key, done)| {
            let is_running = observer.report_part(ProgressStep::Import, done, total);
            if is_running { self.key(key).map(Some) } else { Ok(None) }
        });
        let outcomes: Option<Vec<ImportOutcome>> = outcomes.collect::<rusqlite::Result<_>>()?;
        let outcomes = outcomes.filter(|_| dry_run || observer.report(ProgressStep::Publish));
        if dry_run || outcomes.is_none() {
            self.current.clear();
            self.connection.execute_batch("ROLLBACK TO import")?;
        }
        self.connection.execute_batch("RELEASE import")?;
        Ok(outcomes)
    }

    fn key(&mut self, key: &ImportedKey) -> rusqlite::Result<ImportOutcome> {
        let connection = self.connection;
        if let Some(id) = find_id(connection, &key.hash().to_hex())?.map(KeyId::new) {
            self.fill_days(key, &id)?;
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
        self.fill_days(key, &record.id)?;
        write_audit(connection, self.now, self.by, &AuditNote::imported(record))?;
        Ok(ImportOutcome::New(record.id.clone()))
    }

    /// Adds imported units for days without known usage. The outcomes of their requests are unknown.
    fn fill_days(&mut self, key: &ImportedKey, id: &KeyId) -> rusqlite::Result<()> {
        let (connection, today) = (self.connection, self.engine.today());
        let mut units = connection.prepare_cached(
            "INSERT INTO daily_usage (key_id, day, used, epoch)
             SELECT ?1, ?2, ?3, coalesce(max(epoch), 0) FROM daily_usage
             WHERE key_id = ?1 AND quota = 'daily'
             ON CONFLICT DO NOTHING",
        )?;
        let mut of_key = connection.prepare_cached(
            "INSERT INTO usage_totals (key_id, day, requests, model) VALUES (?1, ?2, ?3, '')
             ON CONFLICT DO UPDATE SET requests = requests + excluded.requests",
        )?;
        let mut of_all = connection.prepare_cached(
            "INSERT INTO model_totals (day, requests, model) VALUES (?1, ?2, '')
             ON CONFLICT DO UPDATE SET requests = requests + excluded.requests",
        )?;
        for &(day, used) in key.used().iter().filter(|(_, used)| *used > 0) {
            let counter =
                if day == today { Some(daily_counter(connection, self.engine, id)?) } else { None };
            let text = day.to_string();
            if units.execute(params![id.as_str(), text, used])? > 0 {
                of_key.execute(params![id.as_str(), text, used])?;
                of_all.execute(params![text, used])?;
                self.current.extend(counter.map(|counter| CurrentUnits { counter, day, used }));
            }
        }
        Ok(())
    }
}
