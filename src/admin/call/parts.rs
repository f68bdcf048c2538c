//! The parts of requests and responses that calls are made of.

use http::{HeaderValue, Response, StatusCode, header};
use schemars::{JsonSchema, Schema, SchemaGenerator, schema_for};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use super::super::{
    csv::AdminBody, error::AdminError, input::from_json, query::decode, view::json_response,
};
use crate::{
    body::ResponseBody,
    error::catalog,
    store::{KeyRef, KeyVersion},
};

/// A query without parameters.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::admin) struct NoQuery {}

/// JSON, as a request body or as a response with status 200.
pub(in crate::admin) struct Json<T>(pub(in crate::admin) T);

/// A response with status 201.
pub(in crate::admin) struct Created<T>(pub(in crate::admin) T);

/// A response about one key, with the key's version as its `ETag`.
pub(in crate::admin) struct WithEtag<A>(pub(in crate::admin) KeyVersion, pub(in crate::admin) A);

/// Parses the path segment for `{ref}`.
pub(in crate::admin) trait FromPath: Sized {
    fn from_path(key: Option<&str>) -> Result<Self, AdminError>;
}

/// Parses the request body.
pub(in crate::admin) trait FromBody: Sized {
    /// Whether the body is read at all.
    const READ: bool;
    /// Content type in the OpenAPI document.
    const CONTENT_TYPE: &'static str = "application/json";
    /// Maximum length in bytes.
    const MAX_LEN: usize = 64 * 1024;

    fn from_body(body: &[u8]) -> Result<Self, AdminError>;

    fn schema(generator: &mut SchemaGenerator) -> Option<Schema>;

    /// Returns whether an empty body is an error.
    fn is_required() -> bool;
}

/// The response of a call that succeeds.
pub(in crate::admin) trait CallResponse {
    const STATUS: StatusCode;
    /// Names and descriptions of headers that some of these responses have.
    const HEADERS: &'static [(&'static str, &'static str)] = &[];

    fn into_response(self) -> Response<AdminBody>;

    /// Returns the schema of the body for each content type.
    fn content(generator: &mut SchemaGenerator) -> Vec<(&'static str, Schema)>;
}

impl FromPath for () {
    fn from_path(_: Option<&str>) -> Result<Self, AdminError> {
        Ok(())
    }
}

impl FromPath for KeyRef {
    fn from_path(key: Option<&str>) -> Result<Self, AdminError> {
        let text = key.and_then(|key| decode(key, false)).filter(|text| !text.is_empty());
        text.map(KeyRef::new).ok_or(catalog::KEY_NOT_FOUND.into())
    }
}

impl FromBody for () {
    const READ: bool = false;

    fn from_body(_: &[u8]) -> Result<Self, AdminError> {
        Ok(())
    }

    fn schema(_: &mut SchemaGenerator) -> Option<Schema> {
        None
    }

    fn is_required() -> bool {
        false
    }
}

impl<T: DeserializeOwned + JsonSchema> FromBody for Json<T> {
    const READ: bool = true;

    fn from_body(body: &[u8]) -> Result<Self, AdminError> {
        from_json(body).map(Self)
    }

    fn schema(generator: &mut SchemaGenerator) -> Option<Schema> {
        Some(generator.subschema_for::<T>())
    }

    fn is_required() -> bool {
        let schema = schema_for!(T);
        schema.get("required").is_some() || schema.get("minProperties").is_some()
    }
}

impl<T: Serialize + JsonSchema> CallResponse for Json<T> {
    const STATUS: StatusCode = StatusCode::OK;

    fn into_response(self) -> Response<AdminBody> {
        json_response(Self::STATUS, &self.0).map(ResponseBody::full)
    }

    fn content(generator: &mut SchemaGenerator) -> Vec<(&'static str, Schema)> {
        vec![("application/json", generator.subschema_for::<T>())]
    }
}

impl<T: Serialize + JsonSchema> CallResponse for Created<Json<T>> {
    const STATUS: StatusCode = StatusCode::CREATED;

    fn into_response(self) -> Response<AdminBody> {
        let Self(Json(value)) = self;
        json_response(Self::STATUS, &value).map(ResponseBody::full)
    }

    fn content(generator: &mut SchemaGenerator) -> Vec<(&'static str, Schema)> {
        Json::<T>::content(generator)
    }
}

impl<A: CallResponse> CallResponse for WithEtag<A> {
    const STATUS: StatusCode = A::STATUS;
    const HEADERS: &'static [(&'static str, &'static str)] = &[(
        "ETag",
        "Version of the key's record, for `If-Match`. It does not change with the key's usage.",
    )];

    fn into_response(self) -> Response<AdminBody> {
        let Self(version, inner) = self;
        let mut response = inner.into_response();
        if let Ok(tag) = HeaderValue::try_from(format!("\"{version}\"")) {
            response.headers_mut().insert(header::ETAG, tag);
        }
        response
    }

    fn content(generator: &mut SchemaGenerator) -> Vec<(&'static str, Schema)> {
        A::content(generator)
    }
}
