use std::{sync::Arc, time::Duration};

use http::{HeaderMap, HeaderValue, Request, Response, Version, header::AUTHORIZATION};

use super::{IdleTimeout, MaskedBody, ProxyRules, UpstreamBase, error, headers, uri};
use crate::{
    body::ResponseBody,
    error::{Reject, UpstreamFault},
};

/// The body of an answer: the upstream's, or the proxy's own.
pub(super) type ProxyBody<B> = ResponseBody<MaskedBody<IdleTimeout<B>>>;

/// How long the upstream may take.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Timeouts {
    /// From the call to the answer's head.
    pub head: Option<Duration>,
    /// Between two frames of the answer's body.
    pub idle: Option<Duration>,
}

impl Timeouts {
    /// Limits for the head and between frames.
    pub fn new(head: Duration, idle: Duration) -> Self {
        Self { head: Some(head), idle: Some(idle) }
    }
}

/// What all clones of the service share.
#[derive(Clone)]
pub(super) struct Shared<R> {
    pub(super) base: UpstreamBase,
    pub(super) mount: String,
    pub(super) credential: Option<HeaderValue>,
    pub(super) secret: Option<Arc<[u8]>>,
    pub(super) rules: ProxyRules,
    pub(super) timeouts: Timeouts,
    pub(super) reject: R,
}

impl<R: Reject> Shared<R> {
    /// The request as the upstream gets it. Extensions stay here: they may hold secrets.
    pub(super) fn upstream_request<B>(
        &self,
        request: Request<B>,
    ) -> Result<Request<B>, http::Error> {
        let (head, body) = request.into_parts();
        let path = uri::below(&self.mount, head.uri.path());
        let mut upstream = Request::new(body);
        *upstream.uri_mut() = self.base.join(path, head.uri.query())?;
        *upstream.method_mut() = head.method;
        // The transport's TLS decides on HTTP/2; a request tagged with it could not go otherwise.
        *upstream.version_mut() = Version::HTTP_11;
        let mut headers = head.headers;
        headers::strip_hop_by_hop(&mut headers);
        self.rules.clean_request(&mut headers);
        if let Some(credential) = &self.credential {
            headers.insert(AUTHORIZATION, credential.clone());
        }
        *upstream.headers_mut() = headers;
        Ok(upstream)
    }

    /// The proxy's own answer.
    pub(super) fn fault<B>(&self, fault: UpstreamFault) -> Response<ProxyBody<B>> {
        let answer = error::answer(&self.reject, fault, None, &HeaderMap::new());
        ResponseBody::answer(answer)
    }
}
