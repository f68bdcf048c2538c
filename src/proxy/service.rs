use std::{
    convert::Infallible,
    fmt,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response, Version, header::AUTHORIZATION};
use http_body::Body;
use tower_service::Service;

use super::{
    ProxyRules, ResponseFuture, UpstreamBase,
    error::{self, BoxError},
    future::ProxyBody,
    headers, uri,
};
use crate::{
    body::ResponseBody,
    error::{ProblemJson, Reject, UpstreamFault},
};

/// Forwards requests to one upstream. See the [module](super) for its rules.
pub struct UpstreamProxyService<T, R = ProblemJson> {
    transport: T,
    shared: Arc<Shared<R>>,
    /// The transport could not be readied: the next call is answered so.
    unready: bool,
}

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

#[derive(Clone)]
pub(super) struct Shared<R> {
    base: UpstreamBase,
    mount: String,
    credential: Option<HeaderValue>,
    pub(super) secret: Option<Arc<[u8]>>,
    pub(super) rules: ProxyRules,
    pub(super) timeouts: Timeouts,
    pub(super) reject: R,
}

impl<T> UpstreamProxyService<T> {
    /// Forwards to `base` through `transport`, with [`ProxyRules::default`], no mount, no
    /// credential and no time limits.
    pub fn new(transport: T, base: UpstreamBase) -> Self {
        let shared = Shared {
            base,
            mount: String::new(),
            credential: None,
            secret: None,
            rules: ProxyRules::default(),
            timeouts: Timeouts::default(),
            reject: ProblemJson,
        };
        Self { transport, shared: Arc::new(shared), unready: false }
    }
}

impl<T, R: Clone> UpstreamProxyService<T, R> {
    fn with(self, change: impl FnOnce(&mut Shared<R>)) -> Self {
        let mut shared = Arc::unwrap_or_clone(self.shared);
        change(&mut shared);
        Self { shared: Arc::new(shared), ..self }
    }

    /// Takes this prefix, for example `/v1`, off the paths that lie below it.
    #[must_use]
    pub fn mount(self, prefix: &str) -> Self {
        self.with(|shared| prefix.trim_end_matches('/').clone_into(&mut shared.mount))
    }

    /// The `Authorization` that the upstream gets. Its secret is masked in answers of 4xx.
    #[must_use]
    pub fn credential(self, mut authorization: HeaderValue) -> Self {
        authorization.set_sensitive(true);
        let bytes = authorization.as_bytes();
        let secret = bytes.rsplit(|byte| *byte == b' ').next().unwrap_or_default();
        let secret = Some(Arc::from(secret));
        self.with(|shared| {
            shared.credential = Some(authorization);
            shared.secret = secret;
        })
    }

    /// Which headers stop here and which answers are replaced.
    #[must_use]
    pub fn rules(self, rules: ProxyRules) -> Self {
        self.with(|shared| shared.rules = rules)
    }

    /// How long the upstream may take.
    #[must_use]
    pub fn timeouts(self, timeouts: Timeouts) -> Self {
        self.with(|shared| shared.timeouts = timeouts)
    }

    /// Renders the proxy's own answers in another form.
    #[must_use]
    pub fn reject<R2>(self, reject: R2) -> UpstreamProxyService<T, R2> {
        let Shared { base, mount, credential, secret, rules, timeouts, .. } =
            Arc::unwrap_or_clone(self.shared);
        let shared = Shared { base, mount, credential, secret, rules, timeouts, reject };
        UpstreamProxyService {
            transport: self.transport,
            shared: Arc::new(shared),
            unready: self.unready,
        }
    }
}

impl<R: Reject> Shared<R> {
    /// The request as the upstream gets it. Extensions stay here: they may hold secrets.
    fn upstream_request<B>(&self, request: Request<B>) -> Result<Request<B>, http::Error> {
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

impl<T, R, ReqBody, ResBody> Service<Request<ReqBody>> for UpstreamProxyService<T, R>
where
    T: Service<Request<ReqBody>, Response = Response<ResBody>>,
    T::Error: Into<BoxError>,
    R: Reject,
    ResBody: Body,
    ResBody::Data: From<Bytes>,
    ResBody::Error: Into<BoxError>,
{
    type Response = Response<ProxyBody<ResBody>>;
    type Error = Infallible;
    type Future = ResponseFuture<T::Future, R, ResBody>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        let ready = ready!(self.transport.poll_ready(cx));
        self.unready = ready.is_err();
        if let Err(error) = ready {
            let error: BoxError = error.into();
            tracing::warn!(%error, "the transport is not ready");
        }
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<ReqBody>) -> Self::Future {
        if std::mem::take(&mut self.unready) {
            return ResponseFuture::answered(self.shared.fault(UpstreamFault::Unreached));
        }
        match self.shared.upstream_request(request) {
            Ok(request) => {
                let future = self.transport.call(request);
                ResponseFuture::waiting(future, self.shared.clone())
            }
            Err(error) => {
                tracing::debug!(%error, "a request that cannot be forwarded");
                ResponseFuture::answered(self.shared.fault(UpstreamFault::RequestBroken))
            }
        }
    }
}

impl<T: Clone, R> Clone for UpstreamProxyService<T, R> {
    fn clone(&self) -> Self {
        Self { transport: self.transport.clone(), shared: self.shared.clone(), unready: false }
    }
}

impl<T, R> fmt::Debug for UpstreamProxyService<T, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("UpstreamProxyService")
            .field("base", &self.shared.base)
            .field("timeouts", &self.shared.timeouts)
            .finish_non_exhaustive()
    }
}
