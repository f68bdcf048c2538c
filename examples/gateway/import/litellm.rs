//! LiteLLM's table of keys, as PostgreSQL's tools export it to CSV. Only the keys' hashes stand there.

use std::{fs::File, time::SystemTime};

use csv::{ByteRecord, ReaderBuilder};
use tower::BoxError;
use tower_quota::{
    clock::parse_timestamp,
    key::{KeyHash, SecretKey},
    store::ImportedKey,
};

use super::source::{
    ReadOptions, Row, RowProblem, RowReport, Source, SourceRow, names, report, shown,
};

/// What decides whether a key works, so that it must be there.
const NEEDED: [&str; 6] = ["token", "expires", "blocked", "models", "spend", "max_budget"];
/// What confines a key, and the words with which it does not.
const LISTS: [(&str, &[&str]); 3] = [
    ("models", &["all-proxy-models", "*"]),
    ("allowed_routes", &["llm_api_routes", "*"]),
    ("access_group_ids", &[]),
];
/// Limits and belongings that are shown with what they say.
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
/// Columns of JSON and lists that may be long.
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
/// The team of the keys with which LiteLLM's own pages are opened.
const DASHBOARD: &str = "litellm-dashboard";
/// The user whom the master key stands for.
const DEFAULT_USER: &str = "default_user_id";
/// How much of a key its masked form may show behind the dots.
const MAX_TAIL: usize = 4;

