//! Reads the tokens of one-api and new-api, whose quotas are amounts of money instead of requests.

use std::{
    collections::HashMap,
    time::{Duration, SystemTime},
};

use rusqlite::Connection;
use tower::BoxError;
use tower_quota::{admin::store::ImportedKey, key::SecretKey};

use super::source::{
    ReadOptions, Row, RowProblem, RowReport, Source, SourceRow, columns, for_each_row, shown,
};
use crate::commands::progress::Progress;

/// The owner of tokens.
struct Owner {
    name: String,
    is_root: bool,
    /// Why none of the owner's tokens works.
    disabled: Option<&'static str>,
}

/// Required columns: they decide whether a token works.
const REQUIRED: [&str; 5] = ["key", "status", "expired_time", "remain_quota", "unlimited_quota"];
/// Columns of access lists of one-api and new-api.
const ACCESS_LISTS: [&str; 4] = ["models", "subnet", "model_limits", "allow_ips"];
/// The prefix of keys, which the table does not contain.
const PREFIX: &str = "sk-";
/// The role of the root user.
const ROOT: &str = "100";
/// The status of an enabled token or user.
const ENABLED: &str = "1";
/// Latest time in Unix seconds, 9999-12-30.
const MAX_UNIX_SECONDS: u64 = 253_402_207_200;

/// Returns the required columns that `tokens` lacks, or `None` if there is no such table.
pub(super) fn missing_columns(
    connection: &Connection,
) -> rusqlite::Result<Option<Vec<&'static str>>> {
    let found = columns(connection, "tokens")?;
    let missing = REQUIRED.into_iter().filter(|name| !found.iter().any(|column| column == name));
    Ok((!found.is_empty()).then(|| missing.collect()))
}

pub(super) fn read(connection: &Connection, options: &ReadOptions<'_>) -> Result<Source, BoxError> {
    let owners = owners(connection, options.progress)?;
    let mut source = Source::default();
    for_each_row(connection, "tokens", options.progress, |number, row| {
        let place = match row.get("id") {
            Some(id) => format!("tokens id {}", shown(id)),
            None => format!("tokens row {number}"),
        };
        let mut report = RowReport::default();
        let key = token(&row, owners.as_ref(), options, &mut report);
        source.rows.push(SourceRow { place, key, report });
    })?;
    source.notes.push(options.limit_note("quotas there are amounts for all time"));
    if owners.is_none() {
        let note = "the file has no table users, so tokens of disabled users are imported enabled";
        source.notes.push(note.to_owned());
    }
    Ok(source)
}

