use super::Retry;

/// Why the upstream gave no answer that may be passed on.
///
/// `UpstreamProxyService` puts it into the response's extensions; the quota's charge policy, the
/// usage recorder and logs read it there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum UpstreamFault {
    /// Never reached: DNS, connect or TLS failed, or no connection was to be had. The upstream
    /// did no work.
    Unreached,
    /// The connection broke or spoke no valid HTTP after the request was (partly) sent.
    Protocol,
    /// No response head within the time limit.
    Timeout,
    /// It answered with a 5xx status.
    Failed,
    /// It refused the gateway's own credential or balance (401, 402).
    Credentials,
    /// It forbids the gateway's own account what was asked for (403).
    Forbidden,
    /// It limits the gateway itself (429).
    RateLimited,
    /// It answered with a redirect, which is never followed.
    Redirect,
    /// It refused the request (4xx) in a coding in which the credential cannot be looked for.
    Unreadable,
    /// The client's request body was larger than allowed, so the request was given up.
    RequestTooLarge,
    /// The client's request body was malformed, so the request was given up.
    RequestBroken,
    /// The client left before the end of its request body.
    RequestAbandoned,
}

impl UpstreamFault {
    /// One for each code with which a request has failed; the others are its client's doing.
    pub(crate) const FAILURES: [Self; 8] = [
        Self::Unreached,
        Self::Protocol,
        Self::Timeout,
        Self::Failed,
        Self::Credentials,
        Self::RateLimited,
        Self::Redirect,
        Self::Unreadable,
    ];

    /// Whether the request may succeed when it is sent again.
    pub fn retry(self) -> Retry {
        match self {
            Self::Unreached | Self::Protocol | Self::Failed | Self::RateLimited => Retry::Later,
            Self::Timeout
            | Self::Credentials
            | Self::Forbidden
            | Self::Redirect
            | Self::Unreadable
            | Self::RequestTooLarge
            | Self::RequestBroken
            | Self::RequestAbandoned => Retry::Never,
        }
    }

    /// The stable name used as error code, in logs and in usage events.
    pub fn code(self) -> &'static str {
        match self {
            Self::Unreached => "upstream_unreachable",
            Self::Protocol => "upstream_protocol",
            Self::Timeout => "upstream_timeout",
            Self::Failed => "upstream_failed",
            Self::Credentials | Self::Forbidden => "upstream_credentials",
            Self::RateLimited => "upstream_rate_limited",
            Self::Redirect => "upstream_redirect",
            Self::Unreadable => "upstream_refused",
            Self::RequestTooLarge => "request_too_large",
            Self::RequestBroken => "request_body_broken",
            Self::RequestAbandoned => "request_abandoned",
        }
    }
}
