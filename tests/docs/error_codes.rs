//! The tables of docs/errors.md, in both languages, against the catalogue of rejections.

use std::{collections::BTreeMap, fs};

use tower_quota::error::{
    Retry,
    catalog::{self, ErrorCode},
};

/// The words for "final" and for "the upstream's".
const LANGUAGES: [(&str, &str, &str); 2] =
    [("docs/errors.md", "final", "the upstream's"), ("docs/errors.zh.md", "不重试", "上游的")];

/// A row of the table: its cells for the status and for the advice on retries.
type Row = (String, String);

fn rows(path: &str) -> BTreeMap<String, Row> {
    let text = fs::read_to_string(path).unwrap();
    let table = text.lines().filter(|line| line.starts_with('|')).skip(2);
    let mut rows = BTreeMap::new();
    for line in table {
        let cells: Vec<&str> = line.split('|').map(str::trim).collect();
        let [_, status, codes, retry, ..] = cells[..] else { panic!("{path}: {line}") };
        for code in codes.split('`').skip(1).step_by(2) {
            let row = (status.to_owned(), retry.to_owned());
            assert!(rows.insert(code.to_owned(), row).is_none(), "{path}: {code} twice");
        }
    }
    rows
}

#[test]
fn the_tables_of_errors_are_those_of_the_catalogue() {
    let groups = [catalog::LAYERS, catalog::REQUEST, catalog::UPSTREAM];
    let codes: Vec<ErrorCode> = groups.into_iter().flatten().copied().collect();
    for (path, final_word, upstream) in LANGUAGES {
        let mut rows = rows(path);
        for code in &codes {
            let name = code.code();
            let (status, retry) =
                rows.remove(name).unwrap_or_else(|| panic!("{path} does not list {name}"));
            let is_named = status.contains(code.status().as_str());
            assert!(is_named || status.starts_with(upstream), "{path}: status of {name}: {status}");
            let is_final = retry == final_word;
            assert_eq!(is_final, code.retry() == Retry::Never, "{path}: retry of {name}: {retry}");
            if let Some(seconds) = code.retry_after() {
                assert_eq!(retry, format!("`Retry-After: {seconds}`"), "{path}: {name}");
            }
        }
        assert!(rows.is_empty(), "{path}: not in the catalogue: {rows:?}");
    }
}
