//! Rejections of the gateway itself, before any layer is called.

use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, header};
use tower_quota::{error::Rejection, openai::OpenAiErrors};

use crate::http1::BadHead;

const INVALID: &str = "invalid_request_error";

pub(crate) fn not_found() -> Response<Bytes> {
    let message = "There is nothing at this address. The API is below `/v1`.";
    render(Rejection::permanent(StatusCode::NOT_FOUND, INVALID, "not_found", message))
}

/// Rejects a path that contains `base`, the end of the client's base URL, twice.
pub(crate) fn doubled_base(base: &str) -> Response<Bytes> {
    let message = format!(
        "Your base URL already ends in `{base}`, and your client adds its own path to that. Take \
         `{base}` off the base URL."
    );
    render(Rejection::permanent(StatusCode::NOT_FOUND, INVALID, "not_found", message))
}

pub(crate) fn wrong_method(allow: HeaderValue) -> Response<Bytes> {
    render(Rejection::method_not_allowed(allow))
}

pub(crate) fn too_large(limit: usize) -> Rejection {
    let message = format!("The request body is larger than {limit} bytes.");
    Rejection::permanent(StatusCode::PAYLOAD_TOO_LARGE, INVALID, "request_too_large", message)
}

/// Rejects a request of a page of another site. `from` is the page's origin and `to` the host that the
/// request was sent to, as far as they are known.
pub(crate) fn cross_site(from: &str, to: &str) -> Rejection {
    let message = format!(
        "Pages of other sites may not change anything here: this comes from `{from}` and was sent to \
         `{to}`. If both are this gateway, let the proxy in front of it pass `Host` and `Origin` on \
         unchanged, or set PUBLIC_URL to the address in the browser."
    );
    Rejection::permanent(StatusCode::FORBIDDEN, "permission_error", "cross_site_request", message)
}

/// Rejects a path that others may interpret differently.
pub(crate) fn invalid_path() -> Rejection {
    let message = "The path holds a control character.";
    Rejection::permanent(StatusCode::BAD_REQUEST, INVALID, "invalid_path", message)
}

/// Rejects a request whose head is invalid.
pub(crate) fn bad_head(bad: BadHead) -> Response<Bytes> {
    let (status, code, message) = match bad {
        BadHead::Malformed => {
            (StatusCode::BAD_REQUEST, "malformed_request", "This is no valid HTTP/1 request.")
        }
        BadHead::Framing => (
            StatusCode::BAD_REQUEST,
            "ambiguous_framing",
            "The request must say where its body ends once: by one Content-Length, or by \
             Transfer-Encoding: chunked.",
        ),
        BadHead::TargetTooLong => {
            (StatusCode::URI_TOO_LONG, "uri_too_long", "The request target is too long.")
        }
        BadHead::TooLarge => (
            StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            "headers_too_large",
            "The request's headers are too large, or too many.",
        ),
    };
    closing(Rejection::permanent(status, INVALID, code, message))
}

pub(crate) fn no_metrics_token() -> Rejection {
    let rejection = Rejection::permanent(
        StatusCode::UNAUTHORIZED,
        INVALID,
        "invalid_token",
        "The admin token or the metrics token is needed.",
    );
    let challenge = HeaderValue::from_static("Bearer");
    rejection.header(header::WWW_AUTHENTICATE, challenge)
}

pub(crate) fn panicked() -> Response<Bytes> {
    render(Rejection::transient(
        StatusCode::INTERNAL_SERVER_ERROR,
        "server_error",
        "internal_error",
        "Something went wrong in the gateway.",
    ))
}

/// Closes the connection after the response, as what follows on it cannot be trusted.
pub(crate) fn closing(rejection: impl Into<Rejection>) -> Response<Bytes> {
    render(rejection.into().header(header::CONNECTION, HeaderValue::from_static("close")))
}

pub(crate) fn render(rejection: Rejection) -> Response<Bytes> {
    rejection.render(&OpenAiErrors)
}
