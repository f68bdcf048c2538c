//! The tables that are moved, and their columns.

use Kind::{Flag, Int, Limit, Switch, Text};

use crate::store::report::FIGURES;

/// Kind of a column, which is what people may have typed into a SQLite column of it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Text,
    /// A whole number; anything else is an error.
    Int,
    /// 0 or 1 in SQLite, a `boolean` in PostgreSQL.
    Flag,
    /// A limit. What is no number becomes -1, with which no key is served either.
    Limit,
    /// Whether a key is disabled. What is no number disables it.
    Switch,
}

/// A table that is moved.
pub(super) struct Table {
    pub(super) name: &'static str,
    /// Its columns, which have the same names in both databases.
    pub(super) columns: &'static [(&'static str, Kind)],
    /// Columns by which its rows are ordered.
    pub(super) order: &'static str,
    /// Column with numbers that PostgreSQL continues.
    pub(super) number: Option<&'static str>,
    /// Columns whose sums are reported.
    pub(super) sums: &'static [&'static str],
}

impl Table {
    const fn new(
        name: &'static str,
        order: &'static str,
        columns: &'static [(&'static str, Kind)],
    ) -> Self {
        Self { name, columns, order, number: None, sums: &[] }
    }

    const fn numbered(self, column: &'static str) -> Self {
        Self { number: Some(column), ..self }
    }

    const fn with_sums(self, sums: &'static [&'static str]) -> Self {
        Self { sums, ..self }
    }

    /// Returns PostgreSQL's aggregates that are compared with what was read: the number of rows, and for each column
    /// its sum, or that of the lengths of its texts.
    pub(super) fn aggregates(&self) -> Vec<String> {
        let sums = self.columns.iter().map(|(name, kind)| match kind {
            Text => format!("sum(octet_length({name}))"),
            Int | Limit | Switch => format!("sum({name})"),
            Flag => format!("sum({name}::int)"),
        });
        ["count(*)".to_owned()].into_iter().chain(sums).collect()
    }
}

const USAGE_TOTALS: [(&str, Kind); 3 + FIGURES.len()] = with_figures(["day", "key_id", "model"]);
const MODEL_TOTALS: [(&str, Kind); 2 + FIGURES.len()] = with_figures(["day", "model"]);

