//! Schemas of values whose types are public. Those types do not implement schemars' trait, which would be
//! part of their API: a field of one names its schema with `#[schemars(with = "…")]`.

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};

use crate::{
    admin::{
        http::json::{LimitNumber, Timestamp},
        store,
    },
    key::Limit,
};

/// Implements `JsonSchema` for a type, which is declared first unless it has values.
macro_rules! schema {
    (enum $name:ident, $schema:tt) => {
        pub(crate) enum $name {}
        schema!($name, $schema);
    };
    ($name:ident, $schema:tt) => {
        impl JsonSchema for $name {
            fn inline_schema() -> bool {
                true
            }

            fn schema_name() -> Cow<'static, str> {
                stringify!($name).into()
            }

            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!($schema)
            }
        }
    };
}

schema!(LimitNumber, {"type": "integer", "minimum": 0, "maximum": Limit::MAX_STORED});
schema!(Timestamp, {"type": "string", "format": "date-time", "examples": ["2026-11-22T08:30:00Z"]});
schema!(enum Day, {"type": "string", "format": "date", "examples": ["2026-11-22"]});
schema!(enum KeyId, {"type": "string", "examples": ["key_0123456789abcdef"]});
schema!(enum KeyState, {"type": "string", "enum": store::KeyState::ALL.map(store::KeyState::as_str)});
schema!(enum KeyVersion, {"type": "string", "pattern": "^[0-9a-f]{32}$"});
schema!(enum NodeState, {"type": "string", "enum": store::NodeState::ALL.map(store::NodeState::as_str)});
schema!(enum PageCursor, {"anyOf": [{"type": "integer"}, {"type": "string"}]});

/// Schema of a [`UsageEvent`](crate::store::UsageEvent), which is serialised as it is.
#[derive(JsonSchema)]
#[expect(dead_code, reason = "only the schema is used")]
pub(crate) struct UsageEvent {
    /// Id of the key that the request was made with, or else of the subject of its quota; `null` if neither is
    /// known.
    id: Option<KeyId>,
    /// Time of receipt.
    at: Timestamp,
    /// The `x-request-id` of the response, or else of the request, if it is 1 to 128 visible characters.
    request_id: Option<String>,
    /// Method of the request.
    method: String,
    /// Path of the request, without its query. Serialised and stored, it keeps only the segments that
    /// are plain words, as any other may be a key.
    path: String,
    /// Status of the response; `null` if there was none.
    status: Option<u16>,
    /// How the request ended.
    outcome: String,
    /// The code of the rejection, or of what went wrong upstream.
    code: Option<String>,
    /// Units charged for the request, after refunds.
    units: u32,
    /// Whether a unit was refunded.
    refunded: bool,
    /// Model named in the request.
    model_asked: Option<String>,
    /// Model named in the response.
    model: Option<String>,
    /// Tokens reported in the response; `null` if they are not known.
    tokens: Option<Tokens>,
    /// Bytes of the request body that were received.
    bytes_in: u64,
    /// Bytes of the response body that were sent.
    bytes_out: u64,
    /// Time from receipt to the head of the response.
    time_to_head_ms: Option<f64>,
    /// Time from receipt to the first bytes of the response body.
    time_to_first_byte_ms: Option<f64>,
    /// Time from receipt to the end of the response body; `null` if it is not known.
    duration_ms: Option<f64>,
}

/// Number of tokens that a response reports.
#[derive(JsonSchema)]
#[schemars(rename = "Tokens2")]
#[expect(dead_code, reason = "only the schema is used")]
pub(crate) struct Tokens {
    /// Tokens of the prompt.
    prompt: u64,
    /// Tokens of the completion.
    completion: u64,
    /// Total, as reported.
    total: u64,
    /// Prompt tokens that were read from the upstream's cache; `null` if they are not reported.
    cached: Option<u64>,
    /// Completion tokens spent on reasoning; `null` if they are not reported.
    reasoning: Option<u64>,
}

/// Schema of [`UsageFigures`](crate::store::report::UsageFigures), which are serialised as they are.
#[derive(JsonSchema)]
#[expect(dead_code, reason = "only the schema is used")]
pub(crate) struct UsageFigures {
    /// Requests that were admitted.
    requests: u64,
    /// Admitted requests that succeeded.
    succeeded: u64,
    /// Admitted requests that failed or whose client left.
    failed: u64,
    /// Admitted requests whose unit was refunded.
    refunded: u64,
    /// Requests that were rejected; not included in `requests`.
    rejected: u64,
    /// Requests that succeeded and whose response reported no tokens.
    tokens_unknown: u64,
    /// Tokens that the responses reported.
    tokens: TokenSums,
}

/// Serialises the sum of several responses' [`Tokens`], without what none of them reports.
#[derive(JsonSchema)]
#[schemars(rename = "Tokens")]
#[expect(dead_code, reason = "only the schema is used")]
pub(crate) struct TokenSums {
    prompt: u64,
    completion: u64,
    total: u64,
    /// Prompt tokens that were read from the upstream's cache.
    #[schemars(skip_serializing_if = "Option::is_none")]
    cached: Option<u64>,
    /// Completion tokens spent on reasoning.
    #[schemars(skip_serializing_if = "Option::is_none")]
    reasoning: Option<u64>,
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeSet, time::SystemTime};

    use schemars::schema_for;
    use serde::Serialize;
    use serde_json::{Value, to_value};

    use super::JsonSchema;
    use crate::store::{Tokens, UsageEvent, report::UsageFigures};

    /// Asserts that the schema of `S` names the members of this value and no others.
    fn assert_described<S: JsonSchema>(value: &impl Serialize) {
        let names = |value: &Value| -> BTreeSet<String> {
            value.as_object().unwrap().keys().cloned().collect()
        };
        let schema = schema_for!(S);
        let members = to_value(value).unwrap();
        let properties = schema.get("properties").unwrap();
        assert_eq!(names(properties), names(&members), "{}", S::schema_name());
    }

    #[test]
    fn schemas_have_all_members_of_what_is_serialised() {
        // Without `..`, so that a new field does not compile before it is set here.
        let tokens =
            Tokens { prompt: 1, completion: 2, total: 3, cached: Some(4), reasoning: Some(5) };
        let figures = UsageFigures { tokens, ..UsageFigures::default() };
        let members = to_value(figures).unwrap();
        assert_described::<super::UsageEvent>(&UsageEvent::new(SystemTime::UNIX_EPOCH));
        assert_described::<super::Tokens>(&tokens);
        assert_described::<super::UsageFigures>(&figures);
        assert_described::<super::TokenSums>(&members["tokens"]);
    }
}
