//! What heads tell of the bodies that follow them.

use http::{HeaderMap, HeaderValue, Method, header, request, response};

/// Whether a request with this head can be changed.
pub(super) fn may_be_changed(head: &request::Parts) -> bool {
    head.method == Method::POST
        && is_of(&head.headers, "application/json")
        && is_plain(&head.headers)
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

/// Whether an answer with this head is a stream that can be read.
pub(super) fn is_readable_stream(head: &response::Parts) -> bool {
    head.status.is_success() && is_of(&head.headers, "text/event-stream") && is_plain(&head.headers)
}

/// Whether the content is of this type, with any parameters.
fn is_of(headers: &HeaderMap, media_type: &str) -> bool {
    headers.get(header::CONTENT_TYPE).is_some_and(|content| {
        let name = content.as_bytes().split(|&byte| byte == b';').next().unwrap_or_default();
        name.trim_ascii().eq_ignore_ascii_case(media_type.as_bytes())
    })
}

/// Whether there is no content coding.
fn is_plain(headers: &HeaderMap) -> bool {
    let mut codings = headers.get_all(header::CONTENT_ENCODING).iter();
    codings.all(|coding| coding.as_bytes().eq_ignore_ascii_case(b"identity"))
}
