//! HTTP of the admin API: calls, their input, responses and errors.

pub(crate) mod body;
pub(crate) mod call;
pub(crate) mod csv;
pub(crate) mod error;
pub(crate) mod input;
pub(crate) mod json;
pub(crate) mod openapi;
pub(crate) mod query;
pub(crate) mod replay;
pub(crate) mod route;
pub(crate) mod schema;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Response, header};
use http_body::Body;

/// Headers that forbid caching, framing, sniffing and access by other sites.
pub(crate) const SECURITY_HEADERS: [(HeaderName, &str); 6] = [
    (header::CACHE_CONTROL, "no-store"),
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (header::REFERRER_POLICY, "no-referrer"),
    (header::X_FRAME_OPTIONS, "DENY"),
    (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
    (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
];

pub(crate) fn add_security_headers(headers: &mut HeaderMap) {
    for (name, value) in SECURITY_HEADERS {
        headers.insert(name, HeaderValue::from_static(value));
    }
}

/// Turns the response to `GET` into that to `HEAD`, which keeps the length of the body.
pub(crate) fn remove_body<B: Body + From<Bytes>>(response: &mut Response<B>) {
    if let Some(len) = response.body().size_hint().exact() {
        response.headers_mut().insert(header::CONTENT_LENGTH, len.into());
    }
    *response.body_mut() = Bytes::new().into();
}
