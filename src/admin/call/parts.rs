//! What calls take and answer.

use http::{HeaderValue, Response, StatusCode, header};
use schemars::{JsonSchema, Schema, SchemaGenerator, schema_for};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use super::super::{
    csv::AdminBody, input::from_json, query::decode, refusal::Refusal, view::answer,
};
use crate::{
    body::ResponseBody,
    store::{KeyRef, KeyVersion},
};

/// A query without parameters.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::admin) struct Nothing {}

/// JSON, of a request or as the answer 200.
pub(in crate::admin) struct Json<T>(pub(in crate::admin) T);

/// JSON, as the answer 201.
pub(in crate::admin) struct Created<T>(pub(in crate::admin) T);

/// An answer about one key in one state, which its `ETag` names.
pub(in crate::admin) struct Tagged<A>(pub(in crate::admin) KeyVersion, pub(in crate::admin) A);

/// What a call takes of the path.
pub(in crate::admin) trait FromPath: Sized {
    fn from_path(key: Option<&str>) -> Result<Self, Refusal>;
}

/// What a call takes of the body.
pub(in crate::admin) trait FromBody: Sized {
    /// Whether the body is read at all.
    const READ: bool;
    /// What it is.
    const CONTENT_TYPE: &'static str = "application/json";
    /// The largest one, in bytes.
    const MOST: usize = 64 * 1024;

    fn from_body(body: &[u8]) -> Result<Self, Refusal>;

    fn schema(generator: &mut SchemaGenerator) -> Option<Schema>;

    /// Whether the empty body is wrong.
    fn is_needed() -> bool;
}

/// What a call answers when it is not refused.
pub(in crate::admin) trait Answers {
    const STATUS: StatusCode;
    /// Headers that some of these answers have, and what they say.
    const HEADERS: &'static [(&'static str, &'static str)] = &[];

    fn response(self) -> Response<AdminBody>;

    /// The bodies by content type.
    fn content(generator: &mut SchemaGenerator) -> Vec<(&'static str, Schema)>;
}

impl FromPath for () {
    fn from_path(_: Option<&str>) -> Result<Self, Refusal> {
        Ok(())
    }
}

impl FromPath for KeyRef {
    fn from_path(key: Option<&str>) -> Result<Self, Refusal> {
        let text = key.and_then(|key| decode(key, false)).filter(|text| !text.is_empty());
        text.map(KeyRef::new).ok_or_else(Refusal::unknown_key)
    }
}

impl FromBody for () {
    const READ: bool = false;

    fn from_body(_: &[u8]) -> Result<Self, Refusal> {
        Ok(())
    }

    fn schema(_: &mut SchemaGenerator) -> Option<Schema> {
        None
    }

    fn is_needed() -> bool {
        false
    }
}

impl<T: DeserializeOwned + JsonSchema> FromBody for Json<T> {
    const READ: bool = true;

    fn from_body(body: &[u8]) -> Result<Self, Refusal> {
        from_json(body).map(Self)
    }

    fn schema(generator: &mut SchemaGenerator) -> Option<Schema> {
        Some(generator.subschema_for::<T>())
    }

    fn is_needed() -> bool {
        let schema = schema_for!(T);
        schema.get("required").is_some() || schema.get("minProperties").is_some()
    }
}

impl<T: Serialize + JsonSchema> Answers for Json<T> {
    const STATUS: StatusCode = StatusCode::OK;

    fn response(self) -> Response<AdminBody> {
        answer(Self::STATUS, &self.0).map(ResponseBody::own)
    }

    fn content(generator: &mut SchemaGenerator) -> Vec<(&'static str, Schema)> {
        vec![("application/json", generator.subschema_for::<T>())]
    }
}

impl<T: Serialize + JsonSchema> Answers for Created<Json<T>> {
    const STATUS: StatusCode = StatusCode::CREATED;

    fn response(self) -> Response<AdminBody> {
        let Self(Json(value)) = self;
        answer(Self::STATUS, &value).map(ResponseBody::own)
    }

    fn content(generator: &mut SchemaGenerator) -> Vec<(&'static str, Schema)> {
        Json::<T>::content(generator)
    }
}

impl<A: Answers> Answers for Tagged<A> {
    const STATUS: StatusCode = A::STATUS;
    const HEADERS: &'static [(&'static str, &'static str)] = &[(
        "ETag",
        "Names the state of the key's record, for `If-Match`. Its figures are no part of it.",
    )];

    fn response(self) -> Response<AdminBody> {
        let Self(version, answer) = self;
        let mut response = answer.response();
        if let Ok(tag) = HeaderValue::try_from(format!("\"{version}\"")) {
            response.headers_mut().insert(header::ETAG, tag);
        }
        response
    }

    fn content(generator: &mut SchemaGenerator) -> Vec<(&'static str, Schema)> {
        A::content(generator)
    }
}
