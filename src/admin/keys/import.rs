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
    clock::parse_timestamp,
    error::Reject,
    key::{DailyLimit, KeyHash, KeyId, SecretKey},
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
            let cell = |name: &str| columns.get(name).and_then(|at| record.get(*at)).unwrap_or("");
            let label = unescaped(cell("label")).to_owned();
            Ok(key(cell, &label).map_err(|reason| (label, reason)))
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

/// Reads a line, or says what is wrong with it.
fn key<'a>(cell: impl Fn(&str) -> &'a str, label: &str) -> Result<ImportedKey, String> {
    let given = |name: &str| Some(cell(name)).filter(|text| !text.is_empty());
    let needs = |name: &str, what: &str| format!("`{name}` must be {what}.");
    let limit = match given("daily_limit") {
        None => return Err(needs("daily_limit", "given")),
        Some(text) => text.parse::<i64>().ok().and_then(|limit| DailyLimit::try_from(limit).ok()),
    };
    let limit = limit
        .ok_or_else(|| needs("daily_limit", "a whole number from 0 (unlimited) to 1000000000"))?;
    let mut key = match given("key_sha256") {
        Some(digits) => {
            let hash = KeyHash::from_hex(digits);
            let hash = hash.ok_or_else(|| needs("key_sha256", "64 hexadecimal digits"))?;
            let masked = given("key").filter(|key| key.contains('…')).unwrap_or("…");
            ImportedKey::hashed(hash, masked.to_owned(), limit)
        }
        None => {
            let secret = SecretKey::parse(cell("key"));
            let secret = secret.map_err(|error| format!("`key`: {error}."))?;
            ImportedKey::clear(&secret, limit)
        }
    };
    if label.chars().count() > 200 || label.chars().any(char::is_control) {
        return Err(needs("label", "at most 200 characters without control characters"));
    }
    let time = |name: &str| {
        let at = given(name).map(|text| parse_timestamp(text).ok_or_else(|| needs(name, "a time")));
        at.transpose()
    };
    key.id = given("id").map(KeyId::from);
    key.label = label.to_owned();
    (key.created_at, key.expires_at) = (time("created_at")?, time("expires_at")?);
    key.disabled = match given("disabled") {
        None | Some("false" | "0") => false,
        Some("true" | "1") => true,
        Some(_) => return Err(needs("disabled", "true or false")),
    };
    Ok(key)
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
