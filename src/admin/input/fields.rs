//! The fields of bodies.

use std::time::{Duration, SystemTime};

use serde::{
    Deserialize, Deserializer,
    de::{DeserializeOwned, Error as _},
};
use serde_json::Value;

use crate::{clock::parse_timestamp, key::DailyLimit, store::KeyRef};

/// Defines a type that is read from one JSON value, with what a wrong one is told that it must be,
/// and its schema.
macro_rules! field {
    ($(#[$doc:meta])* $name:ident($inner:ty), $needs:literal, $read:expr, $schema:tt) => {
        $(#[$doc])*
        #[derive(Clone, Debug)]
        pub(in crate::admin) struct $name(pub(in crate::admin) $inner);

        impl $name {
            pub(in crate::admin) const NEEDS: &str = $needs;
        }

        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let value = serde_json::Value::deserialize(deserializer)?;
                let read: fn(&serde_json::Value) -> Option<$inner> = $read;
                read(&value).map(Self).ok_or_else(|| serde::de::Error::custom(Self::NEEDS))
            }
        }

        impl schemars::JsonSchema for $name {
            fn inline_schema() -> bool {
                true
            }

            fn schema_name() -> std::borrow::Cow<'static, str> {
                stringify!($name).into()
            }

            fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
                schemars::json_schema!($schema)
            }
        }
    };
}
pub(super) use field;

const LONGEST_LABEL: usize = 200;
/// The end of the year 8999, before which all that reads and writes times can do so.
const LATEST_MILLISECOND: u64 = 221_845_391_999_999;
const LONGEST_GRACE: u64 = 2_592_000;
const LONGEST_CLAIM: u64 = 2_592_000;

field!(
    /// What an operator calls a key.
    Label(String),
    "a text of at most 200 characters without control characters",
    |value| value.as_str().filter(|text| is_label(text)).map(str::to_owned),
    {"type": "string", "maxLength": 200, "pattern": "^[^\\u0000-\\u001f\\u007f-\\u009f]*$"}
);

field!(
    /// A label, or the pattern of several: `{n}` stands for the number of the key.
    LabelPattern(String),
    "a text of at most 200 characters without control characters",
    |value| value.as_str().filter(|text| !text.chars().any(char::is_control)).map(str::to_owned),
    {"type": "string", "maxLength": 200, "pattern": "^[^\\u0000-\\u001f\\u007f-\\u009f]*$"}
);

field!(
    /// Requests a day.
    Limit(DailyLimit),
    "a whole number from 0 (unlimited) to 1000000000",
    |value| value.as_i64().and_then(|number| DailyLimit::try_from(number).ok()),
    {"type": "integer", "minimum": 0, "maximum": DailyLimit::MAX}
);

field!(
    /// The `{user}` part of generated keys.
    User(String),
    "1 to 32 ASCII letters and digits",
    |value| value.as_str().filter(|text| is_user(text)).map(str::to_owned),
    {"type": "string", "pattern": "^[A-Za-z0-9]{1,32}$"}
);

field!(
    /// An instant: RFC 3339, a day, or Unix seconds or milliseconds.
    Expiry(SystemTime),
    "a time such as 2026-12-31T00:00:00Z",
    |value| {
        let at = match value {
            Value::String(text) => parse_timestamp(text),
            Value::Number(number) => parse_timestamp(&number.to_string()),
            _ => None,
        };
        let latest = SystemTime::UNIX_EPOCH + Duration::from_millis(LATEST_MILLISECOND);
        at.filter(|at| (SystemTime::UNIX_EPOCH..=latest).contains(at))
    },
    {"anyOf": [
        {"type": "string", "format": "date-time", "pattern": "^(19[7-9]|[2-8][0-9][0-9])[0-9]-"},
        {"type": "string", "format": "date", "pattern": "^(19[7-9]|[2-8][0-9][0-9])[0-9]-"},
        {"type": "integer", "minimum": 0, "maximum": LATEST_MILLISECOND},
    ]}
);

field!(
    Flag(bool),
    "true or false",
    Value::as_bool,
    {"type": "boolean"}
);

field!(
    /// How many keys.
    Count(usize),
    "a whole number from 1 to 1000",
    |value| {
        let count = value.as_u64().and_then(|count| usize::try_from(count).ok());
        count.filter(|count| (1..=1000).contains(count))
    },
    {"type": "integer", "minimum": 1, "maximum": 1000}
);

field!(
    /// How long a rotated key still works: whole seconds.
    Grace(Duration),
    "a whole number from 0 to 2592000 (30 days)",
    |value| value.as_u64().filter(|seconds| *seconds <= LONGEST_GRACE).map(Duration::from_secs),
    {"type": "integer", "minimum": 0, "maximum": LONGEST_GRACE}
);

field!(
    /// How long a claim can be opened: whole seconds.
    ClaimTime(Duration),
    "a whole number from 60 to 2592000 (30 days)",
    |value| {
        let seconds = value.as_u64().filter(|seconds| (60..=LONGEST_CLAIM).contains(seconds));
        seconds.map(Duration::from_secs)
    },
    {"type": "integer", "minimum": 60, "maximum": LONGEST_CLAIM}
);

field!(
    /// A key, by id or by its whole text.
    KeyName(KeyRef),
    "the id of a key or the whole key",
    |value| value.as_str().filter(|text| !text.is_empty()).map(|text| KeyRef::new(text.trim())),
    {"type": "string", "minLength": 1}
);

/// For `deserialize_with`, beside `default`: an absent field is none, and `null` is refused as it
/// could mean more than one thing.
pub(in crate::admin) fn given<'de, D, T>(deserializer: D) -> Result<Option<T>, D::Error>
where
    D: Deserializer<'de>,
    T: DeserializeOwned,
{
    let value = Value::deserialize(deserializer)?;
    if value.is_null() {
        return Err(D::Error::custom("a value, or left out to stay as it is"));
    }
    T::deserialize(value).map(Some).map_err(D::Error::custom)
}

/// For `deserialize_with`, beside `default`: an absent field is none, `null` is `Some(None)`.
pub(in crate::admin) fn nullable<'de, D, T>(deserializer: D) -> Result<Option<Option<T>>, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de>,
{
    Option::deserialize(deserializer).map(Some)
}

fn is_label(text: &str) -> bool {
    text.chars().count() <= LONGEST_LABEL && !text.chars().any(char::is_control)
}

fn is_user(text: &str) -> bool {
    (1..=32).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_alphanumeric())
}

impl LabelPattern {
    /// The label of key `n` of `count`, its number as wide as the last one's, so that labels sort.
    /// `None` when it gets too long.
    pub(in crate::admin) fn label(&self, n: usize, count: usize) -> Option<String> {
        let width = count.to_string().len();
        let label = self.0.replace("{n}", &format!("{n:0width$}"));
        is_label(&label).then_some(label)
    }
}
