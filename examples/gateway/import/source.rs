//! Files of other programs: which program one belongs to, and its rows.

use std::{
    fmt::{self, Write as _},
    fs::File,
    io::Read,
    path::{Path, PathBuf},
    time::Duration,
};

use clap::ValueEnum;
use rusqlite::{Connection, ErrorCode, OpenFlags, types::ValueRef};
use tower::BoxError;
use tower_quota::{clock::Calendar, key::DailyLimit, store::ImportedKey};

use super::{litellm, one_api, original};
use crate::commands::progress::{Amount, Progress, Stopped};

/// The program that has written a file.
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

/// What is to be read, and how.
pub(super) struct ReadOptions<'a> {
    pub(super) file: &'a Path,
    /// Found out by the content where it is not named.
    pub(super) from: Option<SourceKind>,
    /// Of keys that have none of their own.
    pub(super) daily_limit: DailyLimit,
    /// Whether keys come over without the lists of models, addresses or routes that they had.
    pub(super) drop_access_lists: bool,
    pub(super) calendar: &'a Calendar,
    pub(super) progress: &'a Progress,
}

/// What a file holds.
#[derive(Default)]
pub(super) struct Source {
    pub(super) rows: Vec<SourceRow>,
    /// What could not be taken over as it was, of more than one key.
    pub(super) notes: Vec<String>,
}

/// One row of a table of keys.
pub(super) struct SourceRow {
    /// Where it stands: `tokens id 17`.
    pub(super) place: String,
    pub(super) key: Result<ImportedKey, RowProblem>,
    pub(super) report: RowReport,
}

/// What is said of a key beside its own figures.
#[derive(Default)]
pub(super) struct RowReport {
    pub(super) label: String,
    /// Why it comes over disabled.
    pub(super) disabled: Option<String>,
    /// What it had there and has not here.
    pub(super) not_kept: Vec<String>,
}

/// Why a row brings no key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum RowProblem {
    /// It is none of those that should come over.
    Skipped(String),
    /// It cannot come over as it is.
    Conflict(String),
}

/// The values of a row, by the names of its columns in small letters.
pub(super) struct Row<'a> {
    names: &'a [String],
    values: Vec<Option<String>>,
}

impl ReadOptions<'_> {
    /// What becomes of quotas that are `there` what they are not here.
    pub(super) fn limit_note(&self, there: &str) -> String {
        let limit = match self.daily_limit.get() {
            0 => "are unlimited".to_owned(),
            limit => format!("get {limit} requests a day"),
        };
        format!("{there}, here requests a day: all keys {limit} (--daily-limit)")
    }
}

const SQLITE_HEADER: &[u8] = b"SQLite format 3\0";
/// How much of a file tells what it is.
const HEAD_LENGTH: u64 = 64 * 1024;
/// How long another program may keep its file locked.
const LOCK_TIMEOUT: Duration = Duration::from_secs(5);
/// How many steps SQLite takes between two looks at whether it is to stop.
const STEPS_BETWEEN_CHECKS: i32 = 10_000;
/// How many names an error lists.
const MAX_NAMES: usize = 8;
/// How many characters of a foreign text are shown.
const MAX_SHOWN: usize = 60;

