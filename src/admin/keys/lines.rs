//! The lines of a CSV file of keys, read one after the other.

use std::collections::HashMap;

use csv::{ByteRecord, StringRecord};
use schemars::{Schema, SchemaGenerator, json_schema};

use super::{
    super::{call::FromBody, csv::unescaped, refusal::Refusal},
    export::COLUMNS,
};
use crate::store::ImportedKey;

/// A CSV file with a header line: which column stands where.
pub(in crate::admin) struct File(HashMap<String, usize>);

/// What a file begins with that says how its text is written.
const MARK: &[u8] = "\u{feff}".as_bytes();

/// The lines behind the header.
pub(super) struct Lines<'a> {
    reader: csv::Reader<&'a [u8]>,
    columns: HashMap<String, usize>,
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

fn reader(body: &[u8]) -> csv::Reader<&[u8]> {
    // A line with too many or too few cells is wrong, but the others are not.
    csv::ReaderBuilder::new().flexible(true).from_reader(body)
}

impl FromBody for File {
    const READ: bool = true;
    const CONTENT_TYPE: &'static str = "text/csv";
    const MOST: usize = 8 * 1024 * 1024;

    fn from_body(body: &[u8]) -> Result<Self, Refusal> {
        let bad = |message: String| Refusal::invalid_csv(message);
        let mut reader = reader(body.strip_prefix(MARK).unwrap_or(body));
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
        Ok(Self(columns))
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
    /// The lines of the file's body.
    pub(super) fn lines(self, body: &[u8]) -> Lines<'_> {
        let body = body.strip_prefix(MARK).unwrap_or(body);
        let numbers = LineNumbers { body, at: 0, number: 1 };
        Lines { reader: reader(body), columns: self.0, numbers }
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
        Some(Line::read(number, record, &self.columns))
    }
}

impl Line {
    fn read(number: u64, record: ByteRecord, columns: &HashMap<String, usize>) -> Self {
        let Ok(record) = StringRecord::from_byte_record(record) else {
            let problem = "The line is not UTF-8 text.".to_owned();
            return Self { number, label: String::new(), key: Err(problem) };
        };
        let cell = |name: &str| columns.get(name).and_then(|at| record.get(*at)).map(unescaped);
        let label = cell("label").unwrap_or_default().to_owned();
        if record.len() != columns.len() {
            let problem =
                format!("The line has {} cells, the header {}.", record.len(), columns.len());
            return Self { number, label, key: Err(problem) };
        }
        let key = ImportedKey::from_columns(|name| match name {
            "label" => cell(name),
            _ => cell(name).map(str::trim),
        });
        Self { number, label, key: key.map_err(|error| format!("{error}.")) }
    }
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
