use std::borrow::Cow;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Response, StatusCode, header, header::HeaderName};
use serde::Serialize;

use super::catalog;

/// A rejected request, before a [`Reject`] renderer gives the response its form.
///
/// [`permanent`](Self::permanent) and [`transient`](Self::transient) differ in whether sending the
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
    /// Additional headers of the response, for example `WWW-Authenticate`.
    pub headers: HeaderMap,
}

/// Whether a rejected request may succeed when it is sent again unchanged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Retry {
    /// It cannot succeed; a client that retries wastes its time and the gateway's.
    Never,
    /// It may succeed, after `Retry-After` if that is present.
    Later,
}

impl Rejection {
    /// Creates a rejection that the same request always meets: a wrong key, a malformed body.
    pub fn permanent(
        status: StatusCode,
        kind: &'static str,
        code: &'static str,
        message: impl Into<Cow<'static, str>>,
    ) -> Self {
        let (message, headers) = (message.into(), HeaderMap::new());
        Self { status, kind, code, message, retry: Retry::Never, headers }
    }

    /// Creates a rejection whose cause passes by itself: a busy store, a limit on requests in flight.
    pub fn transient(
        status: StatusCode,
        kind: &'static str,
        code: &'static str,
        message: impl Into<Cow<'static, str>>,
    ) -> Self {
        Self { retry: Retry::Later, ..Self::permanent(status, kind, code, message) }
    }

    /// Creates a 405 with this `Allow` header.
    pub fn method_not_allowed(allow: HeaderValue) -> Self {
        catalog::METHOD_NOT_ALLOWED
            .with(&[("allow", &allow.to_str().unwrap_or_default())])
            .header(header::ALLOW, allow)
    }

    /// Sets a header of the response.
    #[must_use]
    pub fn header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.insert(name, value);
        self
    }

    /// Renders the response, which is marked with [`Rejected`] whatever the renderer does.
    pub fn render(self, renderer: &(impl Reject + ?Sized)) -> Response<Bytes> {
        let Self { kind, code, ref message, .. } = self;
        let rejected = Rejected { kind, code, message: message.clone() };
        let mut response = renderer.reject(self);
        // A renderer that passes a rejection with another message to the next renderer has marked it.
        response.extensions_mut().get_or_insert(rejected);
        response
    }

    /// Creates a response with this rejection's status and headers around a rendered body. It is
    /// marked `Cache-Control: no-store`.
    pub fn into_response(self, body: Bytes, content_type: HeaderValue) -> Response<Bytes> {
        let mut response = Response::new(body);
        *response.status_mut() = self.status;
        *response.headers_mut() = self.headers;
        response.headers_mut().insert(header::CONTENT_TYPE, content_type);
        response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        response
    }
}

/// The reason of a rejection, in the extensions of every response that a layer of this crate made
/// itself.
///
/// An outer layer may use it to give such a response another form, as
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

/// Renders a [`Rejection`] as a response.
///
/// The default is [`ProblemJson`]; `openai::OpenAiErrors` writes the error object that OpenAI
/// clients read. Closures `Fn(Rejection) -> Response<Bytes>` implement it, too.
///
/// ```
/// use bytes::Bytes;
/// use http::{Response, StatusCode};
/// use tower_quota::error::{Reject, Rejection};
///
/// let plain = |rejection: Rejection| {
///     let mut response = Response::new(Bytes::from(rejection.message.into_owned()));
///     *response.status_mut() = rejection.status;
///     response
/// };
/// let status = StatusCode::UNAUTHORIZED;
/// let rejection = Rejection::permanent(status, "auth", "no_key", "No key was sent.");
/// assert_eq!(plain.reject(rejection).status(), 401);
/// ```
pub trait Reject: Send + Sync + 'static {
    /// Returns the response for this rejection.
    fn reject(&self, rejection: Rejection) -> Response<Bytes>;
}

impl<F> Reject for F
where
    F: Fn(Rejection) -> Response<Bytes> + Send + Sync + 'static,
{
    fn reject(&self, rejection: Rejection) -> Response<Bytes> {
        self(rejection)
    }
}

/// Renders rejections as `application/problem+json` (RFC 9457).
#[derive(Clone, Copy, Debug, Default)]
pub struct ProblemJson;

#[derive(Serialize)]
struct Problem<'a> {
    title: &'a str,
    status: u16,
    detail: &'a str,
    code: &'a str,
}

impl Reject for ProblemJson {
    fn reject(&self, rejection: Rejection) -> Response<Bytes> {
        let problem = Problem {
            title: rejection.status.canonical_reason().unwrap_or(rejection.kind),
            status: rejection.status.as_u16(),
            detail: &rejection.message,
            code: rejection.code,
        };
        let body = json(&problem);
        rejection.into_response(body, HeaderValue::from_static("application/problem+json"))
    }
}

/// Serialises a value that cannot fail to serialise, such as a plain struct of strings and numbers.
pub(crate) fn json(value: &impl Serialize) -> Bytes {
    serde_json::to_vec(value).unwrap_or_default().into()
}
