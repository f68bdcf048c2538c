//! What heads tell of the bodies that follow them.

use http::{HeaderMap, HeaderName, HeaderValue, Method, header, request, response};

use crate::content::{is_plain, media_type};

/// Fields that vouch for the bytes of a body (RFC 9530, RFC 9421, RFC 3230, RFC 1864). A request with
/// one of them is left as its sender has vouched for it.
const VOUCHERS: [HeaderName; 6] = [
    HeaderName::from_static("content-digest"),
    HeaderName::from_static("repr-digest"),
    HeaderName::from_static("digest"),
    HeaderName::from_static("content-md5"),
    HeaderName::from_static("signature"),
    HeaderName::from_static("signature-input"),
];

/// Whether a request with this head can be changed. What it says of its content type does not matter:
/// `curl -d` calls all a form, and what is no JSON stays as it is.
pub(super) fn may_be_changed(head: &request::Parts) -> bool {
    head.method == Method::POST
        && is_plain(&head.headers)
        && !VOUCHERS.iter().any(|name| head.headers.contains_key(name))
        // Several are for others to judge.
        && head.headers.get_all(header::CONTENT_LENGTH).iter().count() <= 1
}

/// Fits the head to a changed body of this length, and asks for an answer that can be read.
pub(super) fn change(head: &mut request::Parts, length: usize) {
    if head.headers.contains_key(header::CONTENT_LENGTH) {
        head.headers.insert(header::CONTENT_LENGTH, HeaderValue::from(length));
    }
    head.headers.insert(header::ACCEPT_ENCODING, HeaderValue::from_static("identity"));
}

/// Fits the head of an answer to a body from which something may be taken out.
pub(super) fn fit_to_hidden(head: &mut response::Parts) {
    for name in VOUCHERS.iter().chain([&header::CONTENT_LENGTH, &header::ETAG]) {
        head.headers.remove(name);
    }
}

/// Whether an answer with this head is a stream that can be read.
pub(super) fn is_readable_stream(head: &response::Parts) -> bool {
    head.status.is_success() && is_of(&head.headers, "text/event-stream") && is_plain(&head.headers)
}

/// Whether the content is of this type, with any parameters.
fn is_of(headers: &HeaderMap, kind: &str) -> bool {
    media_type(headers).is_some_and(|told| told.eq_ignore_ascii_case(kind.as_bytes()))
}
