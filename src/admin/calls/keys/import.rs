//! Import of keys from a CSV file, such as an export.

use std::{
    collections::{HashMap, HashSet},
    iter,
    sync::Arc,
};

use csv::{ByteRecord, StringRecord};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

use crate::{
    admin::{
        http::{
            call::{Call, CallRequest, FromBody, Json},
            csv::{BYTE_ORDER_MARK, unescape},
            error::AdminError,
            input::BoolParam,
            schema,
        },
        shared::Shared,
        store::{Actor, AdminStore, ImportOutcome, ImportedKey, KEY_COLUMNS},
    },
    key::{DefaultLimits, KeyHash, KeyId, SecretKey},
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
    #[schemars(with = "Option<schema::KeyId>")]
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
        let mut lines = request.body.lines(&request.raw, self.default_limits);
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
        if let Some(known) = self.keys.get(&key.hash()) {
            return ImportOutcome::Unchanged(known.clone());
        }
        if !self.ids.insert(id.clone()) {
            return ImportOutcome::IdTaken;
        }
        self.keys.insert(key.hash(), id.clone());
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

/// Format and columns of a CSV file of keys.
pub(crate) struct KeyFile {
    layout: Layout,
    columns: HashMap<String, usize>,
}

/// Format of a CSV file.
#[derive(Clone, Copy)]
struct Layout {
    /// Offset of the first line, in bytes.
    begin: usize,
    /// Number of the first line.
    first_line: u64,
    separator: u8,
    has_header: bool,
}

/// The lines of a file that contain keys.
struct KeyLines<'a> {
    reader: csv::Reader<&'a [u8]>,
    columns: HashMap<String, usize>,
    default_limits: Vec<(&'static str, String)>,
    numbers: LineNumbers<'a>,
}

/// A line with a key.
struct KeyLine {
    /// Number of the line at which it begins. The header is line 1.
    number: u64,
    label: String,
    /// The key, or a message about what is wrong.
    key: Result<ImportedKey, String>,
}

impl Layout {
    /// Detects the format of the body.
    fn detect(body: &[u8]) -> Self {
        let mut layout = Self { begin: 0, first_line: 1, separator: b',', has_header: true };
        if body.starts_with(BYTE_ORDER_MARK.as_bytes()) {
            layout.begin = BYTE_ORDER_MARK.len();
        }
        let first = first_line(&body[layout.begin..]);
        // The first line by which spreadsheets know the separator.
        let declared = first.trim_ascii().strip_prefix(b"sep=").and_then(|rest| rest.first());
        if let Some(separator) = declared {
            return Self {
                begin: layout.begin + first.len(),
                first_line: 2,
                separator: *separator,
                ..layout
            };
        }
        let count = |separator: u8| first.iter().filter(|byte| **byte == separator).count();
        // `max_by_key` returns the last maximum, so a comma wins a tie.
        layout.separator = *b"\t;,".iter().max_by_key(|byte| count(**byte)).unwrap_or(&b',');
        layout
    }

    fn reader(self, body: &[u8]) -> csv::Reader<&[u8]> {
        // A line with a wrong number of cells must not invalidate the others.
        csv::ReaderBuilder::new()
            .flexible(true)
            .has_headers(self.has_header)
            .delimiter(self.separator)
            .from_reader(&body[self.begin..])
    }
}

/// Returns the first line with its terminator.
fn first_line(body: &[u8]) -> &[u8] {
    let end = body.iter().position(|byte| *byte == b'\n').map_or(body.len(), |at| at + 1);
    &body[..end]
}

/// Returns the columns of a file without a header whose lines are a user and a `trial-…` key, as the
/// script of the original procedure writes it.
fn user_and_key_columns(first: &StringRecord) -> Option<HashMap<String, usize>> {
    let key = first.get(1).map(str::trim).filter(|_| first.len() == 2)?;
    let is_key = SecretKey::parse(key).is_ok() && key.starts_with("trial-");
    is_key.then(|| HashMap::from([("label".to_owned(), 0), ("key".to_owned(), 1)]))
}

impl FromBody for KeyFile {
    const CONTENT_TYPE: &'static str = "text/csv";
    const MAX_LEN: usize = 8 * 1024 * 1024;

    fn from_body(body: &[u8]) -> Result<Self, AdminError> {
        let invalid = |message: &str| AdminError::invalid_csv(message.to_owned());
        let mut layout = Layout::detect(body);
        let mut reader = layout.reader(body);
        let header = reader.headers().map_err(|_| invalid(&not_utf8("The header")))?;
        if let Some(columns) = user_and_key_columns(header) {
            layout.has_header = false;
            return Ok(Self { layout, columns });
        }
        // Spreadsheets append empty columns.
        let names: Vec<String> = header.iter().map(normalize).collect();
        let width = names.iter().rposition(|name| !name.is_empty()).map_or(0, |last| last + 1);
        let mut columns = HashMap::new();
        for (at, name) in names.into_iter().take(width).enumerate() {
            let name = if name == "user" { "label".to_owned() } else { name };
            if !KEY_COLUMNS.contains(&&*name) {
                return Err(AdminError::unknown_field(&name));
            }
            if columns.insert(name, at).is_some() {
                return Err(invalid("The header contains a column twice."));
            }
        }
        if !columns.contains_key("key") && !columns.contains_key("key_sha256") {
            return Err(AdminError::missing_field("key` or `key_sha256"));
        }
        Ok(Self { layout, columns })
    }

    fn schema(_: &mut SchemaGenerator) -> Option<Schema> {
        let example = "key,label,daily_limit\r\ntrial-key-manual-123,Alice,200\r\n";
        Some(
            json_schema!({"type": "string", "contentMediaType": "text/csv", "examples": [example]}),
        )
    }

    fn is_required() -> bool {
        true
    }
}

fn normalize(name: &str) -> String {
    name.trim().to_lowercase()
}

impl KeyFile {
    /// Returns the lines of the file's body. A key without a limit of its own gets the default.
    fn lines(self, body: &[u8], defaults: DefaultLimits) -> KeyLines<'_> {
        let Self { layout, columns } = self;
        let numbers =
            LineNumbers { body: &body[layout.begin..], offset: 0, number: layout.first_line };
        let others = defaults.others.iter().map(|(limit, value)| (limit.name(), value));
        let default_limits = iter::once(("daily_limit", defaults.daily)).chain(others);
        let default_limits =
            default_limits.map(|(name, value)| (name, value.number().to_string())).collect();
        KeyLines { reader: layout.reader(body), columns, default_limits, numbers }
    }
}

