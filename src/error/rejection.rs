use std::borrow::Cow;

use http::{HeaderMap, HeaderValue, StatusCode, header::HeaderName};

/// One refusal, before a [`Reject`](super::Reject) renderer gives it a form.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Rejection {
    /// The response status.
    pub status: StatusCode,
    /// The class of the error, for example `invalid_request_error`.
    pub kind: &'static str,
    /// The stable name of this error, for example `invalid_api_key`.
    pub code: &'static str,
    /// One sentence for a person. Never holds a secret or an inner error's text.
    pub message: Cow<'static, str>,
    /// Headers that belong to this answer, for example `WWW-Authenticate`.
    pub headers: HeaderMap,
}

impl Rejection {
    /// A rejection without extra headers.
    pub fn new(
        status: StatusCode,
        kind: &'static str,
        code: &'static str,
        message: impl Into<Cow<'static, str>>,
    ) -> Self {
        Self { status, kind, code, message: message.into(), headers: HeaderMap::new() }
    }

    /// Adds a header to the answer.
    #[must_use]
    pub fn header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.insert(name, value);
        self
    }
}

/// In the extensions of every response that a layer of this crate made itself: why.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rejected {
    /// The [`Rejection::code`] of the answer.
    pub code: &'static str,
}
