use http::{
    HeaderMap, HeaderName, StatusCode,
    header::{EXPECT, FORWARDED, HOST, VIA},
};

use crate::error::UpstreamFault;

/// Which headers stop here, beside those of one connection, and which answers are replaced.
///
/// The default is a neutral reverse proxy: forwarding headers that a client sent are dropped, as
/// anybody can write them; redirects are replaced; all else passes.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ProxyRules {
    /// Request headers that do not travel upstream.
    pub request_headers: Vec<HeaderName>,
    /// Response headers that do not travel to the client.
    pub response_headers: Vec<HeaderName>,
    /// Beginnings of names of response headers that do not travel to the client.
    pub response_header_prefixes: Vec<&'static str>,
    /// Which statuses are replaced by an answer of the proxy's own.
    pub fault: fn(StatusCode) -> Option<UpstreamFault>,
}

/// Headers that tell the way of a request; only a trusted proxy may set them.
const FORWARDING: [&str; 8] = [
    "x-forwarded-for",
    "x-forwarded-host",
    "x-forwarded-port",
    "x-forwarded-prefix",
    "x-forwarded-proto",
    "x-forwarded-server",
    "x-real-ip",
    "x-original-url",
];

impl Default for ProxyRules {
    fn default() -> Self {
        let forwarding = FORWARDING.into_iter().map(HeaderName::from_static);
        Self {
            request_headers: forwarding.chain([FORWARDED, VIA]).collect(),
            response_headers: Vec::new(),
            response_header_prefixes: Vec::new(),
            fault: |status| status.is_redirection().then_some(UpstreamFault::Redirect),
        }
    }
}

impl ProxyRules {
    pub(super) fn clean_request(&self, headers: &mut HeaderMap) {
        // The client's library writes its own for the upstream.
        headers.remove(HOST);
        headers.remove(EXPECT);
        for name in &self.request_headers {
            headers.remove(name);
        }
    }

    pub(super) fn clean_response(&self, headers: &mut HeaderMap) {
        for name in &self.response_headers {
            headers.remove(name);
        }
        let stops = |name: &HeaderName| {
            self.response_header_prefixes.iter().any(|prefix| name.as_str().starts_with(prefix))
        };
        let prefixed: Vec<HeaderName> =
            headers.keys().filter(|name| stops(name)).cloned().collect();
        for name in prefixed {
            headers.remove(name);
        }
    }

    /// Why an answer of this status is not passed on. 304 is no redirect.
    pub(super) fn fault(&self, status: StatusCode) -> Option<UpstreamFault> {
        match status {
            StatusCode::NOT_MODIFIED => None,
            status if status.is_informational() => Some(UpstreamFault::Protocol),
            status => (self.fault)(status),
        }
    }
}
