//! Fields of heads that describe the bodies.

use http::{HeaderName, HeaderValue, Method, header, request, response};

use crate::content::{is_plain, media_type};

/// Fields that authenticate the bytes of a body (RFC 9530, RFC 9421, RFC 3230, RFC 1864). A request with
/// one of them is not changed.
static INTEGRITY_FIELDS: [HeaderName; 6] = [
    HeaderName::from_static("content-digest"),
    HeaderName::from_static("repr-digest"),
    HeaderName::from_static("digest"),
    HeaderName::from_static("content-md5"),
    HeaderName::from_static("signature"),
    HeaderName::from_static("signature-input"),
];

/// Returns whether the body of a request with this head may be changed. The content type does not matter:
/// `curl -d` sends everything as a form, and what is not JSON stays as it is.
pub(super) fn may_be_changed(head: &request::Parts) -> bool {
    head.method == Method::POST
        && is_plain(&head.headers)
        // Few headers are compared faster than names are hashed.
        && head.headers.keys().all(|name| !INTEGRITY_FIELDS.contains(name))
        // A message with several is rejected by others.
        && head.headers.get_all(header::CONTENT_LENGTH).iter().count() <= 1
}

/// Fits the head to a changed body of this length, and requests a response that can be read.
pub(super) fn fit_to_changed(head: &mut request::Parts, length: usize) {
    if head.headers.contains_key(header::CONTENT_LENGTH) {
        head.headers.insert(header::CONTENT_LENGTH, HeaderValue::from(length));
    }
    head.headers.insert(header::ACCEPT_ENCODING, HeaderValue::from_static("identity"));
}

/// Fits the head of a response to a body from which events may be removed.
pub(super) fn fit_to_filtered(head: &mut response::Parts) {
    for name in INTEGRITY_FIELDS.iter().chain([&header::CONTENT_LENGTH, &header::ETAG]) {
        head.headers.remove(name);
    }
}

/// Returns whether a response with this head is an event stream that can be read.
pub(super) fn is_readable_stream(head: &response::Parts) -> bool {
    let media_type = media_type(&head.headers);
    let is_stream = media_type.is_some_and(|name| name.eq_ignore_ascii_case(b"text/event-stream"));
    head.status.is_success() && is_stream && is_plain(&head.headers)
}
