//! The OpenAPI 3.1 document, generated from the table of calls and the types of their handlers.

mod rejections;

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Response, StatusCode, header};
use schemars::{Schema, SchemaGenerator, generate::SchemaSettings, json_schema};
use serde_json::{Map, Value, json};

use crate::{
    admin::{
        http::{
            SECURITY_HEADERS,
            body::AdminBody,
            call::{Call, CallResponse, CallSchema, PathParameter},
        },
        shared::Shared,
    },
    error::json,
};

const JSON: &str = "application/json";
const DESCRIPTION: &str = "Issues and changes keys, and reports their usage and all changes. \
    Every response is `Cache-Control: no-store`. `HEAD` works wherever `GET` does.";

/// The generated document as JSON text.
pub(crate) struct Document(pub(crate) Bytes);

impl CallResponse for Document {
    fn into_response(self) -> Response<AdminBody> {
        let mut response = Response::new(AdminBody::from(self.0));
        let json = HeaderValue::from_static(JSON);
        response.headers_mut().insert(header::CONTENT_TYPE, json);
        response
    }

    fn content(_: &mut SchemaGenerator) -> Vec<(&'static str, Schema)> {
        vec![(JSON, json_schema!({"type": "object", "required": ["openapi", "info", "paths"]}))]
    }
}

/// Generates the document for these calls and the options of the service.
pub(crate) fn document<S>(calls: &[Call<Shared<S>>], shared: &Shared<S>) -> Bytes {
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
        let call_schema = (call.describe)(&mut input, &mut output);
        let path = paths.entry(format!("{}{}", shared.prefix, call.path)).or_insert(json!({}));
        path[call.method.to_lowercase()] = operation(call, call_schema, &links, shared);
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
            "headers": security_headers().map(|(name, value)| {
                (name, json!({"required": true, "schema": {"type": "string", "const": value}}))
            }).collect::<Map<_, _>>(),
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer"},
                "adminToken": {"type": "apiKey", "in": "header", "name": "x-admin-token"},
            },
        },
    }))
}

fn operation<S>(
    call: &Call<Shared<S>>,
    call_schema: CallSchema,
    links: &Value,
    shared: &Shared<S>,
) -> Value {
    let mut parameters = parameters(&call_schema.query);
    if let Some(PathParameter { name, description, schema, example, .. }) = &call_schema.path {
        parameters.push(json!({
            "name": name,
            "in": "path",
            "required": true,
            "description": description,
            "schema": schema,
            "example": example,
        }));
    }
    if let Some((name, description, schema)) = &call_schema.header {
        parameters.push(json!({
            "name": name, "in": "header", "description": description, "schema": schema,
        }));
    }
    let security = match call.is_public {
        true => json!([]),
        false => json!([{"bearer": []}, {"adminToken": []}]),
    };
    let errors = rejections::errors(call, &call_schema, shared.allow.is_some());
    let mut responses = rejections::responses(&errors, &shared.outer_rejections, &*shared.reject);
    let mut response = response(&call_schema);
    if call_schema.status == StatusCode::CREATED {
        response["links"] = links.clone();
    }
    responses.insert(call_schema.status.as_str().to_owned(), response);
    let mut operation = json!({
        "operationId": call.id,
        "summary": call.summary,
        "parameters": parameters,
        "security": security,
        "responses": responses,
    });
    if let Some(body) = call_schema.body {
        operation["requestBody"] = json!({
            "required": call_schema.needs_body,
            "content": {call.content_type: {"schema": body}},
        });
    }
    operation
}

/// Links from a created key to the calls on it, by its id.
fn links<T>(calls: &[Call<T>]) -> Value {
    let of_keys = calls.iter().filter(|call| call.takes_key());
    let parameters = json!({"ref": "$response.body#/id"});
    of_keys
        .map(|call| (call.id.into(), json!({"operationId": call.id, "parameters": parameters})))
        .collect::<Map<_, _>>()
        .into()
}

/// Turns the properties of a query's type into parameters.
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

/// Removes `null` from the schema: a parameter may be absent, but queries have no `null`.
fn without_null(schema: &mut Value) {
    if let Some(values) = schema.get_mut("enum").and_then(Value::as_array_mut) {
        values.retain(|value| !value.is_null());
    }
    if let Some(types) = schema.get_mut("type").filter(|types| types.is_array()) {
        *types = types[0].take();
    }
}

fn response(call_schema: &CallSchema) -> Value {
    let content = call_schema.content.iter();
    let mut headers = security_header_refs();
    for (name, description) in call_schema.headers {
        let header = json!({"description": description, "schema": {"type": "string"}});
        headers.insert((*name).to_owned(), header);
    }
    json!({
        "description": call_schema.status.canonical_reason(),
        "headers": headers,
        "content": content
            .map(|(kind, schema)| ((*kind).to_owned(), json!({"schema": schema})))
            .collect::<Map<_, _>>(),
    })
}

/// The headers of every response, with their names in title case.
fn security_headers() -> impl Iterator<Item = (String, &'static str)> {
    SECURITY_HEADERS.into_iter().map(|(name, value)| (title_case(&name), value))
}

fn security_header_refs() -> Map<String, Value> {
    security_headers()
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
