//! Descriptions of rejections, derived from samples in the form of the service's renderer.

use std::{collections::BTreeMap, time::Duration};

use http::{HeaderMap, Request, StatusCode, header};
use serde_json::{Map, Value, json};

use crate::{
    admin::http::{
        SECURITY_HEADERS,
        call::{Call, CallSchema},
        error::AdminError,
        openapi::{security_header_refs, title_case},
    },
    error::{Reject, Rejection, catalog},
};

/// Returns the errors of a call, at least one for each code.
pub(super) fn errors<T>(call: &Call<T>, schema: &CallSchema, has_filter: bool) -> Vec<AdminError> {
    let mut errors = vec![AdminError::unknown_field("limitt")];
    if has_filter {
        errors.push(catalog::ADDRESS_NOT_ALLOWED.into());
    }
    if !call.is_public {
        errors.extend([
            AdminError::missing_token(),
            AdminError::invalid_token(),
            AdminError::too_many_attempts(Duration::from_secs(60)),
        ]);
    }
    if !call.is_public && !call.works_without_store {
        errors.push(catalog::STORE_UNAVAILABLE.into());
    }
    if call.reads_body || schema.has_parameters() {
        errors.push(AdminError::invalid_field("limit", "a whole number from 1 to 1000"));
    }
    if call.reads_body {
        let message = "The body must be a JSON object; it is not one at line 1, column 2.";
        errors.push(match call.content_type {
            "text/csv" => AdminError::invalid_csv("The header contains a column twice.".to_owned()),
            _ => AdminError::invalid_json(message.to_owned()),
        });
        errors.extend([
            catalog::REQUEST_BODY_BROKEN.into(),
            AdminError::body_too_large(call.max_body_len),
        ]);
    }
    if schema.needs_body {
        errors.push(AdminError::missing_field("key"));
    }
    if let Some(parameter) = &schema.path {
        errors.push(parameter.not_found.clone());
    }
    if schema.header.is_some() {
        errors.push(AdminError::invalid_field("If-Match", "`*`"));
    }
    errors.extend(call.errors.iter().cloned());
    errors
}

/// A rejection as the service responds with it.
struct Sample {
    code: &'static str,
    /// Whether it is the service's own, with its security headers.
    is_own: bool,
    content_type: String,
    headers: HeaderMap,
    /// The body, as a string if it is not JSON.
    body: Value,
}

/// Returns the responses for these errors and for the rejections of outer layers, by status.
pub(super) fn responses(
    errors: &[AdminError],
    outer: &[Rejection],
    reject: &dyn Reject,
) -> Map<String, Value> {
    let mut by_status: BTreeMap<StatusCode, Vec<Sample>> = BTreeMap::new();
    let own = errors.iter().map(|error| (error.clone().into_rejection(), true));
    let outer = outer.iter().map(|rejection| (rejection.clone(), false));
    for (rejection, is_own) in own.chain(outer) {
        let (status, code) = (rejection.status, rejection.code);
        let (head, body) = rejection.render(reject, &Request::new(())).into_parts();
        let content_type = head.headers.get(header::CONTENT_TYPE);
        let sample = Sample {
            code,
            is_own,
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
    let mut headers = match samples.iter().all(|sample| sample.is_own) {
        true => security_header_refs(),
        false => Map::new(),
    };
    for name in samples.iter().flat_map(|sample| sample.headers.keys()) {
        if *name == header::CONTENT_TYPE || SECURITY_HEADERS.iter().any(|(known, _)| known == name)
        {
            continue;
        }
        let always = samples.iter().all(|sample| sample.headers.contains_key(name));
        let header = json!({"required": always, "schema": {"type": "string"}});
        headers.insert(title_case(name), header);
    }
    headers
}

/// Returns the schema that all these bodies have in common. A string that is the code in every body
/// becomes an enum of the codes.
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
