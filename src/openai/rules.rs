use http::{HeaderName, StatusCode};

use crate::{error::UpstreamFault, proxy::ProxyRules};

/// Who the client is, to the gateway or to the upstream's provider: none of the upstream's business.
const IDENTITY: [&str; 8] = [
    "api-key",
    "authorization",
    "cookie",
    "openai-organization",
    "openai-project",
    "x-admin-token",
    "x-api-key",
    "x-trial-key",
];

/// Whose account the gateway uses, and how much of it is left: none of the client's business.
const SPONSOR: [&str; 8] = [
    "alt-svc",
    "location",
    "openai-organization",
    "openai-project",
    "server",
    "set-cookie",
    "strict-transport-security",
    "via",
];

/// The rules of a gateway in front of an OpenAI-compatible API.
///
/// | the upstream answers | the client gets |
/// |---|---|
/// | 401, 402, 403 | 502 `upstream_credentials`: its own key is fine |
/// | 429 | 503 `upstream_rate_limited`, with the upstream's `Retry-After` |
/// | 3xx | 502 `upstream_redirect` |
/// | 5xx | the same status, `upstream_failed` |
/// | anything else | the upstream's answer |
///
/// ```
/// use http::StatusCode;
/// use tower_quota::{error::UpstreamFault, openai};
///
/// let rules = openai::proxy_rules();
/// assert_eq!((rules.fault)(StatusCode::UNAUTHORIZED), Some(UpstreamFault::Credentials));
/// assert_eq!((rules.fault)(StatusCode::BAD_REQUEST), None);
/// ```
pub fn proxy_rules() -> ProxyRules {
    let mut rules = ProxyRules::default();
    rules.request_headers.extend(IDENTITY.map(HeaderName::from_static));
    rules.response_headers.extend(SPONSOR.map(HeaderName::from_static));
    rules.response_header_prefixes.push("x-ratelimit-");
    rules.fault = fault;
    rules
}

fn fault(status: StatusCode) -> Option<UpstreamFault> {
    match status.as_u16() {
        401..=403 => Some(UpstreamFault::Credentials),
        429 => Some(UpstreamFault::RateLimited),
        300..=399 => Some(UpstreamFault::Redirect),
        500..=599 => Some(UpstreamFault::Failed),
        _ => None,
    }
}
