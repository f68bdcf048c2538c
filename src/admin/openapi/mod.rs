//! The OpenAPI 3.1 description, written from the table of calls and the types of their handlers.

mod refusals;

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Response, StatusCode, header};
use schemars::{Schema, SchemaGenerator, generate::SchemaSettings, json_schema};
use serde_json::{Map, Value, json};

use super::{
    call::{Answers, Call, Described},
    csv::AdminBody,
    guard::GUARDS,
    shared::Shared,
};
use crate::{
    body::ResponseBody,
    error::{Reject, json},
};

const JSON: &str = "application/json";
/// Texts of keys and ids that no server on the way takes for anything else. Others are read, too.
const KEY_IN_PATH: &str = "^[A-Za-z0-9_~:+@=-][A-Za-z0-9._~:+@=-]*$";
const DESCRIPTION: &str = "Issues and changes keys, tells what they used, and who did what. \
    Every answer is `Cache-Control: no-store`. `HEAD` works wherever `GET` does.";

/// The document, as it was written at the first look.
pub(super) struct Document(pub(super) Bytes);

impl Answers for Document {
    const STATUS: StatusCode = StatusCode::OK;

    fn response(self) -> Response<AdminBody> {
        let mut response = Response::new(ResponseBody::own(self.0));
        let json = HeaderValue::from_static(JSON);
        response.headers_mut().insert(header::CONTENT_TYPE, json);
        response
    }

    fn content(_: &mut SchemaGenerator) -> Vec<(&'static str, Schema)> {
        vec![(JSON, json_schema!({"type": "object", "required": ["openapi", "info", "paths"]}))]
    }
}

/// Describes these calls as the service answers them.
pub(super) fn document<S, R: Reject>(calls: &[Call<Shared<S, R>>], shared: &Shared<S, R>) -> Bytes {
    let settings = || {
        SchemaSettings::draft2020_12().with(|settings| {
            settings.definitions_path = "/components/schemas".into();
            settings.meta_schema = None;
        })
    };
    let mut input = settings().for_deserialize().into_generator();
    let mut output = settings().for_serialize().into_generator();
    let links = links(calls);
    let mut paths = Map::new();
    for call in calls {
        let described = (call.describe)(&mut input, &mut output);
        let path = paths.entry(format!("{}{}", shared.prefix, call.path)).or_insert(json!({}));
        path[call.method.as_str().to_lowercase()] = operation(call, described, &links, shared);
    }
    let mut schemas = input.take_definitions(true);
    schemas.append(&mut output.take_definitions(true));
    json(&json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Admin API",
            "version": env!("CARGO_PKG_VERSION"),
            "description": DESCRIPTION,
        },
        "paths": paths,
        "components": {
            "schemas": schemas,
            "headers": guards().map(|(name, value)| {
                (name, json!({"required": true, "schema": {"type": "string", "const": value}}))
            }).collect::<Map<_, _>>(),
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer"},
                "adminToken": {"type": "apiKey", "in": "header", "name": "x-admin-token"},
            },
        },
    }))
}

fn operation<S, R: Reject>(
    call: &Call<Shared<S, R>>,
    described: Described,
    links: &Value,
    shared: &Shared<S, R>,
) -> Value {
    let mut parameters = parameters(&described.query);
    if call.takes_key() {
        parameters.push(json!({
            "name": "ref",
            "in": "path",
            "required": true,
            "description": "A key's id, or the whole key.",
            "schema": {"type": "string", "pattern": KEY_IN_PATH, "maxLength": 256},
            "example": "key_0123456789abcdef",
        }));
    }
    if let Some((name, meaning, schema)) = &described.header {
        parameters.push(json!({
            "name": name, "in": "header", "description": meaning, "schema": schema,
        }));
    }
    let security = match call.is_open {
        true => json!([]),
        false => json!([{"bearer": []}, {"adminToken": []}]),
    };
    let refusals = refusals::of(call, &described, shared.allow.is_some());
    let mut responses = refusals::responses(&refusals, &shared.refused_outside, &shared.reject);
    let mut response = response(&described);
    if described.status == StatusCode::CREATED {
        response["links"] = links.clone();
    }
    responses.insert(described.status.as_str().to_owned(), response);
    let mut operation = json!({
        "operationId": call.id,
        "summary": call.summary,
        "parameters": parameters,
        "security": security,
        "responses": responses,
    });
    if let Some(body) = described.body {
        operation["requestBody"] = json!({
            "required": described.needs_body,
            "content": {call.takes.0: {"schema": body}},
        });
    }
    operation
}

/// Which calls go on with what was created, named by its id.
fn links<T>(calls: &[Call<T>]) -> Value {
    let of_keys = calls.iter().filter(|call| call.takes_key());
    let parameters = json!({"ref": "$response.body#/id"});
    of_keys
        .map(|call| (call.id.into(), json!({"operationId": call.id, "parameters": parameters})))
        .collect::<Map<_, _>>()
        .into()
}

/// The properties of a query's type as parameters.
fn parameters(query: &Schema) -> Vec<Value> {
    let properties = query.get("properties").and_then(Value::as_object);
    let parameter = |(name, schema): (&String, &Value)| {
        let mut schema = schema.clone();
        without_null(&mut schema);
        let description = schema.as_object_mut().and_then(|schema| schema.remove("description"));
        json!({"name": name, "in": "query", "description": description, "schema": schema})
    };
    properties.into_iter().flatten().map(parameter).collect()
}

/// A parameter may be absent, but there is no `null` in a query.
fn without_null(schema: &mut Value) {
    if let Some(values) = schema.get_mut("enum").and_then(Value::as_array_mut) {
        values.retain(|value| !value.is_null());
    }
    if let Some(types) = schema.get_mut("type").filter(|types| types.is_array()) {
        *types = types[0].take();
    }
}

fn response(described: &Described) -> Value {
    let content = described.content.iter();
    let mut headers = guard_headers();
    for (name, description) in described.headers {
        let header = json!({"description": description, "schema": {"type": "string"}});
        headers.insert((*name).to_owned(), header);
    }
    json!({
        "description": described.status.canonical_reason(),
        "headers": headers,
        "content": content
            .map(|(kind, schema)| ((*kind).to_owned(), json!({"schema": schema})))
            .collect::<Map<_, _>>(),
    })
}

/// The headers that every answer has, by the names that people write.
fn guards() -> impl Iterator<Item = (String, &'static str)> {
    GUARDS.into_iter().map(|(name, value)| (title_case(&name), value))
}

fn guard_headers() -> Map<String, Value> {
    guards()
        .map(|(name, _)| {
            let reference = json!({"$ref": format!("#/components/headers/{name}")});
            (name, reference)
        })
        .collect()
}

fn title_case(name: &HeaderName) -> String {
    let words = name.as_str().split('-').map(|word| {
        let (first, rest) = word.split_at(1);
        first.to_uppercase() + rest
    });
    words.collect::<Vec<_>>().join("-")
}
