use std::{fmt, sync::Arc};

use http::{StatusCode, response::Parts};

use super::{HeaderRules, framing};
use crate::error::UpstreamFault;

type Judge = dyn Fn(&Parts) -> Option<UpstreamFault> + Send + Sync;

/// Which headers travel, and which of the upstream's answers are replaced.
///
/// The default is neutral: forwarding headers of the request are dropped, and every status passes
/// through. Three kinds of answer never pass, whatever the rules: 1xx (an upgrade cannot be handed
/// on, [`UpstreamFault::Protocol`]), answers that leave open where they end or how they are coded
/// (both `Content-Length` and `Transfer-Encoding`, or a transfer coding other than `chunked`:
/// [`UpstreamFault::Protocol`]), and redirects, which are 3xx but 304 (they lead the client away
/// from the gateway, [`UpstreamFault::Redirect`]).
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
    judge: Option<Arc<Judge>>,
}

impl ProxyRules {
    /// The neutral rules.
    pub fn new() -> Self {
        Self {
            request: Arc::new(HeaderRules::without_forwarding()),
            response: Arc::new(HeaderRules::new()),
            identity_only: false,
            judge: None,
        }
    }

    /// Which request headers do not reach the upstream.
    #[must_use]
    pub fn request_headers(mut self, rules: HeaderRules) -> Self {
        self.request = Arc::new(rules);
        self
    }

    /// Which response headers do not reach the client.
    #[must_use]
    pub fn response_headers(mut self, rules: HeaderRules) -> Self {
        self.response = Arc::new(rules);
        self
    }

    /// Asks the upstream for answers without a content coding (`Accept-Encoding: identity`),
    /// whatever the client accepts.
    #[must_use]
    pub fn identity_only(mut self) -> Self {
        self.identity_only = true;
        self
    }

    /// Judges each response head: `None` lets the answer pass, a fault replaces it. The
    /// upstream's status is kept if the fault is [`UpstreamFault::Failed`], and its `Retry-After`
    /// if the fault is one that passes ([`UpstreamFault::retry`]): at most 60 seconds. A request that
    /// would have to wait longer is not to be sent again.
    #[must_use]
    pub fn replace(
        mut self,
        judge: impl Fn(&Parts) -> Option<UpstreamFault> + Send + Sync + 'static,
    ) -> Self {
        self.judge = Some(Arc::new(judge));
        self
    }

    pub(super) fn fault(&self, head: &Parts) -> Option<UpstreamFault> {
        if head.status.is_informational() || !framing::is_clear(&head.headers) {
            return Some(UpstreamFault::Protocol);
        }
        if head.status.is_redirection() && head.status != StatusCode::NOT_MODIFIED {
            return Some(UpstreamFault::Redirect);
        }
        self.judge.as_ref().and_then(|judge| judge(head))
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