fn token(
    row: &Row<'_>,
    owners: Option<&HashMap<String, Owner>>,
    options: &ReadOptions<'_>,
    report: &mut RowReport,
) -> Result<ImportedKey, RowProblem> {
    let owner = row.get("user_id").and_then(|id| owners?.get(id));
    let label = label(row.get("name").unwrap_or_default(), owner);
    report.label.clone_from(&label);
    if row.get("deleted_at").is_some() {
        return Err(RowProblem::Skipped("was deleted there".into()));
    }
    let secret =
        row.get("key").map(str::trim).ok_or_else(|| RowProblem::wrong("key", "must be given"))?;
    let secret = match secret.starts_with(PREFIX) {
        true => secret.to_owned(),
        false => format!("{PREFIX}{secret}"),
    };
    let secret = SecretKey::parse(&secret)
        .map_err(|error| RowProblem::wrong("key", &format!("is not a key: {error}")))?;
    let limits = options.default_limits();
    let key = ImportedKey::from_columns(|name| match name {
        "key" => Some(secret.expose()),
        "label" => Some(&label),
        name => limits.get(name),
    })
    .map_err(|error| RowProblem::Conflict(error.to_string()))?;
    let now = SystemTime::now();
    let mut record = key.record().clone();
    record.created_at = row.number("created_time").ok().filter(|at| *at > 0).and_then(time);
    record.expires_at = match row.number("expired_time")? {
        -1 => None,
        // Any other negative value means that the key has expired.
        seconds => time(seconds.max(0)),
    };
    let is_expired = record.expires_at.is_some_and(|at| at <= now);
    let (remaining, unlimited) = (row.number("remain_quota")?, row.switch("unlimited_quota")?);
    let status = row.get("status").unwrap_or_default().trim();
    let disabled = match status {
        ENABLED if !unlimited && remaining <= 0 => Some("its quota was used up there".to_owned()),
        ENABLED => None,
        "2" => Some("it was disabled there".to_owned()),
        "3" if is_expired => None,
        "3" => Some("it counted as expired there".to_owned()),
        "4" => Some("its quota was used up there".to_owned()),
        other => Some(format!("its status there is {:?}", shown(other))),
    };
    let owner_disabled = match owner {
        Some(owner) => owner.disabled,
        None => owners.map(|_| "its owner does not exist there"),
    };
    let disabled = disabled.or(owner_disabled.map(str::to_owned));
    record.disabled = disabled.is_some();
    report.disabled = disabled;
    if !unlimited {
        report.not_kept.push(format!("remain_quota {remaining}"));
    }
    if let Some(group) = row.get("group").filter(|group| *group != "default") {
        report.not_kept.push(format!("group {}", shown(group)));
    }
    let lists = access_lists(row)?;
    if options.drop_access_lists {
        report.not_kept.extend(lists);
    } else if !lists.is_empty() {
        return Err(RowProblem::restricted(&lists));
    }
    ImportedKey::new(key.hash(), record).map_err(|error| RowProblem::Conflict(error.to_string()))
}

/// Returns the access lists of the token.
fn access_lists(row: &Row<'_>) -> Result<Vec<String>, RowProblem> {
    let mut lists = Vec::new();
    for name in ACCESS_LISTS {
        let is_on = name != "model_limits" || row.switch("model_limits_enabled")?;
        if let Some(list) = row.get(name).filter(|_| is_on) {
            lists.push(format!("{name} {}", shown(list)));
        }
    }
    // Model limits without a model forbid all models.
    if row.switch("model_limits_enabled")? && row.get("model_limits").is_none() {
        lists.push("model_limits (none)".to_owned());
    }
    Ok(lists)
}

/// Returns the token's name, with its owner's unless that is the root user.
fn label(name: &str, owner: Option<&Owner>) -> String {
    match owner {
        Some(owner) if name.is_empty() => owner.name.clone(),
        Some(owner) if !owner.is_root && name != owner.name => format!("{name} ({})", owner.name),
        _ => name.to_owned(),
    }
}

/// Returns the owners by id, or `None` if there is no such table.
fn owners(
    connection: &Connection,
    progress: &Progress,
) -> Result<Option<HashMap<String, Owner>>, BoxError> {
    if columns(connection, "users")?.is_empty() {
        return Ok(None);
    }
    let mut owners = HashMap::new();
    for_each_row(connection, "users", progress, |_, row| {
        let disabled = match row.get("status").map_or(ENABLED, str::trim) {
            _ if row.get("deleted_at").is_some() => Some("its owner was deleted there"),
            status if status != ENABLED => Some("its owner is disabled there"),
            _ if row.number("quota").is_ok_and(|quota| quota <= 0) => {
                Some("its owner's quota was used up there")
            }
            _ => None,
        };
        let name = row.get("username").unwrap_or_default().to_owned();
        let is_root = row.get("role") == Some(ROOT);
        if let Some(id) = row.get("id") {
            owners.insert(id.to_owned(), Owner { name, is_root, disabled });
        }
    })?;
    Ok(Some(owners))
}

/// Converts Unix seconds, or returns `None` if they are beyond the year 9999.
fn time(seconds: i64) -> Option<SystemTime> {
    let seconds = u64::try_from(seconds).ok().filter(|seconds| *seconds <= MAX_UNIX_SECONDS)?;
    SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(seconds))
}
