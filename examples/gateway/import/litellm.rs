//! Reads LiteLLM's table of keys, exported to CSV by PostgreSQL's tools. It contains hashes of keys only.

use std::{fs::File, time::SystemTime};

use csv::{ByteRecord, ReaderBuilder};
use tower::BoxError;
use tower_quota::{
    admin::store::ImportedKey,
    clock::parse_timestamp,
    key::{KeyHash, SecretKey},
};

use super::source::{
    ReadOptions, Row, RowProblem, RowReport, Source, SourceRow, names, report, shown,
};

/// Required columns: they decide whether a key works.
const REQUIRED: [&str; 6] = ["token", "expires", "blocked", "models", "spend", "max_budget"];
/// Columns of access lists, and the values that restrict nothing.
const ACCESS_LISTS: [(&str, &[&str]); 3] = [
    ("models", &["all-proxy-models", "*"]),
    ("allowed_routes", &["llm_api_routes", "*"]),
    ("access_group_ids", &[]),
];
/// Columns that are not imported and that the report shows with their values.
const SHOWN: [&str; 11] = [
    "max_budget",
    "budget_duration",
    "rpm_limit",
    "tpm_limit",
    "max_parallel_requests",
    "budget_id",
    "team_id",
    "organization_id",
    "project_id",
    "agent_id",
    "object_permission_id",
];
/// Columns that are not imported and that the report shows without their values, which may be long.
const NAMED: [&str; 9] = [
    "permissions",
    "aliases",
    "config",
    "router_settings",
    "metadata",
    "policies",
    "allowed_cache_controls",
    "model_max_budget",
    "budget_limits",
];
/// The team of the keys of LiteLLM's own pages.
const DASHBOARD_TEAM: &str = "litellm-dashboard";
/// The user of the master key.
const DEFAULT_USER: &str = "default_user_id";
/// Maximum number of characters that a masked key may show at its end.
const MAX_TAIL_CHARS: usize = 4;

/// Reads a file that begins with `head`.
pub(super) fn read(options: &ReadOptions<'_>, head: &[u8]) -> Result<Source, BoxError> {
    let shown = options.file.display();
    let not_csv = |what: &str| format!("{shown} cannot be read: {what}; accepted are {ACCEPTED}");
    if head.starts_with(&[0xff, 0xfe]) || head.starts_with(&[0xfe, 0xff]) {
        return Err(not_csv("it is UTF-16, and must be UTF-8").into());
    }
    if head.contains(&0) {
        return Err(not_csv("it is neither an SQLite database nor text").into());
    }
    if !head.contains(&b'\n') && !is_whole(options, head)? {
        return Err(not_csv("its first line is too long").into());
    }
    let mut reader = ReaderBuilder::new()
        // A row of the wrong length is reported, and the others are imported.
        .flexible(true)
        .delimiter(separator(head))
        .from_reader(File::open(options.file)?);
    let columns: Vec<String> = reader
        .byte_headers()?
        .iter()
        .map(|name| {
            String::from_utf8_lossy(name).trim_start_matches('\u{feff}').trim().to_lowercase()
        })
        .collect();
    let missing = REQUIRED.into_iter().filter(|name| !columns.iter().any(|column| column == name));
    let missing: Vec<&str> = missing.collect();
    if !missing.is_empty() {
        return Err(not_csv(&missing_columns(&columns, &missing)).into());
    }
    let is_duplicate = |name: &&&str| columns.iter().filter(|column| column == *name).count() > 1;
    if let Some(duplicate) = REQUIRED.iter().find(is_duplicate) {
        return Err(not_csv(&format!("it has the column {duplicate} twice")).into());
    }
    let mut source = Source::default();
    let mut teams = 0;
    let mut record = ByteRecord::new();
    while reader.read_byte_record(&mut record)? {
        report(options.progress, source.rows.len())?;
        let place = format!("row {}", source.rows.len() + 1);
        let mut report = RowReport::default();
        let key = values(&record, columns.len()).and_then(|values| {
            let row = Row::new(&columns, values);
            teams += usize::from(row.get("team_id").is_some_and(|team| team != DASHBOARD_TEAM));
            key(&row, options, &mut report)
        });
        source.rows.push(SourceRow { place, key, report });
    }
    source.notes.push(options.limit_note("budgets there are amounts of money"));
    if teams > 0 {
        source.notes.push(format!(
            "keys that belong to teams: {teams}; whether a team is blocked or used up is not in this file"
        ));
    }
    Ok(source)
}

