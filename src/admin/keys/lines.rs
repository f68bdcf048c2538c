//! The lines of a CSV file of keys, read one after the other.

use std::collections::HashMap;

use csv::{ByteRecord, StringRecord};
use schemars::{Schema, SchemaGenerator, json_schema};

use super::{
    super::{
        call::FromBody,
        csv::{BYTE_ORDER_MARK, unescaped},
        refusal::Refusal,
    },
    export::COLUMNS,
};
use crate::{
    key::{DailyLimit, SecretKey},
    store::ImportedKey,
};

/// A CSV file: how its lines are written, and which column stands where.
pub(in crate::admin) struct File {
    layout: Layout,
    columns: HashMap<String, usize>,
}

/// How the lines of a file are written.
#[derive(Clone, Copy)]
struct Layout {
    /// Where the lines begin, in bytes, and the number of the first.
    begin: usize,
    first_line: u64,
    separator: u8,
    has_header: bool,
}

/// The lines of a file that hold keys.
pub(super) struct Lines<'a> {
    reader: csv::Reader<&'a [u8]>,
    columns: HashMap<String, usize>,
    default_daily_limit: String,
    numbers: LineNumbers<'a>,
}

/// One of them.
pub(super) struct Line {
    /// Where it begins; the header is line 1.
    pub(super) number: u64,
    pub(super) label: String,
    /// What it holds, or what is wrong with it.
    pub(super) key: Result<ImportedKey, String>,
}

impl Layout {
    /// Finds out what the body tells of itself.
    fn of(body: &[u8]) -> Self {
        let mut layout = Self { begin: 0, first_line: 1, separator: b',', has_header: true };
        if body.starts_with(BYTE_ORDER_MARK.as_bytes()) {
            layout.begin = BYTE_ORDER_MARK.len();
        }
        let first = first_line(&body[layout.begin..]);
        // What spreadsheets are told the separator by.
        let told = first.trim_ascii().strip_prefix(b"sep=").and_then(|rest| rest.first());
        if let Some(separator) = told {
            return Self {
                begin: layout.begin + first.len(),
                first_line: 2,
                separator: *separator,
                ..layout
            };
        }
        let count = |separator: u8| first.iter().filter(|byte| **byte == separator).count();
        // The last of those that are as many.
        layout.separator = *b"\t;,".iter().max_by_key(|byte| count(**byte)).unwrap_or(&b',');
        layout
    }

    fn reader(self, body: &[u8]) -> csv::Reader<&[u8]> {
        // A line with too many or too few cells is wrong, but the others are not.
        csv::ReaderBuilder::new()
            .flexible(true)
            .has_headers(self.has_header)
            .delimiter(self.separator)
            .from_reader(&body[self.begin..])
    }
}

/// The first line with what ends it.
fn first_line(body: &[u8]) -> &[u8] {
    let end = body.iter().position(|byte| *byte == b'\n').map_or(body.len(), |at| at + 1);
    &body[..end]
}

/// The columns of a header that is none: the file of a script that notes each user and the key that
/// it got, with no header.
fn user_and_key(first: &StringRecord) -> Option<HashMap<String, usize>> {
    let key = first.get(1).map(str::trim).filter(|_| first.len() == 2)?;
    let is_key = SecretKey::parse(key).is_ok() && key.starts_with("trial-");
    is_key.then(|| HashMap::from([("label".to_owned(), 0), ("key".to_owned(), 1)]))
}

impl FromBody for File {
    const READ: bool = true;
    const CONTENT_TYPE: &'static str = "text/csv";
    const MOST: usize = 8 * 1024 * 1024;

    fn from_body(body: &[u8]) -> Result<Self, Refusal> {
        let bad = |message: &str| Refusal::invalid_csv(message.to_owned());
        let mut layout = Layout::of(body);
        let mut reader = layout.reader(body);
        let header = reader.headers().map_err(|_| bad(&not_utf8("The header")))?;
        if let Some(columns) = user_and_key(header) {
            layout.has_header = false;
            return Ok(Self { layout, columns });
        }
        // Spreadsheets keep empty columns behind the others.
        let names: Vec<String> = header.iter().map(plain).collect();
        let width = names.iter().rposition(|name| !name.is_empty()).map_or(0, |last| last + 1);
        let mut columns = HashMap::new();
        for (at, name) in names.into_iter().take(width).enumerate() {
            let name = if name == "user" { "label".to_owned() } else { name };
            if !COLUMNS.contains(&&*name) {
                return Err(Refusal::unknown(&name));
            }
            if columns.insert(name, at).is_some() {
                return Err(bad("A column stands twice in the header."));
            }
        }
        if !columns.contains_key("key") && !columns.contains_key("key_sha256") {
            return Err(Refusal::missing("key` or `key_sha256"));
        }
        Ok(Self { layout, columns })
    }

