use std::{error::Error, fmt, io};

use bytes::Bytes;
use http::{Response, StatusCode};
use http_body_util::LengthLimitError;

use crate::error::{Reject, Rejection, Retry, UpstreamFault};

pub(super) type BoxError = Box<dyn Error + Send + Sync>;

/// The upstream was never reached: name resolution, connecting or TLS failed.
///
/// A transport whose error is, or has in its chain of sources, a `ConnectError` tells the proxy
/// that no request was sent, which makes the fault [`UpstreamFault::Unreached`].
#[derive(Debug)]
pub struct ConnectError(BoxError);

impl ConnectError {
    /// Connecting failed for this reason.
    pub fn new(source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self(source.into())
    }
}

impl fmt::Display for ConnectError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("connecting to the upstream failed")
    }
}

impl Error for ConnectError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        Some(&*self.0)
    }
}

/// An error and its sources, in one line for the log.
pub(super) struct Chain<'a>(pub(super) &'a (dyn Error + 'static));

impl fmt::Display for Chain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)?;
        sources(self.0).skip(1).try_for_each(|error| write!(f, ": {error}"))
    }
}

fn sources<'a>(
    error: &'a (dyn Error + 'static),
) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    std::iter::successors(Some(error), |&error| error.source())
}

/// What a transport's error means.
pub(super) fn transport_fault(error: &(dyn Error + 'static)) -> UpstreamFault {
    if sources(error).any(is_connect) {
        UpstreamFault::Unreached
    } else if is_over_limit(error) {
        UpstreamFault::RequestTooLarge
    } else {
        UpstreamFault::Protocol
    }
}

/// What an error of the client's own request body means.
pub(super) fn upload_fault(error: &(dyn Error + 'static)) -> UpstreamFault {
    if is_over_limit(error) {
        UpstreamFault::RequestTooLarge
    } else if sources(error).any(has_left) {
        UpstreamFault::RequestAbandoned
    } else {
        UpstreamFault::RequestBroken
    }
}

/// Whether a body ended with its connection or stream, and not by what was sent.
fn has_left(error: &(dyn Error + 'static)) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, TimedOut, UnexpectedEof};
    #[cfg(feature = "client")]
    if let Some(error) = error.downcast_ref::<hyper::Error>() {
        return error.is_incomplete_message() || error.is_canceled() || error.is_closed();
    }
    #[cfg(feature = "client")]
    if let Some(error) = error.downcast_ref::<h2::Error>() {
        return error.is_remote() || error.is_io();
    }
    let left = [BrokenPipe, ConnectionAborted, ConnectionReset, TimedOut, UnexpectedEof];
    error.downcast_ref::<io::Error>().is_some_and(|error| left.contains(&error.kind()))
}

fn is_over_limit(error: &(dyn Error + 'static)) -> bool {
    sources(error).any(|error| error.is::<LengthLimitError>())
}

fn is_connect(error: &(dyn Error + 'static)) -> bool {
    #[cfg(feature = "client")]
    if let Some(error) = error.downcast_ref::<hyper_util::client::legacy::Error>() {
        return error.is_connect();
    }
    #[cfg(feature = "client")]
    if let Some(error) = error.downcast_ref::<h2::Error>() {
        // The upstream has done nothing for it (RFC 9113, section 8.7).
        return error.is_remote() && error.reason() == Some(h2::Reason::REFUSED_STREAM);
    }
    error.is::<ConnectError>()
}

/// The answer that stands for a fault; `upstream` is the status of the replaced answer, which
/// stays if the upstream failed by its own account.
pub(super) fn rejection(fault: UpstreamFault, upstream: Option<StatusCode>) -> Rejection {
    let bad_gateway = StatusCode::BAD_GATEWAY;
    let (status, message) = match fault {
        UpstreamFault::Unreached => (bad_gateway, "The upstream cannot be reached."),
        UpstreamFault::Timeout => {
            (StatusCode::GATEWAY_TIMEOUT, "The upstream took too long to answer.")
        }
        UpstreamFault::Failed => {
            (upstream.unwrap_or(bad_gateway), "The upstream failed; please try again later.")
        }
        UpstreamFault::Credentials | UpstreamFault::Forbidden => (
            bad_gateway,
            "The upstream refuses this gateway's own credential or balance. Your key is fine; \
             please tell whoever gave it to you.",
        ),
        UpstreamFault::RateLimited => (
            StatusCode::SERVICE_UNAVAILABLE,
            "The upstream is limiting this gateway; please try again later.",
        ),
        UpstreamFault::Redirect => {
            (bad_gateway, "The upstream answered with a redirect, which is not followed.")
        }
        UpstreamFault::Unreadable => (
            upstream.unwrap_or(bad_gateway),
            "The upstream refused the request; its reason is compressed in a way that cannot be \
             read here.",
        ),
        UpstreamFault::RequestTooLarge => {
            (StatusCode::PAYLOAD_TOO_LARGE, "The request body is larger than allowed.")
        }
        UpstreamFault::RequestBroken => {
            (StatusCode::BAD_REQUEST, "The request body could not be read.")
        }
        UpstreamFault::RequestAbandoned => {
            (StatusCode::BAD_REQUEST, "The request body broke off before its end.")
        }
        UpstreamFault::Protocol => (bad_gateway, "The upstream's answer could not be read."),
    };
    let kind = match fault {
        UpstreamFault::RequestTooLarge
        | UpstreamFault::RequestBroken
        | UpstreamFault::RequestAbandoned => "invalid_request_error",
        _ => "upstream_error",
    };
    let new = match fault.retry() {
        Retry::Never => Rejection::permanent,
        Retry::Later => Rejection::transient,
    };
    new(status, kind, fault.code(), message)
}

/// The answer in place of the upstream's: it says in its extensions why.
pub(super) fn faulty(
    reject: &(impl Reject + ?Sized),
    fault: UpstreamFault,
    rejection: Rejection,
) -> Response<Bytes> {
    let mut response = rejection.render(reject);
    response.extensions_mut().insert(fault);
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chains_are_searched() {
        let io = || std::io::Error::other("refused");
        assert_eq!(transport_fault(&io()), UpstreamFault::Protocol);
        let nested = std::io::Error::other(ConnectError::new(io()));
        assert_eq!(transport_fault(&ConnectError::new(nested)), UpstreamFault::Unreached);
        let text = Chain(&ConnectError::new(io())).to_string();
        assert_eq!(text, "connecting to the upstream failed: refused");
    }
}
