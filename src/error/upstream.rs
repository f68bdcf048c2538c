use super::{
    Retry,
    catalog::{self, ErrorCode},
};

/// The reason why there is no response of the upstream's that may be forwarded.
///
/// `UpstreamProxyService` inserts it into the response's extensions; the quota's charge policy, the
/// usage recorder and logs read it there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum UpstreamFault {
    /// The upstream was never reached: DNS, connect or TLS failed, or no connection was available.
    /// It did no work.
    Unreached,
    /// The connection broke or the upstream sent invalid HTTP after the request was (partly) sent.
    Protocol,
    /// No response head arrived within the timeout.
    Timeout,
    /// The upstream responded with a 5xx status.
    Failed,
    /// The upstream rejected the gateway's own credential or balance (401, 402).
    Credentials,
    /// The upstream denied the gateway's own account what was requested (403).
    Forbidden,
    /// The upstream limited the gateway itself (429).
    RateLimited,
    /// The upstream responded with a redirect, which is never followed.
    Redirect,
    /// The upstream rejected the request (4xx) in a content coding that cannot be searched for the
    /// credential.
    Unreadable,
    /// The client's request body was larger than allowed, so the request was given up.
    RequestTooLarge,
    /// The client's request body was malformed, so the request was given up.
    RequestBroken,
    /// The client disconnected before the end of its request body.
    RequestAbandoned,
}

impl UpstreamFault {
    /// Returns whether the request may succeed when it is sent again.
    pub fn retry(self) -> Retry {
        self.error_code().retry()
    }

    /// Returns the stable name used as error code, in logs and in usage events.
    pub fn code(self) -> &'static str {
        self.error_code().code()
    }

    /// Returns the code with which the request is rejected.
    pub(crate) fn error_code(self) -> ErrorCode {
        match self {
            Self::Unreached => catalog::UPSTREAM_UNREACHABLE,
            Self::Protocol => catalog::UPSTREAM_PROTOCOL,
            Self::Timeout => catalog::UPSTREAM_TIMEOUT,
            Self::Failed => catalog::UPSTREAM_FAILED,
            Self::Credentials | Self::Forbidden => catalog::UPSTREAM_CREDENTIALS,
            Self::RateLimited => catalog::UPSTREAM_RATE_LIMITED,
            Self::Redirect => catalog::UPSTREAM_REDIRECT,
            Self::Unreadable => catalog::UPSTREAM_UNREADABLE,
            Self::RequestTooLarge => catalog::REQUEST_TOO_LARGE,
            Self::RequestBroken => catalog::REQUEST_BODY_BROKEN,
            Self::RequestAbandoned => catalog::REQUEST_ABANDONED,
        }
    }
}