/// Reads all of it, and changes nothing.
pub(super) fn read(options: &ReadOptions<'_>) -> Result<Source, BoxError> {
    let shown = options.file.display();
    let failed = |error: std::io::Error| format!("{shown} cannot be read: {error}");
    let metadata = options.file.metadata().map_err(failed)?;
    if !metadata.is_file() {
        return Err(format!("{shown} cannot be read: it is no regular file").into());
    }
    let mut head = Vec::new();
    File::open(options.file)
        .and_then(|file| file.take(HEAD_LENGTH).read_to_end(&mut head))
        .map_err(failed)?;
    if head.is_empty() {
        return Err(format!("{shown} is empty").into());
    }
    if head.starts_with(SQLITE_HEADER) {
        if metadata.len() % page_size(&head) != 0 {
            return Err(damaged(options.file, "its last page is not whole"));
        }
        read_sqlite(options, is_wal(&head)).map_err(|error| explained(options, error))
    } else {
        match options.from {
            None | Some(SourceKind::Litellm) => litellm::read(options, &head),
            Some(_) => Err(format!(
                "{shown} cannot be read: it is no SQLite database, which --from asks for"
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
    // One state of all tables, while the other program may go on writing.
    let snapshot = connection.unchecked_transaction()?;
    let trial_keys = original::tables(&snapshot)?;
    if original::is_own(&snapshot)? {
        let instead = "export its keys on its page, and import them on the other's";
        return Err(format!("{shown} is this gateway's own: {instead}").into());
    }
    let lacks = one_api::missing_columns(&snapshot)?;
    let kind = match (options.from, trial_keys.is_empty(), &lacks) {
        (Some(SourceKind::Litellm), ..) => {
            let problem = "it is an SQLite database, and --from litellm asks for CSV";
            return Err(format!("{shown} cannot be read: {problem}").into());
        }
        (None, false, Some(lacks)) if lacks.is_empty() => {
            let choose = "--from trial-keys or --from one-api says which is meant";
            return Err(format!("{shown} holds {} and tokens: {choose}", trial_keys[0]).into());
        }
        (None | Some(SourceKind::TrialKeys), false, _) => SourceKind::TrialKeys,
        (None | Some(SourceKind::OneApi | SourceKind::NewApi), _, Some(lacks))
            if lacks.is_empty() =>
        {
            SourceKind::OneApi
        }
        (from, ..) => return Err(unknown_tables(options.file, &snapshot, from, lacks)?.into()),
    };
    Ok(match kind {
        SourceKind::TrialKeys => original::read(&snapshot, &trial_keys, options)?,
        _ => one_api::read(&snapshot, options)?,
    })
}

/// What an SQLite file holds instead of keys that are understood, and what would be.
fn unknown_tables(
    file: &Path,
    connection: &Connection,
    from: Option<SourceKind>,
    lacks: Option<Vec<&'static str>>,
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
        expected.push(match lacks {
            Some(lacks) => format!(
                "a table tokens that is not one-api's or new-api's, as it has no {}",
                lacks.join(", ")
            ),
            None => "no table tokens (one-api, new-api)".to_owned(),
        });
    }
    Ok(format!("{} has {}; found: {found}", file.display(), expected.join(", and ")))
}

/// Some of these names, for an error.
pub(super) fn names(names: &[String], none: &str) -> String {
    if names.is_empty() {
        return none.to_owned();
    }
    let some = names.iter().take(MAX_NAMES).map(|name| shown(name));
    let more = if names.len() > MAX_NAMES { ", …" } else { "" };
    some.collect::<Vec<_>>().join(", ") + more
}

/// A foreign text in one line that cannot fill the screen.
pub(super) fn shown(text: &str) -> String {
    let mut line = String::new();
    for letter in text.chars().take(MAX_SHOWN) {
        let _ = match letter {
            '"' | '\'' => write!(line, "{letter}"),
            _ => write!(line, "{}", letter.escape_debug()),
        };
    }
    if text.chars().nth(MAX_SHOWN).is_some() {
        line.push('…');
    }
    line
}

/// The size of a page by the file's header.
fn page_size(head: &[u8]) -> u64 {
    match head.get(16..18) {
        Some(&[0, 1]) => 65536,
        Some(&[high, low]) => u64::from(u16::from_be_bytes([high, low])).max(512),
        _ => u64::MAX,
    }
}

/// Whether the file's header says that it has a write-ahead log.
fn is_wal(head: &[u8]) -> bool {
    head.get(18) == Some(&2)
}

/// Opens the file so that neither it nor what lies beside it changes.
fn open(file: &Path, is_wal: bool) -> rusqlite::Result<Connection> {
    // The log lies beside the file itself, wherever a link to it lies.
    let whole = file.canonicalize().unwrap_or_else(|_| file.to_owned());
    let mut wal = whole.clone().into_os_string();
    wal.push("-wal");
    // SQLite would make the log that is missing, and leave it there.
    let is_closed = is_wal && !PathBuf::from(wal).exists();
    let name = whole.to_str().filter(|_| is_closed);
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
        "{} cannot be read: it is damaged or cut off ({problem}); copy it again while the other \
         program is stopped",
        file.display()
    )
    .into()
}

/// What has failed, and what to do about it.
fn explained(options: &ReadOptions<'_>, error: BoxError) -> BoxError {
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

/// The names of a table's columns in small letters, as SQLite takes them in any; none if there is no such
/// table.
pub(super) fn columns(connection: &Connection, table: &str) -> rusqlite::Result<Vec<String>> {
    let mut statement = connection.prepare("SELECT lower(name) FROM pragma_table_info(?1)")?;
    statement.query_map([table], |row| row.get(0))?.collect()
}

/// Reports that this many rows are read, and fails if no more are to be.
pub(super) fn report(progress: &Progress, rows: usize) -> Result<(), Stopped> {
    let done = u64::try_from(rows).unwrap_or(u64::MAX);
    progress.report("reading the file", Amount::Count { done, total: None })
}

/// Fails if the table is damaged, which its rows alone need not show. A view has no pages of its own.
fn check(connection: &Connection, table: &str) -> rusqlite::Result<()> {
    let sql = "SELECT count(*) FROM sqlite_master WHERE type = 'view' AND lower(name) = ?1";
    if connection.query_row(sql, [table], |row| row.get(0))? {
        return Ok(());
    }
    let mut statement = connection.prepare(&format!("PRAGMA quick_check({table})"))?;
    let mut found = statement.query([])?;
    while let Some(row) = found.next()? {
        let text: String = row.get(0)?;
        // A value that its column does not allow can still be read.
        let is_damage = text != "ok" && !text.contains(" value in ") && !text.starts_with("CHECK ");
        if is_damage {
            let code = rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_CORRUPT);
            return Err(rusqlite::Error::SqliteFailure(code, Some(shown(&text))));
        }
    }
    Ok(())
}

/// Hands the rows of a table to `read` one by one, with their numbers from 1.
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

/// Whatever was put into a column, as text.
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

    /// What the column holds, if it is there and holds something.
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        let at = self.names.iter().position(|column| column == name)?;
        self.values.get(at)?.as_deref().filter(|text| !is_null(text))
    }

    /// A number that the column must hold.
    pub(super) fn number(&self, name: &str) -> Result<i64, RowProblem> {
        let number = self.get(name).and_then(|text| text.trim().parse().ok());
        number.ok_or_else(|| RowProblem::wrong(name, "must be a whole number"))
    }

    /// A switch, which is off where the column holds nothing.
    pub(super) fn switch(&self, name: &str) -> Result<bool, RowProblem> {
        match self.get(name).map(|text| text.trim().to_ascii_lowercase()).as_deref() {
            None | Some("0" | "f" | "false" | "no" | "off") => Ok(false),
            Some("1" | "t" | "true" | "yes" | "on") => Ok(true),
            Some(_) => Err(RowProblem::wrong(name, "must be true or false")),
        }
    }
}

/// The forms in which programs write that there is nothing.
fn is_null(text: &str) -> bool {
    let text = text.trim();
    let forms = ["", "\\N", "NULL", "[NULL]", "(NULL)"];
    forms.iter().any(|form| text.eq_ignore_ascii_case(form))
}

impl RowProblem {
    pub(super) fn wrong(column: &str, expected: &str) -> Self {
        Self::Conflict(format!("`{column}` {expected}"))
    }

    /// A list that confines a key, and that is not kept here.
    pub(super) fn confined(lists: &[String]) -> Self {
        Self::Conflict(format!(
            "is confined to {}, which is not kept here; --drop-access-lists takes it over without",
            lists.join(" and ")
        ))
    }
}
