//! Keys from a CSV file, such as an export.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    super::{
        call::{Asked, Json},
        input::Only,
        refusal::Refusal,
        shared::Shared,
    },
    lines::{File, Line},
};
use crate::{
    error::Reject,
    key::{KeyHash, KeyId},
    store::{Actor, AdminStore, ImportOutcome, ImportedKey},
};

/// So many lines are taken over at once, so that others need not wait for a large file.
const AT_ONCE: usize = 500;

/// Whether it is tried only.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::admin) struct ImportWanted {
    /// `true`: tells what would happen, and changes nothing.
    dry_run: Option<Only>,
}

/// What came, or would come, of an import.
#[derive(Default, Serialize, JsonSchema)]
pub(in crate::admin) struct ImportReport {
    dry_run: bool,
    new: usize,
    unchanged: usize,
    conflicts: usize,
    rows: Vec<Row>,
}

/// What came of one line.
#[derive(Serialize, JsonSchema)]
struct Row {
    /// Where it begins in the file; the header is line 1.
    line: u64,
    outcome: Outcome,
    id: Option<KeyId>,
    label: String,
    /// Why it is a conflict.
    reason: Option<String>,
}

#[derive(Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
enum Outcome {
    New,
    Unchanged,
    Conflict,
}

/// What the lines so far would have made.
#[derive(Default)]
struct Before {
    keys: HashMap<KeyHash, KeyId>,
    ids: HashSet<KeyId>,
}

impl<S: AdminStore, R: Reject + Send + Sync + 'static> Shared<S, R> {
    pub(in crate::admin) async fn import_keys(
        self: Arc<Self>,
        asked: Asked<(), ImportWanted, File>,
    ) -> Result<Json<ImportReport>, Refusal> {
        let dry_run = asked.query.dry_run.is_some_and(|Only(dry_run)| dry_run);
        let mut report = ImportReport { dry_run, ..ImportReport::default() };
        let mut before = Before::default();
        let mut lines = asked.body.lines(&asked.raw, self.default_daily_limit);
        loop {
            let some: Vec<Line> = lines.by_ref().take(AT_ONCE).collect();
            if some.is_empty() {
                break;
            }
            let rows = self.import_some(some, dry_run, &asked.by, &mut before).await?;
            rows.into_iter().for_each(|row| report.add(row));
        }
        if !dry_run {
            let token_id = &asked.by.token_id;
            tracing::info!(token_id, new = report.new, "keys were imported");
        }
        Ok(Json(report))
    }

    async fn import_some(
        &self,
        lines: Vec<Line>,
        dry_run: bool,
        by: &Actor,
        before: &mut Before,
    ) -> Result<Vec<Row>, Refusal> {
        let keys = lines.iter().filter_map(|line| line.key.as_ref().ok().cloned()).collect();
        let mut imported = self.store.import(keys, dry_run, by.clone()).await?.into_iter();
        let rows = lines.into_iter().map(|Line { number, label, key }| match key {
            Ok(key) => {
                let imported = imported.next().map(|imported| before.told(&key, imported));
                Row::told(number, label, imported)
            }
            Err(reason) => Row::conflict(number, label, reason),
        });
        Ok(rows.collect())
    }
}

impl Before {
    /// A dry run does not see what the lines before it would have made.
    fn told(&mut self, key: &ImportedKey, imported: ImportOutcome) -> ImportOutcome {
        let ImportOutcome::New(id) = imported else { return imported };
        if let Some(known) = self.keys.get(&key.hash) {
            return ImportOutcome::Unchanged(known.clone());
        }
        if !self.ids.insert(id.clone()) {
            return ImportOutcome::IdTaken;
        }
        self.keys.insert(key.hash, id.clone());
        ImportOutcome::New(id)
    }
}

impl ImportReport {
    fn add(&mut self, row: Row) {
        *match row.outcome {
            Outcome::New => &mut self.new,
            Outcome::Unchanged => &mut self.unchanged,
            Outcome::Conflict => &mut self.conflicts,
        } += 1;
        self.rows.push(row);
    }
}

impl Row {
    fn told(line: u64, label: String, imported: Option<ImportOutcome>) -> Self {
        let (outcome, id) = match imported {
            Some(ImportOutcome::New(id)) => (Outcome::New, id),
            Some(ImportOutcome::Unchanged(id)) => (Outcome::Unchanged, id),
            Some(ImportOutcome::Revoked(id)) => {
                let reason = format!("This key was rotated or deleted here ({id}).");
                return Self::conflict(line, label, reason);
            }
            Some(ImportOutcome::IdTaken) | None => {
                return Self::conflict(line, label, "Another key has this id.".to_owned());
            }
        };
        Self { line, outcome, id: Some(id), label, reason: None }
    }

    fn conflict(line: u64, label: String, reason: String) -> Self {
        Self { line, outcome: Outcome::Conflict, id: None, label, reason: Some(reason) }
    }
}
