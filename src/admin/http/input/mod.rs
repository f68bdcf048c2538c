//! Input of calls: deserialises JSON objects and queries strictly into the call's own types.

mod fields;
mod headers;
mod object;
mod params;

use std::error::Error;

use bytes::Bytes;
use http_body::Body;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use serde::{Deserialize, de::value::MapAccessDeserializer};
use serde_json::Value;

use self::object::{Members, Object};
use crate::{
    admin::http::{csv::BYTE_ORDER_MARK, error::AdminError, query},
    error::catalog,
};

pub(crate) use self::{
    fields::{
        AcceptLoss, ClaimLifetime, Expiry, Flag, GracePeriod, KeyCount, KeyRefField, Label,
        LabelPattern, RequestLimit, User, non_null, nullable,
    },
    headers::{FromHeaders, IdempotencyKeyHeader, IfMatch},
    params::{
        BoolParam, CsvOnly, DayParam, Format, GroupByParam, KeyCursor, NamePrefix, PageLimit,
        RequestId, RowNumber, SearchText, Sort, State,
    },
};

/// Reads a body of at most `max_len` bytes.
pub(crate) async fn read_body<B>(body: B, max_len: usize) -> Result<Bytes, AdminError>
where
    B: Body,
    B::Error: Into<Box<dyn Error + Send + Sync>>,
{
    match Limited::new(body, max_len).collect().await {
        Ok(body) => Ok(body.to_bytes()),
        Err(error) if error.is::<LengthLimitError>() => Err(AdminError::body_too_large(max_len)),
        Err(_) => Err(catalog::REQUEST_BODY_BROKEN.into()),
    }
}

/// Parses a JSON object. An empty body is an object without members.
pub(crate) fn from_json<T: for<'de> Deserialize<'de>>(body: &[u8]) -> Result<T, AdminError> {
    let body = std::str::from_utf8(body).map_err(|_| {
        let message = "The body is not UTF-8 text (perhaps GBK, in which Windows consoles send what \
                       is typed, or UTF-16). Send it as UTF-8, for example from a file: \
                       `curl --data-binary @body.json`.";
        AdminError::invalid_json(message.to_owned())
    })?;
    // Editors on Windows write it.
    let body = body.strip_prefix(BYTE_ORDER_MARK).unwrap_or(body);
    if body.is_empty() {
        return from_members(Vec::new());
    }
    let object: Object = serde_json::from_str(body).map_err(|error| {
        AdminError::invalid_json(format!(
            "The body must be a JSON object; it is not one at line {}, column {}.",
            error.line(),
            error.column()
        ))
    })?;
    from_members(object.0)
}

/// Parses a query such as `a=1&b=2`.
pub(crate) fn from_query<T: for<'de> Deserialize<'de>>(
    query: Option<&str>,
) -> Result<T, AdminError> {
    let pairs = query::pairs(query)?;
    from_members(pairs.into_iter().map(|(name, text)| (name, Value::String(text))).collect())
}

fn from_members<T: for<'de> Deserialize<'de>>(
    members: Vec<(String, Value)>,
) -> Result<T, AdminError> {
    T::deserialize(MapAccessDeserializer::new(Members::new(members))).map_err(AdminError::from)
}

#[cfg(test)]
mod tests {
    use schemars::JsonSchema;

    use super::*;

    #[derive(Debug, Deserialize, JsonSchema)]
    #[serde(deny_unknown_fields)]
    struct Fields {
        label: Option<Label>,
        daily_limit: Option<RequestLimit>,
    }

    fn fields(body: &str) -> Result<Fields, AdminError> {
        from_json(body.as_bytes())
    }

    fn message(error: AdminError) -> String {
        error.into_rejection().message.into_owned()
    }

    #[test]
    fn a_daily_limit_is_a_whole_number_in_range() {
        for (good, value) in [("0", 0), ("200", 200), ("1000000000", 1_000_000_000)] {
            let parsed = fields(&format!(r#"{{"daily_limit":{good}}}"#)).unwrap();
            assert_eq!(parsed.daily_limit.unwrap().0.number(), value);
        }
        for absent in ["{}", "", r#"{"daily_limit":null}"#] {
            assert!(fields(absent).unwrap().daily_limit.is_none());
        }
        for bad in ["-1", "1.5", "1.0", "1e3", "\"200\"", "true", "[]", "{}", "1000000001"] {
            let error = fields(&format!(r#"{{"daily_limit":{bad}}}"#)).unwrap_err();
            assert_eq!(
                message(error),
                "`daily_limit` must be a whole number from 0 (unlimited) to 1000000000.",
                "{bad}"
            );
        }
        assert!(fields(r#"{"daily_limit":18446744073709551616}"#).is_err());
    }

    #[test]
    fn a_label_is_any_text_without_control_characters() {
        let body = |label: &str| serde_json::json!({ "label": label }).to_string();
        for good in ["", "手动创建的密钥", "<img src=x onerror=alert(1)>", "👩‍🚀"] {
            assert_eq!(fields(&body(good)).unwrap().label.unwrap().0, good);
        }
        let long = "密".repeat(200);
        assert!(fields(&body(&long)).is_ok());
        for bad in [format!("{long}x"), "a\nb".into(), "\u{7f}".into(), "\u{85}".into()] {
            let error = fields(&body(&bad)).unwrap_err();
            assert!(message(error).contains("`label`"), "{bad}");
        }
    }

    #[test]
    fn a_body_is_one_object_with_every_field_once() {
        for good in [" {} ", "\u{feff}{}", "\u{feff}"] {
            assert!(fields(good).is_ok());
        }
        for bad in ["[]", "1", "null", "{", "{}{}", "{\"a\":1,}", "{}\u{feff}", "\"x\""] {
            assert!(message(fields(bad).unwrap_err()).contains("line 1, column"), "{bad}");
        }
        let duplicate = fields(r#"{"label":"a","label":"b"}"#).unwrap_err();
        assert_eq!(message(duplicate), "`label` is given twice.");
        let unknown = fields(r#"{"limit":5}"#).unwrap_err();
        assert_eq!(message(unknown), "`limit` is not a known field.");
    }

    #[test]
    fn an_error_names_the_encoding_of_the_body() {
        for body in [&b"{\"label\":\"\xd3\xc3\xbb\xa7A\"}"[..], b"\xff\xfe{\0}\0"] {
            let error = from_json::<Fields>(body).unwrap_err();
            let message = message(error);
            assert!(message.contains("not UTF-8") && message.contains("GBK"), "{message}");
        }
    }

    #[test]
    fn a_query_is_parsed_as_strictly_as_a_body() {
        assert!(from_query::<Fields>(None).is_ok());
        assert_eq!(from_query::<Fields>(Some("label=a+b")).unwrap().label.unwrap().0, "a b");
        let duplicate = from_query::<Fields>(Some("label=a&label=a")).unwrap_err();
        assert_eq!(message(duplicate), "`label` is given twice.");
        let unknown = from_query::<Fields>(Some("lmit=6")).unwrap_err();
        assert_eq!(message(unknown), "`lmit` is not a known field.");
    }
}
