use std::{fmt, sync::Arc};

use http::{StatusCode, response::Parts};

use super::headers::{HeaderRules, has_unambiguous_length};
use crate::error::UpstreamFault;

type Classify = dyn Fn(&Parts) -> Option<UpstreamFault> + Send + Sync;

/// Rules for which headers are forwarded and which of the upstream's responses are replaced.
///
/// The default is neutral: forwarding headers of the request are removed, and responses with any
/// status are forwarded. Three kinds of response are always replaced:
///
/// - 1xx, as an upgrade cannot be forwarded ([`UpstreamFault::Protocol`]);
/// - responses whose length or transfer coding is ambiguous: both `Content-Length` and
///   `Transfer-Encoding`, or a transfer coding other than `chunked` ([`UpstreamFault::Protocol`]);
/// - redirects, which are 3xx except 304, as they lead the client away from the gateway
///   ([`UpstreamFault::Redirect`]).
///
/// ```
/// use http::{StatusCode, header};
/// use tower_quota::{error::UpstreamFault, proxy::{HeaderRules, ProxyRules}};
///
/// let rules = ProxyRules::new()
///     .request_headers(HeaderRules::without_forwarding().without(header::COOKIE))
///     .replace(|head| (head.status == StatusCode::UNAUTHORIZED).then_some(UpstreamFault::Credentials));
/// ```
#[derive(Clone)]
pub struct ProxyRules {
    pub(super) request: Arc<HeaderRules>,
    pub(super) response: Arc<HeaderRules>,
    pub(super) identity_only: bool,
    classify: Option<Arc<Classify>>,
}

impl ProxyRules {
    /// Creates the neutral rules.
    pub fn new() -> Self {
        Self {
            request: Arc::new(HeaderRules::without_forwarding()),
            response: Arc::new(HeaderRules::new()),
            identity_only: false,
            classify: None,
        }
    }

    /// Sets which request headers do not reach the upstream.
    #[must_use]
    pub fn request_headers(mut self, rules: HeaderRules) -> Self {
        self.request = Arc::new(rules);
        self
    }

    /// Sets which response headers do not reach the client.
    #[must_use]
    pub fn response_headers(mut self, rules: HeaderRules) -> Self {
        self.response = Arc::new(rules);
        self
    }

    /// Requests responses without a content coding (`Accept-Encoding: identity`), whatever the client
    /// accepts.
    #[must_use]
    pub fn identity_only(mut self) -> Self {
        self.identity_only = true;
        self
    }

    /// Sets the function that classifies each response head: `None` forwards the response, a fault
    /// replaces it.
    ///
    /// The upstream's status is kept if the fault is [`UpstreamFault::Failed`], and its `Retry-After`,
    /// of at most 60 seconds, if the fault is transient ([`UpstreamFault::retry`]). With a longer
    /// `Retry-After` the rejection is permanent.
    #[must_use]
    pub fn replace(
        mut self,
        classify: impl Fn(&Parts) -> Option<UpstreamFault> + Send + Sync + 'static,
    ) -> Self {
        self.classify = Some(Arc::new(classify));
        self
    }

    /// Returns the fault for which the response with this head is replaced.
    pub(super) fn fault(&self, head: &Parts) -> Option<UpstreamFault> {
        if head.status.is_informational() || !has_unambiguous_length(&head.headers) {
            return Some(UpstreamFault::Protocol);
        }
        if head.status.is_redirection() && head.status != StatusCode::NOT_MODIFIED {
            return Some(UpstreamFault::Redirect);
        }
        self.classify.as_ref().and_then(|classify| classify(head))
    }
}

impl Default for ProxyRules {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for ProxyRules {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ProxyRules")
            .field("request", &self.request)
            .field("response", &self.response)
            .field("identity_only", &self.identity_only)
            .finish_non_exhaustive()
    }
}
