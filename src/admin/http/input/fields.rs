//! Fields of request bodies.

use std::time::{Duration, SystemTime};

use serde::{
    Deserialize, Deserializer,
    de::{DeserializeOwned, Error as _},
};
use serde_json::Value;

use crate::{
    admin::store::{KeyRef, is_label},
    clock::parse_timestamp,
    key::Limit,
};

/// Defines a type that is deserialised from one JSON value, with the text that completes "must be …"
/// in the error for an invalid value, and with its schema.
macro_rules! field {
    ($(#[$doc:meta])* $name:ident($inner:ty), $expected:literal, $read:expr, $schema:tt) => {
        $(#[$doc])*
        #[derive(Clone, Debug)]
        pub(crate) struct $name(pub(crate) $inner);

        impl $name {
            pub(crate) const EXPECTED: &str = $expected;
        }

        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let value = serde_json::Value::deserialize(deserializer)?;
                let read: fn(&serde_json::Value) -> Option<$inner> = $read;
                read(&value).map(Self).ok_or_else(|| serde::de::Error::custom(Self::EXPECTED))
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

/// Stands for the number of a key in a [`LabelPattern`].
const NUMBER: &str = "{n}";
/// The end of the year 8999, in Unix milliseconds. Later times do not fit every format.
const MAX_UNIX_MILLIS: u64 = 221_845_391_999_999;
/// Maximum time for which a rotated key keeps working, in seconds.
const MAX_GRACE_SECONDS: u64 = 2_592_000;
/// Maximum lifetime of a claim, in seconds.
const MAX_CLAIM_SECONDS: u64 = 2_592_000;

field!(
    /// The label of a key.
    Label(String),
    "a text of at most 200 characters without control characters",
    |value| value.as_str().filter(|text| is_label(text)).map(str::to_owned),
    {"type": "string", "maxLength": 200, "pattern": "^[^\\u0000-\\u001f\\u007f-\\u009f]*$"}
);

field!(
    /// A label, or a pattern for several keys, in which `{n}` stands for the key's number.
    LabelPattern(String),
    "a text of at most 200 characters without control characters",
    // The number has one character or more.
    |value| {
        let text = value.as_str()?;
        is_label(&text.replace(NUMBER, "1")).then(|| text.to_owned())
    },
    {"type": "string", "pattern": "^(\\{n\\}|[^\\u0000-\\u001f\\u007f-\\u009f]){0,200}$"}
);

field!(
    /// Number of requests.
    RequestLimit(Limit),
    "a whole number from 0 (unlimited) to 1000000000",
    |value| value.as_i64().and_then(|number| Limit::from_stored(number).ok()),
    {"type": "integer", "minimum": 0, "maximum": Limit::MAX_STORED}
);

field!(
    /// The `{user}` part of generated keys.
    User(String),
    "1 to 32 ASCII letters and digits",
    |value| value.as_str().filter(|text| is_user(text)).map(str::to_owned),
    {"type": "string", "pattern": "^[A-Za-z0-9]{1,32}$"}
);

field!(
    /// A time: RFC 3339, a day of it, or Unix seconds or milliseconds.
    Expiry(SystemTime),
    "a time such as 2026-12-31T00:00:00Z",
    |value| {
        let at = match value {
            Value::String(text) => parse_rfc3339(text),
            // Larger numbers than the latest time in milliseconds are in another unit.
            Value::Number(number) if number.as_u64()? <= MAX_UNIX_MILLIS => {
                parse_timestamp(&number.to_string())
            }
            _ => None,
        };
        let latest = SystemTime::UNIX_EPOCH + Duration::from_millis(MAX_UNIX_MILLIS);
        at.filter(|at| (SystemTime::UNIX_EPOCH..=latest).contains(at))
    },
    {"anyOf": [
        {"type": "string", "format": "date-time", "pattern": "^(19[7-9]|[2-8][0-9][0-9])[0-9]-"},
        {"type": "string", "format": "date", "pattern": "^(19[7-9]|[2-8][0-9][0-9])[0-9]-"},
        {"type": "integer", "minimum": 0, "maximum": MAX_UNIX_MILLIS},
    ]}
);

field!(
    /// A JSON boolean.
    Flag(bool),
    "true or false",
    Value::as_bool,
    {"type": "boolean"}
);

field!(
    /// Consent to the loss of what only a lost journal has.
    AcceptLoss(()),
    "true",
    |value| (*value == true).then_some(()),
    {"type": "boolean", "const": true}
);

field!(
    /// Number of keys.
    KeyCount(usize),
    "a whole number from 1 to 1000",
    |value| {
        let count = value.as_u64().and_then(|count| usize::try_from(count).ok());
        count.filter(|count| (1..=1000).contains(count))
    },
    {"type": "integer", "minimum": 1, "maximum": 1000}
);

field!(
    /// Time for which a rotated key keeps working, in whole seconds.
    GracePeriod(Duration),
    "a whole number from 0 to 2592000 (30 days)",
    |value| value.as_u64().filter(|seconds| *seconds <= MAX_GRACE_SECONDS).map(Duration::from_secs),
    {"type": "integer", "minimum": 0, "maximum": MAX_GRACE_SECONDS}
);

field!(
    /// Time for which a claim can be opened, in whole seconds.
    ClaimLifetime(Duration),
    "a whole number from 60 to 2592000 (30 days)",
    |value| {
        let seconds = value.as_u64().filter(|seconds| (60..=MAX_CLAIM_SECONDS).contains(seconds));
        seconds.map(Duration::from_secs)
    },
    {"type": "integer", "minimum": 60, "maximum": MAX_CLAIM_SECONDS}
);

field!(
    /// A key, given by id or by the whole key.
    KeyRefField(KeyRef),
    "the id of a key or the whole key",
    |value| value.as_str().filter(|text| !text.is_empty()).map(|text| KeyRef::new(text.trim())),
    {"type": "string", "minLength": 1}
);

/// For `deserialize_with` together with `default`: an absent field is `None`, and `null` is rejected
/// because it is ambiguous.
pub(crate) fn non_null<'de, D, T>(deserializer: D) -> Result<Option<T>, D::Error>
where
    D: Deserializer<'de>,
    T: DeserializeOwned,
{
    let value = Value::deserialize(deserializer)?;
    if value.is_null() {
        return Err(D::Error::custom("a value; leave it out to keep the current one"));
    }
    T::deserialize(value).map(Some).map_err(D::Error::custom)
}

/// For `deserialize_with` together with `default`: an absent field is `None`, `null` is `Some(None)`.
pub(crate) fn nullable<'de, D, T>(deserializer: D) -> Result<Option<Option<T>>, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de>,
{
    Option::deserialize(deserializer).map(Some)
}

fn is_user(text: &str) -> bool {
    (1..=32).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_alphanumeric())
}

/// Parses a `date-time` or `full-date` of RFC 3339. People type more forms into a table.
fn parse_rfc3339(text: &str) -> Option<SystemTime> {
    let form = text.replace(|letter: char| letter.is_ascii_digit(), "0");
    if form == "0000-00-00" {
        return parse_timestamp(text);
    }
    let is_time =
        ["0000-00-00T00:00:00", "0000-00-00t00:00:00"].iter().any(|to| form.starts_with(to));
    let (to_second, rest) = text.split_at_checked(19).filter(|_| is_time)?;
    let (fraction, offset) = rest.split_at(rest.find(['Z', 'z', '+', '-'])?);
    let digits = if fraction.is_empty() { "0" } else { fraction.strip_prefix('.')? };
    let is_fraction = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    let is_offset = match offset.split_at(1) {
        ("Z" | "z", rest) => rest.is_empty(),
        (_, hours) => form.ends_with("00:00") && hours.len() == 5 && hours < "24",
    };
    // There is no unit below a nanosecond.
    let fraction = &fraction[..fraction.len().min(10)];
    let is_rfc3339 = is_fraction && is_offset;
    is_rfc3339.then(|| parse_timestamp(&format!("{to_second}{fraction}{offset}"))).flatten()
}

impl LabelPattern {
    /// Returns the label of key `n` of `count`, with the number padded to the width of the last one, so
    /// that labels sort. Returns `None` if the label is too long.
    pub(crate) fn label(&self, n: usize, count: usize) -> Option<String> {
        let width = count.to_string().len();
        let label = self.0.replace(NUMBER, &format!("{n:0width$}"));
        is_label(&label).then_some(label)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn number_of_a_time_is_within_the_bounds_of_its_schema() {
        let expiry = |value| serde_json::from_value::<Expiry>(value).ok();
        for value in [json!(0), json!(1_893_456_000), json!(MAX_UNIX_MILLIS)] {
            assert!(expiry(value.clone()).is_some(), "{value}");
        }
        for value in [json!(-1), json!(MAX_UNIX_MILLIS + 1), json!(20_145_489_850_859_496_u64)] {
            assert!(expiry(value.clone()).is_none(), "{value}");
        }
        assert!(expiry(json!(1_893_456_000.5)).is_none());
    }
}
