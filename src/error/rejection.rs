use std::borrow::Cow;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Response, StatusCode, header, header::HeaderName};

use super::Reject;

/// One refusal, before a [`Reject`] renderer gives it a form.
///
/// There is a constructor for each answer to the question that every client asks: whether sending the
/// same request again can help.
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
    /// Whether the same request may succeed when it is sent again.
    pub retry: Retry,
    /// Headers that belong to this answer, for example `WWW-Authenticate`.
    pub headers: HeaderMap,
}

/// Whether a request that was refused may succeed when it is sent again unchanged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Retry {
    /// It cannot; a client that tries wastes its time and the gateway's.
    Never,
    /// It may, after `Retry-After` if that is there.
    Later,
}

impl Rejection {
    /// A rejection that the same request cannot get over: a wrong key, a malformed body.
    pub fn permanent(
        status: StatusCode,
        kind: &'static str,
        code: &'static str,
        message: impl Into<Cow<'static, str>>,
    ) -> Self {
        let (message, headers) = (message.into(), HeaderMap::new());
        Self { status, kind, code, message, retry: Retry::Never, headers }
    }

    /// A rejection that passes by itself: a store that is busy, a limit on what is under way.
    pub fn transient(
        status: StatusCode,
        kind: &'static str,
        code: &'static str,
        message: impl Into<Cow<'static, str>>,
    ) -> Self {
        Self { retry: Retry::Later, ..Self::permanent(status, kind, code, message) }
    }

    /// 405: this address takes the methods of this `Allow` header only.
    pub fn method_not_allowed(allow: HeaderValue) -> Self {
        let message = format!("Only {} is allowed here.", allow.to_str().unwrap_or_default());
        let status = StatusCode::METHOD_NOT_ALLOWED;
        Self::permanent(status, "invalid_request_error", "method_not_allowed", message)
            .header(header::ALLOW, allow)
    }

    /// Adds a header to the answer.
    #[must_use]
    pub fn header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.insert(name, value);
        self
    }

    /// The response for this rejection, marked with [`Rejected`] whatever the renderer does.
    pub fn render(self, renderer: &(impl Reject + ?Sized)) -> Response<Bytes> {
        let Self { kind, code, ref message, .. } = self;
        let rejected = Rejected { kind, code, message: message.clone() };
        let mut response = renderer.reject(self);
        // A renderer that hands a rejection with another message on to the next one has marked it.
        response.extensions_mut().get_or_insert(rejected);
        response
    }
}

/// In the extensions of every response that a layer of this crate made itself: why.
///
/// An outer layer may give such a response another form by it, as
/// `openai::AnthropicErrorsLayer` does.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Rejected {
    /// The [`Rejection::kind`] of the response.
    pub kind: &'static str,
    /// The [`Rejection::code`] of the response.
    pub code: &'static str,
    /// The [`Rejection::message`] of the response.
    pub message: Cow<'static, str>,
}
