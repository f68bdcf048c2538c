use bytes::Bytes;
use http::{HeaderValue, Response, header};
use serde::Serialize;

use super::Rejection;

/// Gives a [`Rejection`] its form on the wire.
///
/// The default is [`ProblemJson`]; `openai::OpenAiErrors` writes the error object that OpenAI
/// clients read. A closure `Fn(Rejection) -> Response<Bytes>` works too.
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
pub trait Reject {
    /// The response for this rejection.
    fn reject(&self, rejection: Rejection) -> Response<Bytes>;
}

impl<F> Reject for F
where
    F: Fn(Rejection) -> Response<Bytes>,
{
    fn reject(&self, rejection: Rejection) -> Response<Bytes> {
        self(rejection)
    }
}

/// The neutral default: `application/problem+json` (RFC 9457).
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

impl Rejection {
    /// A response with this rejection's status and headers around a rendered body. It is marked
    /// `Cache-Control: no-store`.
    pub fn into_response(self, body: Bytes, content_type: HeaderValue) -> Response<Bytes> {
        let mut response = Response::new(body);
        *response.status_mut() = self.status;
        *response.headers_mut() = self.headers;
        response.headers_mut().insert(header::CONTENT_TYPE, content_type);
        response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        response
    }
}

/// JSON text of a value that cannot fail to serialise (plain structs of strings and numbers).
pub(crate) fn json(value: &impl Serialize) -> Bytes {
    serde_json::to_vec(value).unwrap_or_default().into()
}