/// Reads a file that begins with `head`.
pub(super) fn read(options: &ReadOptions<'_>, head: &[u8]) -> Result<Source, BoxError> {
    let shown = options.file.display();
    let not_csv = |what: &str| format!("{shown} cannot be read: {what}; accepted are {ACCEPTED}");
    if head.starts_with(&[0xff, 0xfe]) || head.starts_with(&[0xfe, 0xff]) {
        return Err(not_csv("it is UTF-16 text, and must be UTF-8").into());
    }
    if head.contains(&0) {
        return Err(not_csv("it is neither an SQLite database nor text").into());
    }
    if !head.contains(&b'\n') && !is_whole(options, head)? {
        return Err(not_csv("its first line has no end").into());
    }
    let mut reader = ReaderBuilder::new()
        // A row of another length is wrong, but the others are not.
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
    let lacks = NEEDED.into_iter().filter(|name| !columns.iter().any(|column| column == name));
    let lacks: Vec<&str> = lacks.collect();
    if !lacks.is_empty() {
        return Err(not_csv(&unknown_columns(&columns, &lacks)).into());
    }
    if let Some(twice) =
        NEEDED.iter().find(|name| columns.iter().filter(|at| at == name).count() > 1)
    {
        return Err(not_csv(&format!("the column {twice} stands there twice")).into());
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
            teams += usize::from(row.get("team_id").is_some_and(|team| team != DASHBOARD));
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

/// What stands in the header instead. Only names are shown: the line may be one of keys.
fn unknown_columns(columns: &[String], lacks: &[&str]) -> String {
    let is_name = |name: &&String| {
        let is_plain = |letter: char| letter.is_ascii_lowercase() || letter == '_';
        (1..=32).contains(&name.len()) && name.chars().all(is_plain)
    };
    let found: Vec<String> = columns.iter().filter(is_name).cloned().collect();
    let found = names(&found, "none that looks like a name");
    if lacks.len() < NEEDED.len() {
        let lacks = lacks.join(", ");
        return format!("it lacks the columns {lacks} (found: {found}); export all columns");
    }
    let has = |name: &str| columns.iter().any(|column| column == name);
    if has("key") && (has("daily_limit") || has("label")) {
        return "it is a list of keys as this gateway exports it, which goes in on the operator's page"
            .to_owned();
    }
    format!("it is no SQLite database and has no header of LiteLLM's (columns found: {found})")
}

/// Whether this is all of the file.
fn is_whole(options: &ReadOptions<'_>, head: &[u8]) -> std::io::Result<bool> {
    let length = options.file.metadata()?.len();
    Ok(u64::try_from(head.len()).is_ok_and(|read| read == length))
}

/// What stands most often in the first line.
fn separator(head: &[u8]) -> u8 {
    let first = head.split(|byte| *byte == b'\n').next().unwrap_or(head);
    let count = |separator: &u8| first.iter().filter(|byte| *byte == separator).count();
    // The last of those that are as many.
    *b"\t;,".iter().max_by_key(|separator| count(separator)).unwrap_or(&b',')
}

fn values(record: &ByteRecord, columns: usize) -> Result<Vec<Option<String>>, RowProblem> {
    if record.len() != columns {
        return Err(RowProblem::Conflict(format!(
            "has {} values, the header {columns}; perhaps the file is cut off",
            record.len()
        )));
    }
    let text = |value: &[u8]| String::from_utf8(value.to_vec()).map(Some);
    record
        .iter()
        .map(text)
        .collect::<Result<_, _>>()
        .map_err(|_| RowProblem::Conflict("is no UTF-8 text".to_owned()))
}

fn key(
    row: &Row<'_>,
    options: &ReadOptions<'_>,
    report: &mut RowReport,
) -> Result<ImportedKey, RowProblem> {
    let user = row.get("user_id").filter(|user| *user != DEFAULT_USER);
    let label = row.get("key_alias").or(user).unwrap_or_default();
    report.label = label.to_owned();
    if row.get("team_id") == Some(DASHBOARD) {
        return Err(RowProblem::Skipped("opens LiteLLM's own pages".into()));
    }
    // Keys that were deleted stand in a table with the same columns.
    if row.get("deleted_at").is_some() {
        return Err(RowProblem::Skipped("was deleted there".into()));
    }
    let token = row.get("token").unwrap_or_default().trim();
    let limit = options.daily_limit.get().to_string();
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
    let mut key = ImportedKey::from_columns(|name| match name {
        name if name == column.0 => Some(column.1),
        "key" => Some(&*masked),
        "label" => Some(label),
        "daily_limit" => Some(&limit),
        _ => None,
    })
    .map_err(|error| RowProblem::Conflict(error.to_string()))?;
    key.created_at = row.get("created_at").and_then(time);
    key.expires_at = match row.get("expires").map(str::trim) {
        None | Some("infinity") => None,
        Some(text) => {
            let wrong =
                || RowProblem::wrong("expires", "must be a time such as 2025-02-10 15:20:00");
            Some(time(text).ok_or_else(wrong)?)
        }
    };
    let off = if row.switch("blocked")? {
        Some("it was blocked there".to_owned())
    } else if is_used_up(row)? {
        let reset = row.get("budget_reset_at").map(|at| format!(" until {}", shown(at)));
        Some(format!("its budget was used up there{}", reset.unwrap_or_default()))
    } else {
        None
    };
    key.disabled = off.is_some();
    report.disabled = off;
    let said =
        SHOWN.into_iter().filter_map(|name| Some(format!("{name} {}", shown(row.get(name)?))));
    report.not_kept.extend(said);
    let named = NAMED.into_iter().filter(|name| row.get(name).is_some_and(|text| !is_empty(text)));
    report.not_kept.extend(named.map(str::to_owned));
    let lists: Vec<String> = LISTS.iter().filter_map(|(name, all)| list(row, name, all)).collect();
    if options.drop_access_lists {
        report.not_kept.extend(lists);
    } else if !lists.is_empty() {
        return Err(RowProblem::confined(&lists));
    }
    Ok(key)
}

/// A list that confines the key, unless all that it has are words for everything.
fn list(row: &Row<'_>, name: &str, all: &[&str]) -> Option<String> {
    let text = row.get(name).filter(|text| !is_empty(text))?;
    let mut elements = text
        .trim()
        .trim_matches(['{', '}', '[', ']'])
        .split(',')
        .map(|element| element.trim().trim_matches('"'));
    let names_all = elements.all(|element| all.contains(&element));
    (!names_all).then(|| format!("{name} {}", shown(text)))
}

/// Whether a list or an object is empty.
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

/// A time as PostgreSQL and its tools write it: in UTC where it names no zone.
fn time(text: &str) -> Option<SystemTime> {
    let text = text.trim();
    parse_timestamp(text).or_else(|| {
        // 2025-02-10 15:20:00.123 +0000
        let (time, zone) = text.rsplit_once(' ')?;
        zone.starts_with(['+', '-']).then(|| parse_timestamp(&format!("{time}{zone}")))?
    })
}

/// `sk-...abcd` as masked keys are written here.
fn masked_name(name: Option<&str>) -> String {
    let tail = name.and_then(|name| name.trim().strip_prefix("sk-..."));
    let is_tail =
        |tail: &&str| tail.len() <= MAX_TAIL && tail.bytes().all(|byte| byte.is_ascii_graphic());
    tail.filter(is_tail).map(|tail| format!("sk-…{tail}")).unwrap_or_default()
}