const ACCEPTED: &str = "the SQLite files of one-api, new-api and trial-key proxies, and the table \
                        LiteLLM_VerificationToken as CSV with a header";

/// Describes a header without the required columns. Shows only what looks like a name, as the line may
/// contain keys.
fn missing_columns(columns: &[String], missing: &[&str]) -> String {
    let is_name = |name: &&String| {
        let is_plain = |letter: char| letter.is_ascii_lowercase() || letter == '_';
        (1..=32).contains(&name.len()) && name.chars().all(is_plain)
    };
    let found: Vec<String> = columns.iter().filter(is_name).cloned().collect();
    let found = names(&found, "none that looks like a name");
    if missing.len() < REQUIRED.len() {
        let missing = missing.join(", ");
        return format!("it lacks the columns {missing} (found: {found}); export all columns");
    }
    let has = |name: &str| columns.iter().any(|column| column == name);
    if has("key") && (has("daily_limit") || has("label")) {
        return "it is a list of keys as this gateway exports it; import it on the operator's page"
            .to_owned();
    }
    format!("it is not an SQLite database and has no LiteLLM header (columns found: {found})")
}

/// Returns whether `head` is all of the file.
fn is_whole(options: &ReadOptions<'_>, head: &[u8]) -> std::io::Result<bool> {
    let length = options.file.metadata()?.len();
    Ok(u64::try_from(head.len()).is_ok_and(|read| read == length))
}

/// Returns the separator that occurs most often in the first line.
fn separator(head: &[u8]) -> u8 {
    let first = head.split(|byte| *byte == b'\n').next().unwrap_or(head);
    let count = |separator: &u8| first.iter().filter(|byte| *byte == separator).count();
    // Of equal counts, the last wins.
    *b"\t;,".iter().max_by_key(|separator| count(separator)).unwrap_or(&b',')
}

fn values(record: &ByteRecord, columns: usize) -> Result<Vec<Option<String>>, RowProblem> {
    if record.len() != columns {
        return Err(RowProblem::Conflict(format!(
            "has {} values, the header {columns}; the file may be truncated",
            record.len()
        )));
    }
    let text = |value: &[u8]| String::from_utf8(value.to_vec()).map(Some);
    record
        .iter()
        .map(text)
        .collect::<Result<_, _>>()
        .map_err(|_| RowProblem::Conflict("is not UTF-8 text".to_owned()))
}

