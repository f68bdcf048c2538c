//! What the fields of a head say about the content that follows.

use http::{HeaderMap, header};

/// Whether there is no content coding. Each `Content-Encoding` line counts.
pub(crate) fn is_plain(headers: &HeaderMap) -> bool {
    let mut codings = headers.get_all(header::CONTENT_ENCODING).iter();
    codings.all(|coding| coding.as_bytes().eq_ignore_ascii_case(b"identity"))
}

/// The media type without its parameters, if it is told.
pub(crate) fn media_type(headers: &HeaderMap) -> Option<&[u8]> {
    let content = headers.get(header::CONTENT_TYPE)?.as_bytes();
    Some(content.split(|&byte| byte == b';').next()?.trim_ascii())
}
