//! Rejections of the gateway itself, before any layer is called.

use bytes::Bytes;
use http::{HeaderValue, Request, Response, header};
use tower_quota::{
    error::{Rejection, catalog},
    openai::OpenAiErrors,
    server::RejectedHead,
};

pub(crate) fn not_found() -> Response<Bytes> {
    let message = "There is nothing at this address. The API is below `/v1`.";
    render(catalog::NOT_FOUND.with_message(message))
}

/// Rejects a path that contains `base`, the end of the client's base URL, twice.
pub(crate) fn doubled_base(base: &str) -> Response<Bytes> {
    render(catalog::NOT_FOUND.with_message(format!(
        "Your base URL already ends in `{base}`, and your client adds its own path to that. Take \
         `{base}` off the base URL."
    )))
}

pub(crate) fn wrong_method(allow: HeaderValue) -> Response<Bytes> {
    render(Rejection::method_not_allowed(allow))
}

pub(crate) fn too_large(limit: usize) -> Rejection {
    let message = format!("The request body is larger than {limit} bytes.");
    catalog::REQUEST_TOO_LARGE.with_message(message)
}

/// Rejects a request of a page of another site. `from` is the page's origin and `to` the host that the
/// request was sent to, as far as they are known.
pub(crate) fn cross_site(from: &str, to: &str) -> Rejection {
    catalog::CROSS_SITE_REQUEST.with(&[("from", &from), ("to", &to)])
}

/// Rejects a path that others may interpret differently.
pub(crate) fn invalid_path() -> Rejection {
    catalog::INVALID_PATH.rejection()
}

/// Rejects a request whose head is invalid.
pub(crate) fn bad_head(bad: RejectedHead) -> Response<Bytes> {
    let code = match bad {
        RejectedHead::Framing => catalog::AMBIGUOUS_FRAMING,
        RejectedHead::TargetTooLong => catalog::URI_TOO_LONG,
        RejectedHead::TooLarge => catalog::HEADERS_TOO_LARGE,
        _ => catalog::MALFORMED_REQUEST,
    };
    closing(code.rejection())
}

pub(crate) fn no_metrics_token() -> Rejection {
    let challenge = HeaderValue::from_static("Bearer");
    catalog::INVALID_METRICS_TOKEN.rejection().header(header::WWW_AUTHENTICATE, challenge)
}

pub(crate) fn panicked() -> Response<Bytes> {
    render(catalog::INTERNAL_ERROR.rejection())
}

/// Closes the connection after the response, as what follows on it cannot be trusted.
pub(crate) fn closing(rejection: impl Into<Rejection>) -> Response<Bytes> {
    render(rejection.into().header(header::CONNECTION, HeaderValue::from_static("close")))
}

pub(crate) fn render(rejection: Rejection) -> Response<Bytes> {
    // `OpenAiErrors` reads nothing of the request.
    rejection.render(&OpenAiErrors, &Request::new(()))
}
