//! Detects which program a file belongs to, and reads its rows.

use std::{
    fmt::{self, Write as _},
    fs::File,
    io::Read,
    iter,
    path::{Path, PathBuf},
    time::Duration,
};

use clap::ValueEnum;
use rusqlite::{Connection, ErrorCode, OpenFlags, types::ValueRef};
use tower::BoxError;
use tower_quota::{
    admin::store::ImportedKey,
    clock::Calendar,
    key::{KeyLimits, Limit},
};

use super::{litellm, one_api, original};
use crate::commands::progress::{Amount, Progress, Stopped};

/// The program that wrote a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum SourceKind {
    /// SQLite with trial_keys or api_keys
    TrialKeys,
    /// one-api's SQLite
    OneApi,
    /// new-api's SQLite
    NewApi,
    /// LiteLLM_VerificationToken as CSV
    Litellm,
}

/// Options for reading a file.
pub(super) struct ReadOptions<'a> {
    pub(super) file: &'a Path,
    /// The program that wrote the file; detected by its content if `None`.
    pub(super) from: Option<SourceKind>,
    /// Daily limit of keys that have none of their own.
    pub(super) daily_limit: Limit,
    /// Other limits of keys that have none of their own.
    pub(super) limits: KeyLimits,
    /// Whether keys are imported without their lists of models, addresses or routes.
    pub(super) drop_access_lists: bool,
    pub(super) calendar: &'a Calendar,
    pub(super) progress: &'a Progress,
}

/// The contents of a file.
#[derive(Default)]
pub(super) struct Source {
    pub(super) rows: Vec<SourceRow>,
    /// Notes about what is not imported of several keys.
    pub(super) notes: Vec<String>,
}

/// One row of a table of keys.
pub(super) struct SourceRow {
    /// The place of the row, such as `tokens id 17`.
    pub(super) place: String,
    pub(super) key: Result<ImportedKey, RowProblem>,
    pub(super) report: RowReport,
}

/// What the report says of a key in addition to its fields.
#[derive(Default)]
pub(super) struct RowReport {
    pub(super) label: String,
    /// Why the key is imported disabled.
    pub(super) disabled: Option<String>,
    /// Properties of the key that are not imported.
    pub(super) not_kept: Vec<String>,
}

/// Why a row is not imported.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum RowProblem {
    /// The row must not be imported.
    Skipped(String),
    /// The row cannot be imported.
    Conflict(String),
}

/// Limits by the names of their columns, as texts.
pub(super) struct DefaultLimits(Vec<(&'static str, String)>);

impl DefaultLimits {
    pub(super) fn get(&self, column: &str) -> Option<&str> {
        let found = self.0.iter().find(|(name, _)| *name == column);
        found.map(|(_, limit)| &**limit)
    }
}

/// The values of a row, by the lower-case names of its columns.
pub(super) struct Row<'a> {
    names: &'a [String],
    values: Vec<Option<String>>,
}

impl ReadOptions<'_> {
    /// Returns the limits of keys that have none of their own.
    pub(super) fn default_limits(&self) -> DefaultLimits {
        let others = self.limits.iter().map(|(limit, value)| (limit.name(), value));
        let all = iter::once(("daily_limit", self.daily_limit)).chain(others);
        DefaultLimits(all.map(|(name, value)| (name, value.number().to_string())).collect())
    }

    /// Returns the note about quotas of another unit. `there` describes them.
    pub(super) fn limit_note(&self, there: &str) -> String {
        let limit = match self.daily_limit.number() {
            0 => "are unlimited".to_owned(),
            limit => format!("get {limit} requests a day"),
        };
        format!("{there}, here requests a day: all keys {limit} (--daily-limit)")
    }
}

const SQLITE_HEADER: &[u8] = b"SQLite format 3\0";
/// Number of bytes that are read to detect the format of a file.
const HEAD_BYTES: u64 = 64 * 1024;
/// Maximum time that another program may keep its file locked.
const LOCK_TIMEOUT: Duration = Duration::from_secs(5);
/// Number of SQLite's virtual machine steps between two checks whether the command must stop.
const STEPS_BETWEEN_CHECKS: i32 = 10_000;
/// Maximum number of names that an error lists.
const MAX_NAMES: usize = 8;
/// Maximum number of characters that are shown of a text of the file.
const MAX_SHOWN_CHARS: usize = 60;

