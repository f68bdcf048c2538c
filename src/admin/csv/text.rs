//! Comma-separated values (RFC 4180).

use std::fmt::Display;

/// Rows of cells with CRLF after each.
#[derive(Default)]
pub(in crate::admin) struct Csv(String);

/// Marks a file as UTF-8. Without it, spreadsheets assume the system's code page.
pub(in crate::admin) const BYTE_ORDER_MARK: &str = "\u{feff}";

impl Csv {
    /// Begins a file with a byte order mark and the header row.
    pub(in crate::admin) fn file<const N: usize>(columns: [&str; N]) -> Self {
        let mut csv = Self(BYTE_ORDER_MARK.to_owned());
        csv.row(columns.map(Cell::Text));
        csv
    }

    /// Writes a row.
    pub(in crate::admin) fn row<'a>(&mut self, cells: impl IntoIterator<Item = Cell<'a>>) {
        for (at, cell) in cells.into_iter().enumerate() {
            if at > 0 {
                self.0.push(',');
            }
            match cell {
                Cell::Empty => {}
                Cell::Plain(value) => self.0.push_str(&value.to_string()),
                Cell::Text(text) => self.text(text),
            }
        }
        self.0.push_str("\r\n");
    }

    /// Writes text so that no program interprets it: a formula gets an apostrophe in front of it, for
    /// spreadsheets, and a control character becomes a space, for terminals.
    fn text(&mut self, text: &str) {
        let text = &*text.replace(char::is_control, " ");
        let formula = is_formula(text);
        let quoted = formula || text.contains([',', '"']) || text.trim() != text;
        if !quoted {
            return self.0.push_str(text);
        }
        self.0.push('"');
        if formula {
            self.0.push('\'');
        }
        self.0.push_str(&text.replace('"', "\"\""));
        self.0.push('"');
    }

    pub(in crate::admin) fn into_text(self) -> String {
        self.0
    }
}

/// Returns the text of a cell without the apostrophe that marks a formula.
pub(in crate::admin) fn unescape(cell: &str) -> &str {
    cell.strip_prefix('\'').filter(|bare| is_formula(bare)).unwrap_or(cell)
}

/// Returns whether a spreadsheet would run the text, perhaps after removing leading apostrophes.
fn is_formula(text: &str) -> bool {
    let is_skipped = |letter: char| letter == '\'' || letter.is_whitespace();
    text.trim_start_matches(is_skipped).starts_with(FORMULA_PREFIXES)
}

/// First characters of formulas, in ASCII and in the full-width forms that spreadsheets accept, too.
const FORMULA_PREFIXES: [char; 8] = ['=', '+', '-', '@', '＝', '＋', '－', '＠'];

/// One cell.
pub(in crate::admin) enum Cell<'a> {
    Empty,
    /// A number or a day, which needs no quotes.
    Plain(&'a dyn Display),
    Text(&'a str),
}

impl<'a> Cell<'a> {
    pub(in crate::admin) fn plain<T: Display>(value: &'a Option<T>) -> Self {
        value.as_ref().map_or(Self::Empty, |value| Self::Plain(value))
    }

    pub(in crate::admin) fn text(text: Option<&'a str>) -> Self {
        text.map_or(Self::Empty, Self::Text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cell(text: &str) -> String {
        let mut csv = Csv::default();
        csv.row([Cell::Text(text)]);
        csv.into_text()
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
}
