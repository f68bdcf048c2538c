//! Query parameters.

use std::str::FromStr;

use serde_json::Value;

use crate::{
    admin::{
        http::input::fields::field,
        store::{KeySort, KeyState, PageCursor},
    },
    clock::Day,
    store::report::GroupBy,
};

/// Maximum number of a row. Stores number rows with signed integers.
const MAX_ROW_NUMBER: u64 = i64::MAX as u64;

field!(
    /// Maximum number of rows on a page.
    PageLimit(usize),
    "a whole number from 1 to 1000",
    |value| whole_number(value).filter(|limit| (1..=1000).contains(limit)),
    {"type": "integer", "minimum": 1, "maximum": 1000}
);

impl PageLimit {
    /// Returns the limit, or 100 if it is absent.
    pub(crate) fn or_default(limit: Option<Self>) -> usize {
        limit.map_or(100, |Self(limit)| limit)
    }
}

field!(
    /// Number of the last row of the previous page, or of rows on all previous pages.
    RowNumber(u64),
    "the `next` of the previous page",
    |value| whole_number(value).filter(|number| *number <= MAX_ROW_NUMBER),
    {"type": "integer", "minimum": 0, "maximum": MAX_ROW_NUMBER}
);

field!(
    /// Cursor at the end of a page of keys.
    KeyCursor(PageCursor),
    "the `next` of the previous page",
    |value| value.as_str()?.parse().ok(),
    {
        "type": "string",
        // The share in hexadecimal digits is a finite number that is not negative.
        "pattern": "^(n?[0-9]{1,18}|l[0-9]{1,18}\\.([0-9a-f]{2})*|\
            s[0-9]{1,18}\\.([0-6][0-9a-f]{2}|7[0-9a-e][0-9a-f]|7f[0-9a-e])[0-9a-f]{13})$"
    }
);

field!(
    /// A boolean.
    BoolParam(bool),
    "`true` or `false`",
    |value| value.as_str()?.parse().ok(),
    {"type": "string", "enum": ["true", "false"]}
);

field!(
    /// `x-request-id` of a response.
    RequestId(String),
    "an `x-request-id`: 1 to 128 visible characters",
    |value| value.as_str().filter(|text| is_request_id(text)).map(str::to_owned),
    {"type": "string", "pattern": "^[!-~]{1,128}$"}
);

field!(
    /// The beginning of an action's name or of a token's id.
    NamePrefix(String),
    "1 to 64 lower-case letters, digits, dots and underscores",
    |value| value.as_str().filter(|text| is_name_prefix(text)).map(str::to_owned),
    {"type": "string", "pattern": "^[a-z0-9._]{1,64}$"}
);

field!(
    /// Order of keys.
    Sort(KeySort),
    "`issued`, `newest`, `label` or `nearest_limit`",
    |value| KeySort::ALL.into_iter().find(|sort| value == sort.as_str()),
    {"type": "string", "enum": KeySort::ALL.map(KeySort::as_str)}
);

field!(
    /// State of keys.
    State(KeyState),
    "`active`, `disabled`, `expired` or `exhausted`",
    |value| KeyState::ALL.into_iter().find(|state| value == state.as_str()),
    {"type": "string", "enum": KeyState::ALL.map(KeyState::as_str)}
);

field!(
    /// A calendar day.
    DayParam(Day),
    "a day such as 2026-11-22",
    |value| value.as_str()?.parse().ok(),
    {"type": "string", "format": "date"}
);

field!(
    /// Dimensions by which rows are grouped.
    GroupByParam(GroupBy),
    "some of `key,day,model`",
    |value| parse_group_by(value.as_str()?),
    {"type": "string", "pattern": "^(key|day|model)(,(key|day|model))*$"}
);

field!(
    /// Whether a report is CSV rather than JSON.
    Format(bool),
    "`json` or `csv`",
    |value| match value.as_str()? {
        "json" => Some(false),
        "csv" => Some(true),
        _ => None,
    },
    {"type": "string", "enum": ["json", "csv"]}
);

field!(
    /// The format of an export.
    CsvOnly(()),
    "`csv`",
    |value| (value.as_str()? == "csv").then_some(()),
    {"type": "string", "enum": ["csv"]}
);

field!(
    /// Text to search for. An empty text matches everything.
    SearchText(String),
    "a text without control characters",
    |value| value.as_str().filter(|text| !text.contains(char::is_control)).map(str::to_owned),
    {"type": "string", "pattern": "^[^\\u0000-\\u001f\\u007f-\\u009f]*$"}
);

fn is_name_prefix(text: &str) -> bool {
    let plain =
        |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"._".contains(&byte);
    (1..=64).contains(&text.len()) && text.bytes().all(plain)
}

fn is_request_id(text: &str) -> bool {
    (1..=128).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic())
}

/// Parses digits without a sign and without zeros in front of them.
fn whole_number<T: FromStr>(value: &Value) -> Option<T> {
    let digits = value.as_str()?;
    let is_plain = digits.bytes().all(|byte| byte.is_ascii_digit())
        && (digits == "0" || !digits.starts_with('0'));
    if is_plain { digits.parse().ok() } else { None }
}

fn parse_group_by(text: &str) -> Option<GroupBy> {
    let mut group_by = GroupBy::default();
    for part in text.split(',') {
        match part {
            "key" => group_by.key = true,
            "day" => group_by.day = true,
            "model" => group_by.model = true,
            _ => return None,
        }
    }
    Some(group_by)
}
