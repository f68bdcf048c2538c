//! What went wrong, told from the transport's error and from the upstream's status.

use std::{error::Error, fmt};

use bytes::Bytes;
use http::{HeaderMap, Response, StatusCode, header::RETRY_AFTER};

use crate::error::{Reject, Rejection, UpstreamFault};

pub(super) type BoxError = Box<dyn Error + Send + Sync>;

/// Says that the upstream was never reached. A transport of one's own puts it into the source
/// chain of its errors, so that nobody is charged for such a request.
#[derive(Clone, Copy, Debug, Default)]
pub struct ConnectError;

impl fmt::Display for ConnectError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the upstream was not reached")
    }
}

impl Error for ConnectError {}

/// The fault that a transport's error stands for. What is not known is a broken connection: the
/// upstream may have done its work.
pub(super) fn classify(error: &(dyn Error + 'static)) -> UpstreamFault {
    let found = |is: fn(&(dyn Error + 'static)) -> bool| sources(error).any(is);
    if found(|error| error.is::<http_body_util::LengthLimitError>()) {
        UpstreamFault::RequestTooLarge
    } else if found(is_connect) {
        UpstreamFault::Unreached
    } else if found(is_request_body) {
        UpstreamFault::RequestBroken
    } else {
        UpstreamFault::Protocol
    }
}

/// The error and all that it came from.
fn sources<'a>(
    error: &'a (dyn Error + 'static),
) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    let mut next = Some(error);
    std::iter::from_fn(move || {
        let error = next?;
        next = error.source();
        Some(error)
    })
}

fn is_connect(error: &(dyn Error + 'static)) -> bool {
    #[cfg(feature = "client")]
    if let Some(error) = error.downcast_ref::<hyper_util::client::legacy::Error>() {
        return error.is_connect();
    }
    error.is::<ConnectError>()
}

/// The client's body failed while it was sent on.
#[cfg(feature = "client")]
fn is_request_body(error: &(dyn Error + 'static)) -> bool {
    error.downcast_ref::<hyper::Error>().is_some_and(hyper::Error::is_user)
}

/// Only hyper's errors tell.
#[cfg(not(feature = "client"))]
fn is_request_body(_: &(dyn Error + 'static)) -> bool {
    false
}

/// The answer in place of the upstream's. `status` and `headers` are the upstream's, if it answered.
pub(super) fn answer(
    reject: &impl Reject,
    fault: UpstreamFault,
    status: Option<StatusCode>,
    headers: &HeaderMap,
) -> Response<Bytes> {
    let mut rejection = rejection(fault, status);
    if matches!(fault, UpstreamFault::Failed | UpstreamFault::RateLimited)
        && let Some(retry_after) = headers.get(RETRY_AFTER)
    {
        rejection.headers.insert(RETRY_AFTER, retry_after.clone());
    }
    let mut response = reject.reject(rejection);
    response.extensions_mut().insert(fault);
    response
}

fn rejection(fault: UpstreamFault, status: Option<StatusCode>) -> Rejection {
    const UPSTREAM: &str = "upstream_error";
    const INVALID: &str = "invalid_request_error";
    let (status, kind, message) = match fault {
        UpstreamFault::Unreached => {
            (StatusCode::BAD_GATEWAY, UPSTREAM, "The upstream could not be reached.")
        }
        UpstreamFault::Timeout => {
            (StatusCode::GATEWAY_TIMEOUT, UPSTREAM, "The upstream did not answer in time.")
        }
        UpstreamFault::Failed => (
            status.unwrap_or(StatusCode::BAD_GATEWAY),
            UPSTREAM,
            "The upstream failed to answer the request.",
        ),
        UpstreamFault::Credentials => (
            StatusCode::BAD_GATEWAY,
            UPSTREAM,
            "The upstream refused the gateway's own account; your key is fine.",
        ),
        UpstreamFault::RateLimited => (
            StatusCode::SERVICE_UNAVAILABLE,
            UPSTREAM,
            "The upstream limits the gateway at the moment; your quota is not the reason.",
        ),
        UpstreamFault::Redirect => (
            StatusCode::BAD_GATEWAY,
            UPSTREAM,
            "The upstream answered with a redirect, which is not followed.",
        ),
        UpstreamFault::RequestTooLarge => {
            (StatusCode::PAYLOAD_TOO_LARGE, INVALID, "The request body is too large.")
        }
        UpstreamFault::RequestBroken => {
            (StatusCode::BAD_REQUEST, INVALID, "The request body broke off.")
        }
        UpstreamFault::Protocol => (
            StatusCode::BAD_GATEWAY,
            UPSTREAM,
            "The connection to the upstream broke, or it spoke no valid HTTP.",
        ),
    };
    Rejection::new(status, kind, fault.code(), message)
}