impl Iterator for KeyLines<'_> {
    type Item = KeyLine;

    fn next(&mut self) -> Option<KeyLine> {
        let mut record = ByteRecord::new();
        let position = match self.reader.read_byte_record(&mut record) {
            Ok(false) => return None,
            Ok(true) => record.position(),
            // Reading bytes in memory cannot fail.
            Err(_) => return None,
        };
        let number = self.numbers.at(position.map_or(0, csv::Position::byte));
        Some(KeyLine::parse(number, record, &self.columns, &self.default_limits))
    }
}

impl KeyLine {
    fn parse(
        number: u64,
        record: ByteRecord,
        columns: &HashMap<String, usize>,
        default_limits: &[(&'static str, String)],
    ) -> Self {
        let Ok(record) = StringRecord::from_byte_record(record) else {
            return Self { number, label: String::new(), key: Err(not_utf8("The line")) };
        };
        let cell = |name: &str| columns.get(name).and_then(|at| record.get(*at)).map(unescape);
        let label = cell("label").unwrap_or_default().to_owned();
        let has_only_empty_cells_after =
            || record.iter().skip(columns.len()).all(|cell| cell.trim().is_empty());
        if record.len() < columns.len() || !has_only_empty_cells_after() {
            let message =
                format!("The line has {} cells, the header {}.", record.len(), columns.len());
            return Self { number, label, key: Err(message) };
        }
        let key = ImportedKey::from_columns(|name| {
            let cell = cell(name);
            match name {
                "label" => cell,
                _ => {
                    let cell = cell.map(str::trim).filter(|cell| !cell.is_empty());
                    let default = || default_limits.iter().find(|(of, _)| *of == name);
                    cell.or_else(|| default().map(|(_, limit)| &**limit))
                }
            }
        });
        Self { number, label, key: key.map_err(|error| format!("{error}.")) }
    }
}

/// The message about text in another encoding than UTF-8.
fn not_utf8(what: &str) -> String {
    format!(
        "{what} is not UTF-8 text (perhaps GBK, in which Excel saves plain CSV on a Chinese Windows). \
         Save the file as \u{201c}CSV UTF-8\u{201d}."
    )
}

/// Counts lines. The CSV reader's own count is one too low after a CRLF.
struct LineNumbers<'a> {
    body: &'a [u8],
    offset: usize,
    number: u64,
}

impl LineNumbers<'_> {
    /// Returns the number of the line with the first text at or after this byte.
    fn at(&mut self, byte: u64) -> u64 {
        let byte = usize::try_from(byte).unwrap_or(usize::MAX);
        let is_end = |byte: &u8| matches!(byte, b'\r' | b'\n');
        let skipped = self.body.iter().enumerate().skip(self.offset);
        let skipped = skipped.take_while(|(at, here)| *at < byte || is_end(here));
        for (at, here) in skipped {
            self.number += u64::from(*here == b'\n');
            self.offset = at + 1;
        }
        self.number
    }
}
