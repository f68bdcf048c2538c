//! JSON responses, and values in them.

use std::time::SystemTime;

use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, header};
use serde::{Serialize, Serializer};

use crate::{clock::rfc3339, error::json, key::Limit};

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
