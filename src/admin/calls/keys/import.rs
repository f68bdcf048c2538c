//! Import of keys from a CSV file, such as an export.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    admin::{
        calls::keys::file::{KeyFile, KeyLine},
        http::{
            call::{Call, CallRequest, Json},
            error::AdminError,
            input::BoolParam,
        },
        shared::Shared,
    },
    key::{KeyHash, KeyId},
    store::{Actor, AdminStore, ImportOutcome, ImportedKey},
};

/// Number of lines per transaction, so that a large file does not block other writers.
const BATCH_LEN: usize = 500;

/// Options of an import.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ImportQuery {
    /// `true`: reports what would happen and changes nothing.
    dry_run: Option<BoolParam>,
}

/// Result of an import or of a dry run.
#[derive(Default, Serialize, JsonSchema)]
pub(crate) struct ImportReport {
    dry_run: bool,
    new: usize,
    unchanged: usize,
    conflicts: usize,
    rows: Vec<Row>,
}

/// Result of one line.
#[derive(Serialize, JsonSchema)]
struct Row {
    /// Number of the line at which the row begins. The header is line 1.
    line: u64,
    outcome: Outcome,
    id: Option<KeyId>,
    label: String,
    /// Why the row is a conflict.
    reason: Option<String>,
}

#[derive(Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
enum Outcome {
    New,
    Unchanged,
    Conflict,
}

/// Keys that a dry run would have created so far.
#[derive(Default)]
struct PlannedKeys {
    keys: HashMap<KeyHash, KeyId>,
    ids: HashSet<KeyId>,
}

impl<S: AdminStore> Shared<S> {
    pub(super) fn import_call() -> Call<Self> {
        Call::new(
            "POST /keys/import",
            "importKeys",
            "Import keys from a CSV file",
            Self::import_keys,
        )
    }

    async fn import_keys(
        self: Arc<Self>,
        request: CallRequest<(), ImportQuery, KeyFile>,
    ) -> Result<Json<ImportReport>, AdminError> {
        let dry_run = request.query.dry_run.is_some_and(|BoolParam(dry_run)| dry_run);
        let mut report = ImportReport { dry_run, ..ImportReport::default() };
        let mut planned = PlannedKeys::default();
        let mut lines = request.body.lines(&request.raw, self.default_daily_limit);
        loop {
            let batch: Vec<KeyLine> = lines.by_ref().take(BATCH_LEN).collect();
            if batch.is_empty() {
                break;
            }
            let rows = self.import_batch(batch, dry_run, &request.by, &mut planned).await?;
            rows.into_iter().for_each(|row| report.add(row));
        }
        if !dry_run {
            let token_id = &request.by.token_id;
            tracing::info!(token_id, new = report.new, "keys imported");
        }
        Ok(Json(report))
    }

    async fn import_batch(
        &self,
        lines: Vec<KeyLine>,
        dry_run: bool,
        by: &Actor,
        planned: &mut PlannedKeys,
    ) -> Result<Vec<Row>, AdminError> {
        let keys = lines.iter().filter_map(|line| line.key.as_ref().ok().cloned()).collect();
        let mut imported = self.store.import(keys, dry_run, by.clone()).await?.into_iter();
        let rows = lines.into_iter().map(|KeyLine { number, label, key }| match key {
            Ok(key) => {
                let imported = imported.next().map(|imported| planned.outcome(&key, imported));
                Row::new(number, label, imported)
            }
            Err(reason) => Row::conflict(number, label, reason),
        });
        Ok(rows.collect())
    }
}

impl PlannedKeys {
    /// Corrects the store's outcome for a key of a dry run, in which the store does not see the keys of
    /// earlier lines.
    fn outcome(&mut self, key: &ImportedKey, imported: ImportOutcome) -> ImportOutcome {
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
    fn new(line: u64, label: String, imported: Option<ImportOutcome>) -> Self {
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
