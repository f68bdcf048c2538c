use std::{
    convert::Infallible,
    fmt,
    sync::Arc,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http::{HeaderValue, Request, Response};
use http_body::Body;
use tower_service::Service;

use super::{
    ProxyRules, ResponseFuture, Timeouts, UpstreamBase,
    error::BoxError,
    shared::{ProxyBody, Shared},
};
use crate::error::{ProblemJson, Reject, UpstreamFault};

/// Forwards requests to one upstream. See the [module](super) for its rules.
pub struct UpstreamProxyService<T, R = ProblemJson> {
    transport: T,
    shared: Arc<Shared<R>>,
    /// The transport could not be readied: the next call is answered so.
    unready: bool,
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
