use bytes::Bytes;
#[cfg(any(feature = "quota", feature = "usage"))]
use http::HeaderMap;
use http::{HeaderName, HeaderValue, Response, StatusCode, header};

use super::{Reject, RejectedRequest, Rejection};

/// Header or trailer with the status of a remote procedure call.
static GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");
/// Header or trailer with the message of a failed remote procedure call.
const GRPC_MESSAGE: HeaderName = HeaderName::from_static("grpc-message");

/// Renders rejections as gRPC responses that are trailers only: status 200 and no body, with `grpc-status`
/// and `grpc-message` in the head.
///
/// Clients of gRPC understand no other form: a body of JSON is `invalid compression flag` to them. Headers of
/// the rejection, such as the rate headers, are metadata of the response.
///
/// | status of the rejection | status of the call |
/// |---|---|
/// | 400 | `INVALID_ARGUMENT` (3) |
/// | 401 | `UNAUTHENTICATED` (16) |
/// | 402, 413, 429, 431 | `RESOURCE_EXHAUSTED` (8) |
/// | 403 | `PERMISSION_DENIED` (7) |
/// | 404 | `NOT_FOUND` (5) |
/// | 405, 501 | `UNIMPLEMENTED` (12) |
/// | 408, 504 | `DEADLINE_EXCEEDED` (4) |
/// | 409 | `ABORTED` (10) |
/// | 412 | `FAILED_PRECONDITION` (9) |
/// | 500 | `INTERNAL` (13) |
/// | 502, 503 | `UNAVAILABLE` (14) |
/// | any other | `UNKNOWN` (2) |
///
/// The codes are those of [`google.rpc.Code`](https://github.com/googleapis/googleapis/blob/master/google/rpc/code.proto),
/// the form is that of [gRPC over HTTP/2](https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md#responses).
/// A server of other requests, too, chooses by the request's `content-type`, with a renderer of its own.
///
/// ```
/// use http::Request;
/// use tower_quota::error::{GrpcStatus, catalog};
///
/// let request = Request::post("/helloworld.Greeter/SayHello").body(())?;
/// let response = catalog::INVALID_API_KEY.rejection().render(&GrpcStatus, &request);
/// assert_eq!(response.status(), 200);
/// assert_eq!(response.headers()["grpc-status"], "16");
/// assert_eq!(response.headers()["grpc-message"], "The API key is unknown or was deleted.");
/// # Ok::<(), http::Error>(())
/// ```
#[derive(Clone, Copy, Debug, Default)]
pub struct GrpcStatus;

impl Reject for GrpcStatus {
    fn reject(&self, rejection: Rejection, _: RejectedRequest<'_>) -> Response<Bytes> {
        let mut response = Response::new(Bytes::new());
        let headers = response.headers_mut();
        *headers = rejection.headers;
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
        headers.insert(&GRPC_STATUS, code_of(rejection.status).into());
        if let Ok(message) = percent_encoded(&rejection.message).try_into() {
            headers.insert(GRPC_MESSAGE, message);
        }
        response
    }
}

fn code_of(status: StatusCode) -> u16 {
    match status.as_u16() {
        400 => 3,
        401 => 16,
        402 | 413 | 429 | 431 => 8,
        403 => 7,
        404 => 5,
        405 | 501 => 12,
        408 | 504 => 4,
        409 => 10,
        412 => 9,
        500 => 13,
        502 | 503 => 14,
        _ => 2,
    }
}

/// Encodes a message as the header has it: printable ASCII other than `%` as it is, anything else as `%XX`.
fn percent_encoded(message: &str) -> String {
    let mut encoded = String::with_capacity(message.len());
    for byte in message.bytes() {
        match byte {
            b' '..=b'~' if byte != b'%' => encoded.push(byte.into()),
            _ => encoded.push_str(&format!("%{byte:02X}")),
        }
    }
    encoded
}

/// Number of the status `UNKNOWN`, for which clients take a status that they do not know.
#[cfg(any(feature = "quota", feature = "usage"))]
const UNKNOWN: usize = 2;

/// Returns the number of the `grpc-status` in trailers, or in the head of a response that is trailers only.
#[cfg(any(feature = "quota", feature = "usage"))]
fn status_of(headers: &HeaderMap) -> Option<usize> {
    // Few headers are compared faster than the name is hashed, and most responses have no status.
    let (_, status) = headers.iter().find(|(name, _)| *name == GRPC_STATUS)?;
    let status = status.to_str().ok();
    let known = status.and_then(|status| status.parse().ok()).filter(|code| *code <= 16);
    Some(known.unwrap_or(UNKNOWN))
}

/// Returns whether a call has failed because of its server, as far as its trailers say: with `UNKNOWN`,
/// `UNIMPLEMENTED`, `INTERNAL`, `UNAVAILABLE` or `DATA_LOSS`.
#[cfg(feature = "quota")]
pub(crate) fn is_server_failure(trailers: &HeaderMap) -> bool {
    matches!(status_of(trailers), Some(UNKNOWN | 12..=15))
}

/// Returns the status of a failed call, as usage events and metrics name it.
#[cfg(feature = "usage")]
pub(crate) fn failure_reason(trailers: &HeaderMap) -> Option<&'static str> {
    const REASONS: [&str; 16] = [
        "grpc_cancelled",
        "grpc_unknown",
        "grpc_invalid_argument",
        "grpc_deadline_exceeded",
        "grpc_not_found",
        "grpc_already_exists",
        "grpc_permission_denied",
        "grpc_resource_exhausted",
        "grpc_failed_precondition",
        "grpc_aborted",
        "grpc_out_of_range",
        "grpc_unimplemented",
        "grpc_internal",
        "grpc_unavailable",
        "grpc_data_loss",
        "grpc_unauthenticated",
    ];
    REASONS.get(status_of(trailers)?.checked_sub(1)?).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_percent_encoded() {
        for (message, encoded) in [
            ("plain ~ text", "plain ~ text"),
            ("100 %\n", "100 %25%0A"),
            ("额度", "%E9%A2%9D%E5%BA%A6"),
        ] {
            assert_eq!(percent_encoded(message), encoded);
        }
    }
}
