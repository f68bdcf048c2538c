//! Reads what calls take: a JSON object, field by field.

use std::{
    fmt,
    time::{Duration, SystemTime},
};

use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::Value;

use super::refusal::Refusal;
use crate::{clock::parse_timestamp, key::DailyLimit};

const LONGEST_LABEL: usize = 200;

/// The fields of an object in their order. Each is taken out by name; what is left is unknown.
pub(super) struct Fields(Vec<(String, Value)>);

impl Fields {
    /// Reads an object; an empty body is one without fields.
    pub(super) fn parse(body: &[u8]) -> Result<Self, Refusal> {
        if body.trim_ascii().is_empty() {
            return Ok(Self(Vec::new()));
        }
        let fields: Self = serde_json::from_slice(body).map_err(|error| {
            Refusal::invalid_json(format!(
                "The body must be a JSON object; it is not one at line {}, column {}.",
                error.line(),
                error.column()
            ))
        })?;
        for (at, (name, _)) in fields.0.iter().enumerate() {
            if fields.0[..at].iter().any(|(earlier, _)| earlier == name) {
                return Err(Refusal::twice(name));
            }
        }
        Ok(fields)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Refuses `null` where it could mean more than one thing.
    pub(super) fn refuse_null(&self, names: &[&str]) -> Result<(), Refusal> {
        let null = |(name, value): &&(String, Value)| value.is_null() && names.contains(&&**name);
        match self.0.iter().find(null) {
            None => Ok(()),
            Some((name, _)) => Err(Refusal::invalid(name, "a value, or left out to stay as it is")),
        }
    }

    /// Refuses what was not taken.
    pub(super) fn finish(self) -> Result<(), Refusal> {
        match self.0.first() {
            None => Ok(()),
            Some((name, _)) => Err(Refusal::unknown(name)),
        }
    }

    fn take(&mut self, name: &str) -> Option<Value> {
        let at = self.0.iter().position(|(field, _)| field == name)?;
        Some(self.0.remove(at).1)
    }

    /// A field's value; `null` is none.
    fn value(&mut self, name: &str) -> Option<Value> {
        self.take(name).filter(|value| !value.is_null())
    }

    pub(super) fn text(&mut self, name: &str) -> Result<Option<String>, Refusal> {
        match self.value(name) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(_) => Err(Refusal::invalid(name, "a text")),
        }
    }

    pub(super) fn label(&mut self) -> Result<Option<String>, Refusal> {
        const NEEDS: &str = "a text of at most 200 characters without control characters";
        let invalid = || Refusal::invalid("label", NEEDS);
        let label = self.text("label").map_err(|_| invalid())?;
        let fits = label.as_ref().is_none_or(|label| {
            label.chars().count() <= LONGEST_LABEL && !label.chars().any(char::is_control)
        });
        if fits { Ok(label) } else { Err(invalid()) }
    }

    pub(super) fn daily_limit(&mut self) -> Result<Option<DailyLimit>, Refusal> {
        let Some(value) = self.value("daily_limit") else {
            return Ok(None);
        };
        let limit = value.as_i64().and_then(|number| DailyLimit::try_from(number).ok());
        const NEEDS: &str = "a whole number from 0 (unlimited) to 1000000000";
        limit.map(Some).ok_or_else(|| Refusal::invalid("daily_limit", NEEDS))
    }

    /// An instant: RFC 3339, a day, or Unix seconds. `Some(None)` where it is `null`.
    pub(super) fn expires_at(&mut self) -> Result<Option<Option<SystemTime>>, Refusal> {
        let at = match self.take("expires_at") {
            None => return Ok(None),
            Some(Value::Null) => return Ok(Some(None)),
            Some(Value::String(text)) => parse_timestamp(&text),
            Some(Value::Number(number)) => parse_timestamp(&number.to_string()),
            Some(_) => None,
        };
        match at.filter(|at| *at >= SystemTime::UNIX_EPOCH) {
            Some(at) => Ok(Some(Some(at))),
            None => Err(Refusal::invalid("expires_at", "a time such as 2026-12-31T00:00:00Z")),
        }
    }