/// Reads the whole file without changing it.
pub(super) fn read(options: &ReadOptions<'_>) -> Result<Source, BoxError> {
    let shown = options.file.display();
    let failed = |error: std::io::Error| format!("{shown} cannot be read: {error}");
    let metadata = options.file.metadata().map_err(failed)?;
    if !metadata.is_file() {
        return Err(format!("{shown} cannot be read: it is not a regular file").into());
    }
    let mut head = Vec::new();
    File::open(options.file)
        .and_then(|file| file.take(HEAD_BYTES).read_to_end(&mut head))
        .map_err(failed)?;
    if head.is_empty() {
        return Err(format!("{shown} is empty").into());
    }
    if head.starts_with(SQLITE_HEADER) {
        if metadata.len() % page_size(&head) != 0 {
            return Err(damaged(options.file, "its last page is incomplete"));
        }
        read_sqlite(options, is_wal(&head)).map_err(|error| with_advice(options, error))
    } else {
        match options.from {
            None | Some(SourceKind::Litellm) => litellm::read(options, &head),
            Some(_) => Err(format!(
                "{shown} cannot be read: it is not an SQLite database, which --from requires"
            )
            .into()),
        }
    }
}

fn read_sqlite(options: &ReadOptions<'_>, is_wal: bool) -> Result<Source, BoxError> {
    let shown = options.file.display();
    let connection = open(options.file, is_wal)?;
    let progress = options.progress.clone();
    connection.progress_handler(STEPS_BETWEEN_CHECKS, Some(move || progress.is_stopping()))?;
    // A consistent view of all tables, as the other program may be writing.
    let snapshot = connection.unchecked_transaction()?;
    let trial_keys = original::tables(&snapshot)?;
    if original::is_own(&snapshot)? {
        let instead =
            "export its keys on its page, and import them on the page of the other gateway";
        return Err(format!("{shown} is this gateway's own: {instead}").into());
    }
    let missing = one_api::missing_columns(&snapshot)?;
    let kind = match (options.from, trial_keys.is_empty(), &missing) {
        (Some(SourceKind::Litellm), ..) => {
            let problem = "it is an SQLite database, and --from litellm requires CSV";
            return Err(format!("{shown} cannot be read: {problem}").into());
        }
        (None, false, Some(missing)) if missing.is_empty() => {
            let choose = "choose with --from trial-keys or --from one-api";
            return Err(format!("{shown} holds {} and tokens: {choose}", trial_keys[0]).into());
        }
        (None | Some(SourceKind::TrialKeys), false, _) => SourceKind::TrialKeys,
        (None | Some(SourceKind::OneApi | SourceKind::NewApi), _, Some(missing))
            if missing.is_empty() =>
        {
            SourceKind::OneApi
        }
        (from, ..) => return Err(unknown_tables(options.file, &snapshot, from, missing)?.into()),
    };
    Ok(match kind {
        SourceKind::TrialKeys => original::read(&snapshot, &trial_keys, options)?,
        _ => one_api::read(&snapshot, options)?,
    })
}

/// Describes an SQLite file without known tables of keys, and what was expected.
fn unknown_tables(
    file: &Path,
    connection: &Connection,
    from: Option<SourceKind>,
    missing: Option<Vec<&'static str>>,
) -> rusqlite::Result<String> {
    let sql = "SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY rowid";
    let mut statement = connection.prepare(sql)?;
    let found = statement.query_map([], |row| row.get(0))?;
    let found = names(&found.collect::<rusqlite::Result<Vec<String>>>()?, "no tables");
    let mut expected = Vec::new();
    if matches!(from, None | Some(SourceKind::TrialKeys)) {
        expected.push("neither trial_keys nor api_keys with keys in it".to_owned());
    }
    if from != Some(SourceKind::TrialKeys) {
        expected.push(match missing {
            Some(missing) => format!(
                "a table tokens that is not one-api's or new-api's, as it has no {}",
                missing.join(", ")
            ),
            None => "no table tokens (one-api, new-api)".to_owned(),
        });
    }
    Ok(format!("{} has {}; found: {found}", file.display(), expected.join(", and ")))
}

