//! Content of messages: what a head says about it, and readers for server-sent events and JSON that
//! arrive in any chunks.

// Either feature reads a part of them.
#[cfg(feature = "openai")]
#[cfg_attr(not(feature = "usage"), allow(dead_code))]
pub(crate) mod events;
#[cfg(any(feature = "openai", feature = "usage"))]
#[cfg_attr(not(all(feature = "openai", feature = "usage")), allow(dead_code))]
pub(crate) mod members;

use http::{HeaderMap, header};

/// The content coding of a message (RFC 9110, section 8.4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Coding {
    Identity,
    Gzip,
    Deflate,
    /// Another coding, or several.
    Other,
}

impl Coding {
    /// Returns the coding that the `Content-Encoding` headers declare together.
    pub(crate) fn of(headers: &HeaderMap) -> Self {
        let lines = headers.get_all(header::CONTENT_ENCODING).iter();
        let codings = lines.flat_map(|line| line.as_bytes().split(|byte| *byte == b','));
        let mut codings = codings
            .map(<[u8]>::trim_ascii)
            .filter(|coding| !coding.is_empty() && !coding.eq_ignore_ascii_case(b"identity"));
        match (codings.next(), codings.next()) {
            (None, _) => Self::Identity,
            (Some(coding), None) => Self::named(coding),
            _ => Self::Other,
        }
    }

    fn named(coding: &[u8]) -> Self {
        match coding.to_ascii_lowercase().as_slice() {
            b"gzip" | b"x-gzip" => Self::Gzip,
            b"deflate" => Self::Deflate,
            _ => Self::Other,
        }
    }
}

/// Returns whether the content is not coded.
#[cfg(any(feature = "openai", feature = "usage"))]
pub(crate) fn is_plain(headers: &HeaderMap) -> bool {
    Coding::of(headers) == Coding::Identity
}

/// Returns the media type without its parameters, if there is one.
#[cfg(any(feature = "openai", feature = "proxy"))]
pub(crate) fn media_type(headers: &HeaderMap) -> Option<&[u8]> {
    let content_type = headers.get(header::CONTENT_TYPE)?.as_bytes();
    Some(content_type.split(|&byte| byte == b';').next()?.trim_ascii())
}
