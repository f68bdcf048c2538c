//! How refusals are described: by samples, in the form that the service's renderer gives them.

use std::{collections::BTreeMap, time::Duration};

use http::{HeaderMap, StatusCode, header};
use serde_json::{Map, Value, json};

use super::{
    super::{
        call::{Call, Described},
        guard::GUARDS,
        refusal::Refusal,
    },
    guard_headers, title_case,
};
use crate::error::{Reject, Rejection, StoreError, StoreErrorKind};

/// All refusals of a call, one of each code.
pub(super) fn of<T>(call: &Call<T>, described: &Described, filtered: bool) -> Vec<Refusal> {
    let mut refusals = vec![Refusal::unknown("limitt")];
    if filtered {
        refusals.push(Refusal::address_not_allowed());
    }
    if !call.is_open {
        refusals.extend([
            Refusal::no_token(),
            Refusal::wrong_token(),
            Refusal::too_many_attempts(Duration::from_secs(60)),
        ]);
    }
    if !call.is_open && !call.outlives_store {
        refusals.push(Refusal::store(&StoreError::new(StoreErrorKind::Unavailable)));
    }
    if call.reads_body || described.has_parameters() {
        refusals.push(Refusal::invalid("limit", "a whole number from 1 to 1000"));
    }
    if call.reads_body {
        let message = "The body must be a JSON object; it is not one at line 1, column 2.";
        refusals.push(match call.takes.0 {
            "text/csv" => Refusal::invalid_csv("A column stands twice in the header.".to_owned()),
            _ => Refusal::invalid_json(message.to_owned()),
        });
        refusals.extend([Refusal::unreadable_body(), Refusal::body_too_large(call.takes.1)]);
    }
    if described.needs_body {
        refusals.push(Refusal::missing("key"));
    }
    if call.takes_key() {
        refusals.push(Refusal::unknown_key());
    }
    if described.header.is_some() {
        refusals.push(Refusal::invalid("If-Match", "`*`"));
    }
    refusals.extend(call.refusals.iter().cloned());
    refusals
}

/// A refusal as it is answered.
struct Sample {
    code: &'static str,
    /// Whether the service makes it, with its guards.
    own: bool,
    content_type: String,
    headers: HeaderMap,
    /// The body, as text where it is no JSON.
    body: Value,
}

/// The responses of these refusals, and of those that others make around the service, by status.
pub(super) fn responses(
    refusals: &[Refusal],
    outside: &[Rejection],
    reject: &impl Reject,
) -> Map<String, Value> {
    let mut by_status: BTreeMap<StatusCode, Vec<Sample>> = BTreeMap::new();
    let own = refusals.iter().map(|refusal| (refusal.clone().into_rejection(), true));
    let outside = outside.iter().map(|rejection| (rejection.clone(), false));
    for (rejection, own) in own.chain(outside) {
        let (status, code) = (rejection.status, rejection.code);
        let (head, body) = reject.reject(rejection).into_parts();
        let content_type = head.headers.get(header::CONTENT_TYPE);
        let sample = Sample {
            code,
            own,
            content_type: content_type
                .and_then(|value| value.to_str().ok())
                .unwrap_or("text/plain")
                .to_owned(),
            headers: head.headers,
            body: serde_json::from_slice(&body)
                .unwrap_or_else(|_| String::from_utf8_lossy(&body).into()),
        };
        by_status.entry(status).or_default().push(sample);
    }
    by_status
        .into_iter()
        .map(|(status, samples)| (status.as_str().to_owned(), response(status, &samples)))
        .collect()
}

fn response(status: StatusCode, samples: &[Sample]) -> Value {
    let bodies: Vec<&Value> = samples.iter().map(|sample| &sample.body).collect();
    let codes: Vec<&str> = samples.iter().map(|sample| sample.code).collect();
    let examples: Map<String, Value> = samples
        .iter()
        .map(|sample| (sample.code.to_owned(), json!({"value": sample.body})))
        .collect();
    let content_type = samples.first().map_or("", |sample| &sample.content_type);
    json!({
        "description": status.canonical_reason(),
        "headers": headers(samples),
        "content": {content_type: {"schema": shape(&bodies, &codes), "examples": examples}},
    })
}

fn headers(samples: &[Sample]) -> Map<String, Value> {
    let mut headers = match samples.iter().all(|sample| sample.own) {
        true => guard_headers(),
        false => Map::new(),
    };
    for name in samples.iter().flat_map(|sample| sample.headers.keys()) {
        if *name == header::CONTENT_TYPE || GUARDS.iter().any(|(guard, _)| guard == name) {
            continue;
        }
        let always = samples.iter().all(|sample| sample.headers.contains_key(name));
        let header = json!({"required": always, "schema": {"type": "string"}});
        headers.insert(title_case(name), header);
    }
    headers
}

/// The schema of what all these bodies are alike in. A text that is each body's code is one of them.
fn shape(bodies: &[&Value], codes: &[&str]) -> Value {
    let Some(first) = bodies.first() else { return json!({}) };
    match first {
        Value::Null => json!({"type": "null"}),
        Value::Bool(_) => json!({"type": "boolean"}),
        Value::Number(_) => json!({"type": "number"}),
        Value::Array(_) => json!({"type": "array"}),
        Value::String(_) if bodies.iter().zip(codes).all(|(body, code)| *body == code) => {
            let mut codes = codes.to_vec();
            codes.sort_unstable();
            codes.dedup();
            json!({"type": "string", "enum": codes})
        }
        Value::String(_) => json!({"type": "string"}),
        Value::Object(members) => {
            let of = |name: &String| -> Vec<&Value> {
                bodies.iter().filter_map(|body| body.get(name)).collect()
            };
            let properties: Map<String, Value> =
                members.keys().map(|name| (name.clone(), shape(&of(name), codes))).collect();
            let required: Vec<&String> =
                members.keys().filter(|name| of(name).len() == bodies.len()).collect();
            json!({"type": "object", "properties": properties, "required": required})
        }
    }
}