/// Lists the first names for an error, or returns `none` if there are none.
pub(super) fn names(names: &[String], none: &str) -> String {
    if names.is_empty() {
        return none.to_owned();
    }
    let some = names.iter().take(MAX_NAMES).map(|name| shown(name));
    let more = if names.len() > MAX_NAMES { ", …" } else { "" };
    some.collect::<Vec<_>>().join(", ") + more
}

/// Escapes and shortens a text of the file for the report.
pub(super) fn shown(text: &str) -> String {
    let mut line = String::new();
    for letter in text.chars().take(MAX_SHOWN_CHARS) {
        let _ = match letter {
            '"' | '\'' => write!(line, "{letter}"),
            _ => write!(line, "{}", letter.escape_debug()),
        };
    }
    if text.chars().nth(MAX_SHOWN_CHARS).is_some() {
        line.push('…');
    }
    line
}

/// Returns the page size in the file's header.
fn page_size(head: &[u8]) -> u64 {
    match head.get(16..18) {
        Some(&[0, 1]) => 65536,
        Some(&[high, low]) => u64::from(u16::from_be_bytes([high, low])).max(512),
        _ => u64::MAX,
    }
}

/// Returns whether the file's header says that it is in WAL mode.
fn is_wal(head: &[u8]) -> bool {
    head.get(18) == Some(&2)
}

/// Opens the file so that neither it nor the files next to it change.
fn open(file: &Path, is_wal: bool) -> rusqlite::Result<Connection> {
    // The WAL is next to the target of a symbolic link.
    let target = file.canonicalize().unwrap_or_else(|_| file.to_owned());
    let mut wal = target.clone().into_os_string();
    wal.push("-wal");
    // SQLite would create a missing WAL and leave it behind.
    let is_closed = is_wal && !PathBuf::from(wal).exists();
    let name = target.to_str().filter(|_| is_closed);
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY;
    let connection = match name {
        Some(name) => {
            let escaped = name.replace('%', "%25").replace('?', "%3f").replace('#', "%23");
            let flags = flags | OpenFlags::SQLITE_OPEN_URI;
            Connection::open_with_flags(format!("file:{escaped}?immutable=1"), flags)?
        }
        None => Connection::open_with_flags(file, flags)?,
    };
    connection.busy_timeout(LOCK_TIMEOUT)?;
    Ok(connection)
}

fn damaged(file: &Path, problem: impl fmt::Display) -> BoxError {
    format!(
        "{} cannot be read: it is damaged or truncated ({problem}); copy it again while the other \
         program is stopped",
        file.display()
    )
    .into()
}

/// Adds advice to an error of SQLite.
fn with_advice(options: &ReadOptions<'_>, error: BoxError) -> BoxError {
    let file = options.file;
    let shown = file.display();
    let Some(sqlite) = error.downcast_ref::<rusqlite::Error>() else {
        return error;
    };
    match sqlite.sqlite_error_code() {
        Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => damaged(file, sqlite),
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => format!(
            "{shown} cannot be read: the other program has locked it; try again, or stop that program"
        )
        .into(),
        // SQLite would have to write.
        Some(ErrorCode::ReadOnly) => format!(
            "{shown} cannot be read: the other program has not finished its last change to it; \
             start that program once, stop it, and try again"
        )
        .into(),
        Some(ErrorCode::OperationInterrupted) => {
            options.progress.stopped("nothing was changed").into()
        }
        _ => format!("{shown} cannot be read: {sqlite}").into(),
    }
}

/// Returns the names of a table's columns in lower case, as SQLite ignores their case; none if there is no
/// such table.
pub(super) fn columns(connection: &Connection, table: &str) -> rusqlite::Result<Vec<String>> {
    let mut statement = connection.prepare("SELECT lower(name) FROM pragma_table_info(?1)")?;
    statement.query_map([table], |row| row.get(0))?.collect()
}

/// Reports the number of rows that are read, and fails if the command must stop.
pub(super) fn report(progress: &Progress, rows: usize) -> Result<(), Stopped> {
    let done = u64::try_from(rows).unwrap_or(u64::MAX);
    progress.report("reading the file", Amount::Count { done, total: None })
}

