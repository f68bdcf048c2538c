use std::{error::Error, fmt, io};

use bytes::Bytes;
use http::{Response, StatusCode};
use http_body_util::LengthLimitError;

use crate::error::{Reject, RejectedRequest, Rejection, UpstreamFault};

pub(super) type BoxError = Box<dyn Error + Send + Sync>;

/// The upstream was never reached: name resolution, connecting or TLS failed.
///
/// A transport whose error is, or has in its chain of sources, a `ConnectError` sent no request, so
/// the fault is [`UpstreamFault::Unreached`].
#[derive(Debug)]
pub struct ConnectError(BoxError);

impl ConnectError {
    /// Creates an error with this source.
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

/// Displays an error and its sources in one line.
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

/// Returns the fault of an error of the transport.
pub(super) fn transport_fault(error: &(dyn Error + 'static)) -> UpstreamFault {
    if sources(error).any(is_connect) {
        UpstreamFault::Unreached
    } else if exceeds_limit(error) {
        UpstreamFault::RequestTooLarge
    } else {
        UpstreamFault::Protocol
    }
}

/// Returns the fault of an error of the client's request body.
pub(super) fn request_body_fault(error: &(dyn Error + 'static)) -> UpstreamFault {
    if exceeds_limit(error) {
        UpstreamFault::RequestTooLarge
    } else if sources(error).any(is_disconnect) {
        UpstreamFault::RequestAbandoned
    } else {
        UpstreamFault::RequestBroken
    }
}

/// Whether a body ended with its connection or stream, and not by what was sent.
fn is_disconnect(error: &(dyn Error + 'static)) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, TimedOut, UnexpectedEof};
    #[cfg(feature = "client")]
    if let Some(error) = error.downcast_ref::<hyper::Error>() {
        return error.is_incomplete_message() || error.is_canceled() || error.is_closed();
    }
    #[cfg(feature = "client")]
    if let Some(error) = error.downcast_ref::<h2::Error>() {
        return error.is_remote() || error.is_io();
    }
    let disconnects = [BrokenPipe, ConnectionAborted, ConnectionReset, TimedOut, UnexpectedEof];
    error.downcast_ref::<io::Error>().is_some_and(|error| disconnects.contains(&error.kind()))
}

fn exceeds_limit(error: &(dyn Error + 'static)) -> bool {
    sources(error).any(|error| error.is::<LengthLimitError>())
}

fn is_connect(error: &(dyn Error + 'static)) -> bool {
    #[cfg(feature = "client")]
    if let Some(error) = error.downcast_ref::<h2::Error>() {
        // The upstream has not processed the request (RFC 9113, section 8.7).
        return error.is_remote() && error.reason() == Some(h2::Reason::REFUSED_STREAM);
    }
    error.is::<ConnectError>()
}

/// Returns the rejection for a fault. It keeps the status of the response that it replaces, if the
/// upstream itself reported the failure.
pub(super) fn rejection(fault: UpstreamFault, upstream_status: Option<StatusCode>) -> Rejection {
    let mut rejection = fault.error_code().rejection().with_reason(fault);
    if let UpstreamFault::Failed | UpstreamFault::Unreadable = fault {
        rejection.status = upstream_status.unwrap_or(rejection.status);
    }
    rejection
}

/// Renders the rejection for a fault, and inserts the fault into the extensions.
pub(super) fn fault_response(
    reject: &(impl Reject + ?Sized),
    fault: UpstreamFault,
    rejection: Rejection,
    request: RejectedRequest<'_>,
) -> Response<Bytes> {
    let mut response = rejection.render(reject, request);
    response.extensions_mut().insert(fault);
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_whole_chain_of_sources_is_searched() {
        let io = || std::io::Error::other("connection closed");
        assert_eq!(transport_fault(&io()), UpstreamFault::Protocol);
        let nested = std::io::Error::other(ConnectError::new(io()));
        assert_eq!(transport_fault(&ConnectError::new(nested)), UpstreamFault::Unreached);
        let text = Chain(&ConnectError::new(io())).to_string();
        assert_eq!(text, "connecting to the upstream failed: connection closed");
    }
}