    pub(super) fn flag(&mut self, name: &str) -> Result<Option<bool>, Refusal> {
        match self.value(name) {
            None => Ok(None),
            Some(Value::Bool(flag)) => Ok(Some(flag)),
            Some(_) => Err(Refusal::invalid(name, "true or false")),
        }
    }

    pub(super) fn count(&mut self) -> Result<Option<usize>, Refusal> {
        let Some(value) = self.value("count") else {
            return Ok(None);
        };
        let count = value.as_u64().filter(|count| (1..=1000).contains(count));
        count
            .map(|count| Some(count as usize))
            .ok_or_else(|| Refusal::invalid("count", "a whole number from 1 to 1000"))
    }

    /// Whole seconds up to 30 days; 0 where there is none.
    pub(super) fn grace(&mut self) -> Result<Duration, Refusal> {
        let Some(value) = self.value("grace_seconds") else {
            return Ok(Duration::ZERO);
        };
        let seconds = value.as_u64().filter(|seconds| *seconds <= 2_592_000);
        seconds.map(Duration::from_secs).ok_or_else(|| {
            Refusal::invalid("grace_seconds", "a whole number from 0 to 2592000 (30 days)")
        })
    }
}

impl<'de> Deserialize<'de> for Fields {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Object;

        impl<'de> Visitor<'de> for Object {
            type Value = Fields;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Fields, A::Error> {
                let mut fields = Vec::new();
                while let Some(field) = map.next_entry()? {
                    fields.push(field);
                }
                Ok(Fields(fields))
            }
        }

        deserializer.deserialize_map(Object)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(refusal: Refusal) -> String {
        refusal.into_rejection().message.into_owned()
    }

    fn fields(body: &str) -> Fields {
        Fields::parse(body.as_bytes()).unwrap_or_else(|_| panic!("{body}"))
    }

    #[test]
    fn a_limit_is_a_whole_number_in_range() {
        for good in ["0", "200", "1000000000"] {
            let limit = fields(&format!(r#"{{"daily_limit":{good}}}"#)).daily_limit();
            assert_eq!(limit.unwrap().unwrap().get().to_string(), good);
        }
        for bad in [
            "1.5",
            "1.0",
            "-1",
            "-0",
            "1e3",
            "\"200\"",
            "true",
            "[1]",
            "{}",
            "1000000001",
            "18446744073709551616",
        ] {
            let refusal = fields(&format!(r#"{{"daily_limit":{bad}}}"#)).daily_limit();
            assert!(message(refusal.unwrap_err()).contains("`daily_limit`"), "{bad}");
        }
    }

    #[test]
    fn a_label_is_any_text_without_control_characters() {
        for good in ["", "手动创建的密钥", "<img src=x onerror=alert(1)>", "👩‍🚀"] {
            let label = fields(&serde_json::json!({ "label": good }).to_string()).label();
            assert_eq!(label.unwrap().unwrap(), good);
        }
        let long = "密".repeat(200);
        let body = |label: &str| serde_json::json!({ "label": label }).to_string();
        assert!(fields(&body(&long)).label().is_ok());
        for bad in [format!("{long}x"), "a\nb".into(), "\u{7f}".into(), "\u{85}".into()] {
            let refusal = fields(&body(&bad)).label().unwrap_err();
            assert!(message(refusal).contains("`label`"), "{bad}");
        }
    }

    #[test]
    fn a_body_is_one_object_with_every_field_once() {
        assert!(fields("").finish().is_ok());
        assert!(fields(" {} ").finish().is_ok());
        for bad in ["[]", "1", "null", "{", "{}{}", "{\"a\":1,}", "\u{feff}{}", "\"x\""] {
            assert!(Fields::parse(bad.as_bytes()).is_err(), "{bad}");
        }
        let twice = Fields::parse(br#"{"label":"a","label":"b"}"#).err().unwrap();
        assert!(message(twice).contains("`label`"));
        let unknown = fields(r#"{"limit":5}"#).finish().unwrap_err();
        assert!(message(unknown).contains("`limit`"));
    }
}