/// Returns the columns of a table of sums, which follow these.
const fn with_figures<const FIRST: usize, const COUNT: usize>(
    first: [&'static str; FIRST],
) -> [(&'static str, Kind); COUNT] {
    assert!(COUNT == FIRST + FIGURES.len());
    let mut columns = [("", Int); COUNT];
    let mut at = 0;
    while at < COUNT {
        columns[at] = if at < FIRST { (first[at], Text) } else { (FIGURES[at - FIRST], Int) };
        at += 1;
    }
    columns
}

/// The tables, in the order in which they are moved.
pub(super) const TABLES: &[Table] = &[
    Table::new(
        "api_keys",
        "seq",
        &[
            ("seq", Int),
            ("id", Text),
            ("key", Text),
            ("label", Text),
            ("daily_limit", Limit),
            ("monthly_limit", Limit),
            ("minute_limit", Limit),
            ("max_in_flight", Limit),
            ("created_at", Text),
            ("expires_at", Text),
            ("disabled", Switch),
            ("key_hash", Text),
            ("old_key_hash", Text),
            ("old_key_until", Text),
        ],
    )
    .numbered("seq"),
    Table::new(
        "daily_usage",
        "key_id, quota, day",
        &[
            ("key_id", Text),
            ("quota", Text),
            ("day", Text),
            ("epoch", Int),
            ("used", Int),
            ("refunded", Int),
            ("reset_used", Int),
            ("last_used_at", Int),
        ],
    )
    .with_sums(&["used", "refunded", "reset_used"]),
    Table::new("usage_totals", "day, key_id, model", &USAGE_TOTALS)
        .with_sums(&["requests", "total_tokens"]),
    Table::new("model_totals", "day, model", &MODEL_TOTALS)
        .with_sums(&["requests", "total_tokens"]),
    Table::new(
        "requests",
        "number",
        &[
            ("number", Int),
            ("key_id", Text),
            ("at", Int),
            ("request_id", Text),
            ("method", Text),
            ("path", Text),
            ("status", Int),
            ("outcome", Text),
            ("code", Text),
            ("units", Int),
            ("refunded", Flag),
            ("model_asked", Text),
            ("model", Text),
            ("prompt_tokens", Int),
            ("completion_tokens", Int),
            ("total_tokens", Int),
            ("cached_tokens", Int),
            ("reasoning_tokens", Int),
            ("bytes_in", Int),
            ("bytes_out", Int),
            ("time_to_head", Int),
            ("time_to_first_byte", Int),
            ("duration", Int),
        ],
    )
    .numbered("number")
    .with_sums(&["units"]),
    Table::new(
        "audit_log",
        "number",
        &[
            ("number", Int),
            ("at", Text),
            ("token_id", Text),
            ("ip", Text),
            ("action", Text),
            ("key_id", Text),
            ("detail", Text),
        ],
    )
    .numbered("number"),
    Table::new(
        "claims",
        "number",
        &[
            ("number", Int),
            ("token_hash", Text),
            ("key_id", Text),
            ("created_at", Int),
            ("expires_at", Int),
            ("opened_at", Int),
            ("withdrawn", Flag),
        ],
    )
    .numbered("number"),
    Table::new(
        "issued_once",
        "name",
        &[("name", Text), ("request", Text), ("key_ids", Text), ("at", Int)],
    ),
    Table::new(
        "deleted_keys",
        "id",
        &[("id", Text), ("key", Text), ("label", Text), ("daily_limit", Limit)],
    ),
    Table::new("revoked_keys", "key_hash", &[("key_hash", Text), ("key_id", Text)]),
];

#[cfg(test)]
mod tests {
    use std::{
        collections::{BTreeMap, BTreeSet},
        fs,
    };

    use super::TABLES;

    /// Tables that are not moved, and why.
    const NOT_MOVED: &[(&str, &[&str], &str)] = &[
        ("sqlite", &["probe"], "tests whether the file can be written"),
        ("sqlite", &["identity", "journal", "boot"], "belong to the file and its journal"),
        ("sqlite", &["blocks", "awaited_events"], "are empty without a journal"),
        ("postgres", &["nodes"], "belong to journals, of which there is none yet"),
        ("sqlite", &["active_days"], "is filled by triggers"),
        ("postgres", &["active_days"], "is filled by triggers"),
        ("postgres", &["quarter_units", "quarter_requests"], "are filled by triggers"),
        ("postgres", &["counters"], "is filled from daily_usage as keys are used"),
        ("postgres", &["leases", "awaited_events"], "belong to nodes"),
        ("postgres", &["sqlite_migration"], "is about the migration"),
    ];

    type Columns = BTreeMap<String, BTreeSet<String>>;

    /// Reads tables and their columns from the migrations of a schema.
    fn schema(back_end: &str) -> Columns {
        let folder = format!("{}/src/store/{back_end}/schema", env!("CARGO_MANIFEST_DIR"));
        let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
        let mut files: Vec<_> =
            entries.filter(|path| path.extension().is_some_and(|kind| kind == "sql")).collect();
        // By their numbers: `10.sql` comes after `9.sql`.
        files.sort_by_key(|path| (path.as_os_str().len(), path.clone()));
        let mut tables = Columns::new();
        for file in files {
            let sql = fs::read_to_string(&file).unwrap();
            let lines = sql.lines().filter(|line| !line.trim_start().starts_with("--"));
            let sql = lines.flat_map(|line| [line, "\n"]).collect::<String>();
            for statement in sql.split(";\n") {
                apply(statement.trim(), &mut tables);
            }
        }
        tables
    }

    fn apply(statement: &str, tables: &mut Columns) {
        let word = |text: &str| {
            let end = text.find(|c: char| !c.is_ascii_alphanumeric() && c != '_' && c != '"');
            text[..end.unwrap_or(text.len())].trim_matches('"').to_owned()
        };
        if let Some(table) = statement.strip_prefix("CREATE TABLE ") {
            let (name, body) = table.split_once(" (").unwrap();
            let is_column = |column: &String| column.chars().all(|c| !c.is_ascii_uppercase());
            // A line of a table has one column; a table in one line has its columns between commas.
            let parts = if body.contains('\n') { body.split(",\n") } else { body.split(", ") };
            let columns = parts.map(|part| word(part.trim()));
            let columns = columns.filter(|column| is_column(column) && !column.is_empty());
            tables.insert(name.to_owned(), columns.collect());
        } else if let Some(table) = statement.strip_prefix("ALTER TABLE ") {
            let (name, change) = table.split_once(' ').unwrap();
            if let Some(column) = change.strip_prefix("ADD COLUMN ") {
                tables.get_mut(name).unwrap().insert(word(column));
            } else if let Some(new_name) = change.strip_prefix("RENAME TO ") {
                let columns = tables.remove(name).unwrap();
                tables.insert(new_name.to_owned(), columns);
            } else {
                panic!("unknown: {statement}");
            }
        } else if let Some(name) = statement.strip_prefix("DROP TABLE ") {
            tables.remove(name).unwrap();
        }
    }

    #[test]
    fn every_table_and_column_of_both_schemas_is_moved_or_named_as_not_moved() {
        let moved: Columns = TABLES
            .iter()
            .map(|table| {
                let columns = table.columns.iter().map(|(name, _)| (*name).to_owned());
                (table.name.to_owned(), columns.collect())
            })
            .collect();
        for back_end in ["sqlite", "postgres"] {
            let mut schema = schema(back_end);
            for (of, names, why) in NOT_MOVED {
                for name in names.iter().filter(|_| *of == back_end) {
                    assert!(
                        schema.remove(*name).is_some(),
                        "{back_end} has no {name}, which {why}"
                    );
                }
            }
            assert_eq!(schema, moved, "{back_end}");
        }
    }
}
