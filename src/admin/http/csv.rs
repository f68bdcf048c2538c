//! Comma-separated values (RFC 4180) for spreadsheets.

use std::{borrow::Cow, fmt::Display};

use bytes::Bytes;
use csv::{Terminator, Writer, WriterBuilder};

/// Content type of CSV responses.
pub(crate) const CSV: &str = "text/csv; charset=utf-8";

/// Marks a file as UTF-8. Without it, spreadsheets assume the system's code page.
pub(crate) const BYTE_ORDER_MARK: &str = "\u{feff}";

/// Writes rows of cells with CRLF after each.
pub(crate) struct CsvWriter(Writer<Vec<u8>>);

impl CsvWriter {
    /// Begins a file with a byte order mark and the header row.
    pub(crate) fn with_header<const N: usize>(columns: [&str; N]) -> Self {
        let mut writer = Self::onto(BYTE_ORDER_MARK.into());
        writer.row(columns.map(Cow::Borrowed));
        writer
    }

    /// Continues a file.
    pub(crate) fn new() -> Self {
        Self::onto(Vec::new())
    }

    fn onto(buffer: Vec<u8>) -> Self {
        let mut builder = WriterBuilder::new();
        // The writer quotes cells with the comment character, so escaped formulas are quoted.
        builder.terminator(Terminator::CRLF).comment(Some(b'\'')).flexible(true);
        Self(builder.from_writer(buffer))
    }

    pub(crate) fn row<const N: usize>(&mut self, cells: [Cow<'_, str>; N]) {
        // Writing to a `Vec` does not fail.
        let _ = self.0.write_record(cells.iter().map(|cell| cell.as_bytes()));
    }

    pub(crate) fn into_bytes(self) -> Bytes {
        self.0.into_inner().unwrap_or_default().into()
    }
}

/// A cell with a number, a day or another value that no program interprets.
pub(crate) fn value(value: Option<impl Display>) -> Cow<'static, str> {
    value.map_or(Cow::Borrowed(""), |value| value.to_string().into())
}

/// A cell with text that no program interprets: a formula gets an apostrophe in front of it, for
/// spreadsheets, and a control character becomes a space, for terminals.
pub(crate) fn text(text: Option<&str>) -> Cow<'static, str> {
    let text = text.unwrap_or_default().replace(char::is_control, " ");
    if is_formula(&text) { format!("'{text}").into() } else { text.into() }
}

/// Returns the text of a cell without the apostrophe that marks a formula.
pub(crate) fn unescape(cell: &str) -> &str {
    cell.strip_prefix('\'').filter(|bare| is_formula(bare)).unwrap_or(cell)
}

/// Returns whether a spreadsheet would run the text, perhaps after removing leading apostrophes.
fn is_formula(text: &str) -> bool {
    let is_skipped = |letter: char| letter == '\'' || letter.is_whitespace();
    text.trim_start_matches(is_skipped).starts_with(FORMULA_PREFIXES)
}

/// First characters of formulas, in ASCII and in the full-width forms that spreadsheets accept, too.
const FORMULA_PREFIXES: [char; 8] = ['=', '+', '-', '@', '＝', '＋', '－', '＠'];

#[cfg(test)]
mod tests {
    use super::*;

    fn cell(cell: &str) -> String {
        let mut csv = CsvWriter::new();
        csv.row([text(Some(cell))]);
        String::from_utf8(csv.into_bytes().into()).unwrap()
    }

    #[test]
    fn cells_are_quoted_where_necessary() {
        assert_eq!(cell("用户A"), "用户A\r\n");
        assert_eq!(cell("a,b"), "\"a,b\"\r\n");
        assert_eq!(cell("say \"hi\""), "\"say \"\"hi\"\"\"\r\n");
        assert_eq!(cell("two\nlines\u{1b}[2J"), "two lines [2J\r\n");
    }

    #[test]
    fn no_cell_is_run_as_a_formula() {
        assert_eq!(cell("=1+1"), "\"'=1+1\"\r\n");
        for text in ["+1", "-1", "@SUM(A1)", "\t=1", "\r=1", " =1", "＝1"] {
            assert!(cell(text).starts_with("\"'"), "{text:?}");
        }
        for text in ["=1", " =1", "'=1", "' =1", " '=1", "''=1", "'", "'plain", "plain"] {
            let cell = cell(text);
            let bare = cell.trim_end_matches("\r\n").trim_matches('"');
            assert_eq!(unescape(bare), text);
        }
    }

    #[test]
    fn a_file_begins_with_a_byte_order_mark_and_its_columns() {
        let mut csv = CsvWriter::with_header(["a", "b"]);
        csv.row([value(Some(1)), value(None::<u8>)]);
        assert_eq!(csv.into_bytes(), "\u{feff}a,b\r\n1,\r\n");
    }
}