fn key(
    row: &Row<'_>,
    options: &ReadOptions<'_>,
    report: &mut RowReport,
) -> Result<ImportedKey, RowProblem> {
    let user = row.get("user_id").filter(|user| *user != DEFAULT_USER);
    let label = row.get("key_alias").or(user).unwrap_or_default();
    report.label = label.to_owned();
    if row.get("team_id") == Some(DASHBOARD_TEAM) {
        return Err(RowProblem::Skipped("opens LiteLLM's own pages".into()));
    }
    // The table of deleted keys has the same columns.
    if row.get("deleted_at").is_some() {
        return Err(RowProblem::Skipped("was deleted there".into()));
    }
    let token = row.get("token").unwrap_or_default().trim();
    let limits = options.default_limits();
    let (secret, hash, masked);
    let column: (&str, &str) = if KeyHash::from_hex(token).is_some() {
        (hash, masked) = (token, masked_name(row.get("key_name")));
        ("key_sha256", hash)
    } else {
        masked = String::new();
        secret =
            SecretKey::parse(token).ok().filter(|_| token.starts_with("sk-")).ok_or_else(|| {
                RowProblem::wrong("token", "must be 64 hexadecimal digits, as LiteLLM hashes keys")
            })?;
        ("key", secret.expose())
    };
    let key = ImportedKey::from_columns(|name| match name {
        name if name == column.0 => Some(column.1),
        "key" => Some(&*masked),
        "label" => Some(label),
        name => limits.get(name),
    })
    .map_err(|error| RowProblem::Conflict(error.to_string()))?;
    let mut record = key.record().clone();
    record.created_at = row.get("created_at").and_then(time);
    record.expires_at = match row.get("expires").map(str::trim) {
        None | Some("infinity") => None,
        Some(text) => {
            let wrong =
                || RowProblem::wrong("expires", "must be a time such as 2025-02-10 15:20:00");
            Some(time(text).ok_or_else(wrong)?)
        }
    };
    let disabled = if row.switch("blocked")? {
        Some("it was blocked there".to_owned())
    } else if is_used_up(row)? {
        let reset = row.get("budget_reset_at").map(|at| format!(" until {}", shown(at)));
        Some(format!("its budget was used up there{}", reset.unwrap_or_default()))
    } else {
        None
    };
    record.disabled = disabled.is_some();
    report.disabled = disabled;
    let with_value =
        SHOWN.into_iter().filter_map(|name| Some(format!("{name} {}", shown(row.get(name)?))));
    report.not_kept.extend(with_value);
    let named = NAMED.into_iter().filter(|name| row.get(name).is_some_and(|text| !is_empty(text)));
    report.not_kept.extend(named.map(str::to_owned));
    let lists: Vec<String> =
        ACCESS_LISTS.iter().filter_map(|(name, all)| access_list(row, name, all)).collect();
    if options.drop_access_lists {
        report.not_kept.extend(lists);
    } else if !lists.is_empty() {
        return Err(RowProblem::restricted(&lists));
    }
    ImportedKey::new(key.hash(), record).map_err(|error| RowProblem::Conflict(error.to_string()))
}

/// Returns the access list in this column, unless it restricts nothing.
fn access_list(row: &Row<'_>, name: &str, unrestricted: &[&str]) -> Option<String> {
    let text = row.get(name).filter(|text| !is_empty(text))?;
    let mut elements = text
        .trim()
        .trim_matches(['{', '}', '[', ']'])
        .split(',')
        .map(|element| element.trim().trim_matches('"'));
    let is_unrestricted = elements.all(|element| unrestricted.contains(&element));
    (!is_unrestricted).then(|| format!("{name} {}", shown(text)))
}

/// Returns whether a list or an object is empty.
fn is_empty(text: &str) -> bool {
    let text: String = text.chars().filter(|letter| !letter.is_whitespace()).collect();
    matches!(&*text, "{}" | "[]" | "null" | "\"\"")
}

fn is_used_up(row: &Row<'_>) -> Result<bool, RowProblem> {
    let amount = |name: &str| {
        let read = |text: &str| text.trim().parse::<f64>().ok().filter(|amount| amount.is_finite());
        row.get(name)
            .map(|text| read(text).ok_or_else(|| RowProblem::wrong(name, "must be a number")))
            .transpose()
    };
    let spent = amount("spend")?.unwrap_or_default();
    Ok(amount("max_budget")?.is_some_and(|budget| spent >= budget))
}

/// Parses a time as PostgreSQL and its tools write it: in UTC unless there is an offset.
fn time(text: &str) -> Option<SystemTime> {
    let text = text.trim();
    parse_timestamp(text).or_else(|| {
        // 2025-02-10 15:20:00.123 +0000
        let (time, zone) = text.rsplit_once(' ')?;
        zone.starts_with(['+', '-']).then(|| parse_timestamp(&format!("{time}{zone}")))?
    })
}

/// Converts `sk-...abcd` to the format of masked keys here.
fn masked_name(name: Option<&str>) -> String {
    let tail = name.and_then(|name| name.trim().strip_prefix("sk-..."));
    let is_tail = |tail: &&str| {
        tail.len() <= MAX_TAIL_CHARS && tail.bytes().all(|byte| byte.is_ascii_graphic())
    };
    tail.filter(is_tail).map(|tail| format!("sk-…{tail}")).unwrap_or_default()
}
