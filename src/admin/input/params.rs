//! The parameters of queries, which are texts.

use std::str::FromStr;

use serde_json::Value;

use super::fields::field;
use crate::{
    clock::Day,
    store::{GroupBy, KeySort, KeyState, PageCursor},
};

/// Stores number rows with signed integers.
const LAST_PLACE: u64 = i64::MAX as u64;

field!(
    /// How many rows a page has.
    PageLimit(usize),
    "a whole number from 1 to 1000",
    |value| whole(value).filter(|limit| (1..=1000).contains(limit)),
    {"type": "integer", "minimum": 1, "maximum": 1000}
);

impl PageLimit {
    /// The limit, or 100 where it is not given.
    pub(in crate::admin) fn or_default(limit: Option<Self>) -> usize {
        limit.map_or(100, |Self(limit)| limit)
    }
}

field!(
    /// Where the page before ended.
    Place(u64),
    "the `next` of the page before",
    |value| whole(value).filter(|number| *number <= LAST_PLACE),
    {"type": "integer", "minimum": 0, "maximum": LAST_PLACE}
);

field!(
    /// Where a page of keys ended.
    After(PageCursor),
    "the `next` of the page before",
    |value| value.as_str()?.parse().ok(),
    {
        "type": "string",
        "pattern": "^(n?[0-9]{1,18}|l[0-9]{1,18}\\.([0-9a-f]{2})*|s[0-9]{1,18}\\.[0-6][0-9a-f]{15})$"
    }
);

field!(
    /// Whether only some are asked for.
    Only(bool),
    "`true` or `false`",
    |value| value.as_str()?.parse().ok(),
    {"type": "string", "enum": ["true", "false"]}
);

field!(
    /// The id of a request, as its answer tells it.
    RequestId(String),
    "an `x-request-id`: 1 to 128 visible characters",
    |value| value.as_str().filter(|text| is_request_id(text)).map(str::to_owned),
    {"type": "string", "pattern": "^[!-~]{1,128}$"}
);

field!(
    /// A word that names an action, or the beginning of one.
    Word(String),
    "1 to 64 lower-case letters, digits, dots and underscores",
    |value| value.as_str().filter(|text| is_word(text)).map(str::to_owned),
    {"type": "string", "pattern": "^[a-z0-9._]{1,64}$"}
);

field!(
    /// The order of keys.
    Sort(KeySort),
    "`issued`, `newest`, `label` or `nearest_limit`",
    |value| KeySort::ALL.into_iter().find(|sort| value == sort.as_str()),
    {"type": "string", "enum": KeySort::ALL.map(KeySort::as_str)}
);

field!(
    /// Whether keys work.
    State(KeyState),
    "`active`, `disabled`, `expired` or `exhausted`",
    |value| KeyState::ALL.into_iter().find(|state| value == state.as_str()),
    {"type": "string", "enum": KeyState::ALL.map(KeyState::as_str)}
);

field!(
    /// A calendar day.
    OnDay(Day),
    "a day such as 2026-11-22",
    |value| value.as_str()?.parse().ok(),
    {"type": "string", "format": "date"}
);

field!(
    /// What rows are grouped by.
    Groups(GroupBy),
    "some of `key,day,model`",
    |value| groups(value.as_str()?),
    {"type": "string", "pattern": "^(key|day|model)(,(key|day|model))*$"}
);

field!(
    /// Whether a report is told as CSV.
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
    CsvOnly(()),
    "`csv`",
    |value| (value.as_str()? == "csv").then_some(()),
    {"type": "string", "enum": ["csv"]}
);

field!(
    /// What is looked for; an empty text finds everything.
    SearchText(String),
    "a text without control characters",
    |value| value.as_str().filter(|text| !text.contains(char::is_control)).map(str::to_owned),
    {"type": "string", "pattern": "^[^\\u0000-\\u001f\\u007f-\\u009f]*$"}
);

fn is_word(text: &str) -> bool {
    let plain =
        |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"._".contains(&byte);
    (1..=64).contains(&text.len()) && text.bytes().all(plain)
}

fn is_request_id(text: &str) -> bool {
    (1..=128).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic())
}

/// Digits, without a sign.
fn whole<T: FromStr>(value: &Value) -> Option<T> {
    let digits = value.as_str()?;
    let plain = digits.bytes().all(|byte| byte.is_ascii_digit());
    if plain { digits.parse().ok() } else { None }
}

fn groups(text: &str) -> Option<GroupBy> {
    let mut groups = GroupBy { key: false, day: false, model: false };
    for part in text.split(',') {
        match part.trim() {
            "key" => groups.key = true,
            "day" => groups.day = true,
            "model" => groups.model = true,
            _ => return None,
        }
    }
    Some(groups)
}
