//! JSON responses, and schemas of types from other modules.

use std::{borrow::Cow, time::SystemTime};

use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, header};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Serialize, Serializer};

use crate::{
    admin::store::{KeyState, PageCursor},
    clock::{Day, rfc3339},
    error::json,
    key::{KeyId, KeyVersion, Limit},
};

/// A JSON response of a value that cannot fail to serialise (plain structs).
pub(crate) fn json_response(status: StatusCode, value: &impl Serialize) -> Response<Bytes> {
    raw_json_response(status, json(value))
}

/// A response with this JSON text.
pub(crate) fn raw_json_response(status: StatusCode, json: Bytes) -> Response<Bytes> {
    let mut response = Response::new(json);
    *response.status_mut() = status;
    response
        .headers_mut()
        .insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

/// A time, serialised as RFC 3339 in UTC with whole seconds.
pub(crate) struct Timestamp(pub(crate) SystemTime);

impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&rfc3339(self.0))
    }
}

/// A limit, serialised as a number with 0 for unlimited.
#[derive(Clone, Copy)]
pub(crate) struct LimitNumber(pub(crate) Limit);

impl Serialize for LimitNumber {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u64(self.0.number())
    }
}

macro_rules! schema {
    ($type:ident, $schema:tt) => {
        impl JsonSchema for $type {
            fn inline_schema() -> bool {
                true
            }

            fn schema_name() -> Cow<'static, str> {
                stringify!($type).into()
            }

            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!($schema)
            }
        }
    };
}

schema!(KeyId, {"type": "string", "examples": ["key_0123456789abcdef"]});
schema!(LimitNumber, {"type": "integer", "minimum": 0, "maximum": Limit::MAX_STORED});
schema!(PageCursor, {"anyOf": [{"type": "integer"}, {"type": "string"}]});
schema!(KeyVersion, {"type": "string", "pattern": "^[0-9a-f]{32}$"});
schema!(KeyState, {"type": "string", "enum": KeyState::ALL.map(KeyState::as_str)});
schema!(Day, {"type": "string", "format": "date", "examples": ["2026-11-22"]});
schema!(Timestamp, {"type": "string", "format": "date-time", "examples": ["2026-11-22T08:30:00Z"]});
