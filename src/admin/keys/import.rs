//! Keys from a CSV file, such as an export.

use std::{collections::HashMap, sync::Arc};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

use super::{
    super::{
        call::{Asked, FromBody, Json},
        csv::unescaped,
        input::Only,
        refusal::Refusal,
        service::Shared,
    },
    export::COLUMNS,
};
use crate::{
    error::Reject,
    key::KeyId,
    store::{AdminStore, Imported, ImportedKey},
};

/// Whether it is tried only.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::admin) struct ImportWanted {
    /// `true`: tells what would happen, and changes nothing.
    dry_run: Option<Only>,
}

/// A CSV file with a header line.
pub(in crate::admin) struct File(Vec<Result<ImportedKey, (String, String)>>);

/// What came, or would come, of an import.
#[derive(Serialize, JsonSchema)]
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
    /// Its number in the file; the header is line 1.
    line: usize,
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

impl FromBody for File {
    const READ: bool = true;
    const CONTENT_TYPE: &'static str = "text/csv";
    const MOST: usize = 8 * 1024 * 1024;

    fn from_body(body: &[u8]) -> Result<Self, Refusal> {
        let bad = |message: String| Refusal::invalid_csv(message);
        let mut reader = csv::ReaderBuilder::new().trim(csv::Trim::All).from_reader(body);
        let header = reader.headers().map_err(|error| bad(error.to_string()))?;
        let columns: HashMap<String, usize> =
            header.iter().enumerate().map(|(at, name)| (plain(name), at)).collect();
        if let Some(unknown) = columns.keys().find(|name| !COLUMNS.contains(&&***name)) {
            return Err(Refusal::unknown(unknown));
        }
        if columns.len() < header.len() {
            return Err(bad("A column stands twice in the header.".to_owned()));
        }
        if !columns.contains_key("key") && !columns.contains_key("key_sha256") {
            return Err(Refusal::missing("key` or `key_sha256"));
        }
        let rows = reader.into_records().map(|record| {
            let record = record.map_err(|error| bad(error.to_string()))?;
            let cell = |name: &str| columns.get(name).and_then(|at| record.get(*at));
            let label = cell("label").map_or("", unescaped);
            let key = ImportedKey::from_columns(|name| match name {
                "label" => Some(label),
                _ => cell(name),
            });
            Ok(key.map_err(|error| (label.to_owned(), format!("{error}."))))
        });
        rows.collect::<Result<_, Refusal>>().map(Self)
    }

    fn schema(_: &mut SchemaGenerator) -> Option<Schema> {
        let example = "key,label,daily_limit\r\ntrial-key-manual-123,Alice,200\r\n";
        Some(json_schema!({"type": "string", "enum": [example]}))
    }

    fn is_needed() -> bool {
        true
    }
}

/// A name without the mark that some programs put before a file.
fn plain(name: &str) -> String {
    name.trim_start_matches('\u{feff}').to_lowercase()
}

impl<S: AdminStore, R: Reject + Send + Sync + 'static> Shared<S, R> {
    pub(in crate::admin) async fn import_keys(
        self: Arc<Self>,
        asked: Asked<(), ImportWanted, File>,
    ) -> Result<Json<ImportReport>, Refusal> {
        let dry_run = asked.query.dry_run.is_some_and(|Only(dry_run)| dry_run);
        let File(lines) = asked.body;
        let keys = lines.iter().filter_map(|line| line.as_ref().ok().cloned()).collect();
        let token_id = asked.by.token_id.clone();
        let mut imported = self.store.import(keys, dry_run, asked.by).await?.into_iter();
        let rows: Vec<Row> = lines
            .into_iter()
            .enumerate()
            .map(|(at, line)| match line {
                Ok(key) => Row::told(at + 2, key.label, imported.next()),
                Err((label, reason)) => Row::conflict(at + 2, label, reason),
            })
            .collect();
        let count = |outcome| rows.iter().filter(|row| row.outcome == outcome).count();
        let report = ImportReport {
            dry_run,
            new: count(Outcome::New),
            unchanged: count(Outcome::Unchanged),
            conflicts: count(Outcome::Conflict),
            rows,
        };
        if !dry_run {
            tracing::info!(token_id, new = report.new, "keys were imported");
        }
        Ok(Json(report))
    }
}

impl Row {
    fn told(line: usize, label: String, imported: Option<Imported>) -> Self {
        let (outcome, id) = match imported {
            Some(Imported::New(id)) => (Outcome::New, id),
            Some(Imported::Unchanged(id)) => (Outcome::Unchanged, id),
            Some(Imported::IdTaken) | None => {
                return Self::conflict(line, label, "Another key has this id.".to_owned());
            }
        };
        Self { line, outcome, id: Some(id), label, reason: None }
    }

    fn conflict(line: usize, label: String, reason: String) -> Self {
        Self { line, outcome: Outcome::Conflict, id: None, label, reason: Some(reason) }
    }
}