/// Fails if the table is damaged, which reading its rows may not detect. A view has no pages of its own.
fn check(connection: &Connection, table: &str) -> rusqlite::Result<()> {
    let sql = "SELECT count(*) FROM sqlite_master WHERE type = 'view' AND lower(name) = ?1";
    if connection.query_row(sql, [table], |row| row.get(0))? {
        return Ok(());
    }
    let mut statement = connection.prepare(&format!("PRAGMA quick_check({table})"))?;
    let mut results = statement.query([])?;
    while let Some(row) = results.next()? {
        let text: String = row.get(0)?;
        // A value of the wrong type can still be read.
        let is_damage = text != "ok" && !text.contains(" value in ") && !text.starts_with("CHECK ");
        if is_damage {
            let code = rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_CORRUPT);
            return Err(rusqlite::Error::SqliteFailure(code, Some(shown(&text))));
        }
    }
    Ok(())
}

/// Calls `read` for each row of a table, with its number from 1.
pub(super) fn for_each_row(
    connection: &Connection,
    table: &str,
    progress: &Progress,
    mut read: impl FnMut(usize, Row<'_>),
) -> Result<(), BoxError> {
    check(connection, table)?;
    let mut statement = connection.prepare(&format!("SELECT * FROM {table}"))?;
    let names: Vec<String> = statement.column_names().into_iter().map(str::to_lowercase).collect();
    let mut rows = statement.query([])?;
    let mut number = 0;
    while let Some(row) = rows.next()? {
        report(progress, number)?;
        let values = (0..names.len()).map(|at| row.get_ref(at).map(text));
        number += 1;
        read(number, Row { names: &names, values: values.collect::<rusqlite::Result<_>>()? });
    }
    Ok(())
}

/// Converts a value of any type to text.
pub(super) fn text(value: ValueRef<'_>) -> Option<String> {
    match value {
        ValueRef::Null => None,
        ValueRef::Integer(number) => Some(number.to_string()),
        ValueRef::Real(number) => Some(number.to_string()),
        ValueRef::Text(bytes) | ValueRef::Blob(bytes) => {
            Some(String::from_utf8_lossy(bytes).into_owned())
        }
    }
}

impl<'a> Row<'a> {
    pub(super) fn new(names: &'a [String], values: Vec<Option<String>>) -> Self {
        Self { names, values }
    }

    /// Returns the value of the column, or `None` if there is no such column or it is null.
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        let at = self.names.iter().position(|column| column == name)?;
        self.values.get(at)?.as_deref().filter(|text| !is_null(text))
    }

    /// Returns the number in the column.
    pub(super) fn number(&self, name: &str) -> Result<i64, RowProblem> {
        let number = self.get(name).and_then(|text| text.trim().parse().ok());
        number.ok_or_else(|| RowProblem::wrong(name, "must be a whole number"))
    }

    /// Returns the boolean in the column, which is false if it is null.
    pub(super) fn switch(&self, name: &str) -> Result<bool, RowProblem> {
        match self.get(name).map(|text| text.trim().to_ascii_lowercase()).as_deref() {
            None | Some("0" | "f" | "false" | "no" | "off") => Ok(false),
            Some("1" | "t" | "true" | "yes" | "on") => Ok(true),
            Some(_) => Err(RowProblem::wrong(name, "must be true or false")),
        }
    }
}

/// Returns whether the text is one that programs write for null.
fn is_null(text: &str) -> bool {
    let text = text.trim();
    let forms = ["", "\\N", "NULL", "[NULL]", "(NULL)"];
    forms.iter().any(|form| text.eq_ignore_ascii_case(form))
}

impl RowProblem {
    pub(super) fn wrong(column: &str, expected: &str) -> Self {
        Self::Conflict(format!("`{column}` {expected}"))
    }

    /// The problem of a key with access lists, which this gateway does not have.
    pub(super) fn restricted(lists: &[String]) -> Self {
        Self::Conflict(format!(
            "is restricted to {}, which is not kept here; --drop-access-lists imports it without",
            lists.join(" and ")
        ))
    }
}