    fn schema(_: &mut SchemaGenerator) -> Option<Schema> {
        let example = "key,label,daily_limit\r\ntrial-key-manual-123,Alice,200\r\n";
        Some(
            json_schema!({"type": "string", "contentMediaType": "text/csv", "examples": [example]}),
        )
    }

    fn is_needed() -> bool {
        true
    }
}

fn plain(name: &str) -> String {
    name.trim().to_lowercase()
}

impl File {
    /// The lines of the file's body. A key without a limit of its own gets the default one.
    pub(super) fn lines(self, body: &[u8], default_daily_limit: DailyLimit) -> Lines<'_> {
        let Self { layout, columns } = self;
        let numbers = LineNumbers { body: &body[layout.begin..], at: 0, number: layout.first_line };
        let default_daily_limit = default_daily_limit.get().to_string();
        Lines { reader: layout.reader(body), columns, default_daily_limit, numbers }
    }
}

impl Iterator for Lines<'_> {
    type Item = Line;

    fn next(&mut self) -> Option<Line> {
        let mut record = ByteRecord::new();
        let begins = match self.reader.read_byte_record(&mut record) {
            Ok(false) => return None,
            Ok(true) => record.position(),
            // Bytes in memory can always be read.
            Err(_) => return None,
        };
        let number = self.numbers.of(begins.map_or(0, csv::Position::byte));
        Some(Line::read(number, record, &self.columns, &self.default_daily_limit))
    }
}

impl Line {
    fn read(
        number: u64,
        record: ByteRecord,
        columns: &HashMap<String, usize>,
        default_daily_limit: &str,
    ) -> Self {
        let Ok(record) = StringRecord::from_byte_record(record) else {
            return Self { number, label: String::new(), key: Err(not_utf8("The line")) };
        };
        let cell = |name: &str| columns.get(name).and_then(|at| record.get(*at)).map(unescaped);
        let label = cell("label").unwrap_or_default().to_owned();
        let is_empty_behind =
            || record.iter().skip(columns.len()).all(|cell| cell.trim().is_empty());
        if record.len() < columns.len() || !is_empty_behind() {
            let problem =
                format!("The line has {} cells, the header {}.", record.len(), columns.len());
            return Self { number, label, key: Err(problem) };
        }
        let key = ImportedKey::from_columns(|name| {
            let cell = cell(name);
            match name {
                "label" => cell,
                "daily_limit" => {
                    let limit = cell.map(str::trim).filter(|limit| !limit.is_empty());
                    limit.or(Some(default_daily_limit))
                }
                _ => cell.map(str::trim),
            }
        });
        Self { number, label, key: key.map_err(|error| format!("{error}.")) }
    }
}

/// What is wrong with a text that a spreadsheet or a shell wrote in another coding.
fn not_utf8(what: &str) -> String {
    format!(
        "{what} is not UTF-8 text (perhaps GBK, in which Excel saves plain CSV on a Chinese Windows). \
         Save the file as \u{201c}CSV UTF-8\u{201d}."
    )
}

/// Counts lines. The reader's own count is one too few behind a CRLF.
struct LineNumbers<'a> {
    body: &'a [u8],
    at: usize,
    number: u64,
}

impl LineNumbers<'_> {
    /// The line of the first text at or behind this byte.
    fn of(&mut self, byte: u64) -> u64 {
        let byte = usize::try_from(byte).unwrap_or(usize::MAX);
        let is_end = |byte: &u8| matches!(byte, b'\r' | b'\n');
        let passed = self.body.iter().enumerate().skip(self.at);
        let passed = passed.take_while(|(at, here)| *at < byte || is_end(here));
        for (at, here) in passed {
            self.number += u64::from(*here == b'\n');
            self.at = at + 1;
        }
        self.number
    }
}
