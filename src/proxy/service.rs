use std::{
    convert::Infallible,
    error::Error,
    fmt, mem,
    sync::Arc,
    task::{Context, Poll, ready},
};

use http::{Request, Response};
use http_body::Body;
use tower_service::Service;

use super::{
    ProxyRules, RequestBody, ResponseBody, ResponseFuture, Timeouts, UpstreamBase,
    UpstreamCredential,
    body::RequestProgress,
    credential::{CredentialCooldown, Decision},
    error::{BoxError, ConnectError},
    forward::Config,
    future::ForwardedRequest,
};
use crate::error::{ProblemJson, Reject, RejectedRequest, UpstreamFault};

/// Forwards each request to the upstream over a transport and streams the response back.
///
/// The transport is any `Service<Request<RequestBody<B>>>` that accepts absolute URLs, for example
/// `UpstreamClient`. It is called once for each request. The service never fails: failures become
/// responses with an [`UpstreamFault`] and a [`Rejected`](crate::error::Rejected)
/// in their extensions.
///
/// ```
/// use bytes::Bytes;
/// use http::{HeaderValue, Request, Response};
/// use http_body_util::{BodyExt, Full};
/// use tower::{ServiceExt, service_fn};
/// use tower_quota::proxy::{RequestBody, UpstreamProxyService};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let transport = service_fn(|request: Request<RequestBody<Full<Bytes>>>| async move {
///     assert_eq!(request.uri(), "https://api.example.com/v1/models?limit=2");
///     assert_eq!(request.headers()["authorization"], "Bearer sponsor");
///     Ok::<_, std::io::Error>(Response::new(Full::new(Bytes::from("[]"))))
/// });
/// let proxy = UpstreamProxyService::new(transport, "https://api.example.com/v1".parse()?)
///     .mount("/v1")
///     .credential(HeaderValue::from_static("Bearer sponsor"));
///
/// let request = Request::get("/v1/models?limit=2")
///     .header("host", "gateway.example")
///     .body(Full::default())?;
/// let response = proxy.oneshot(request).await?;
/// assert_eq!(response.status(), 200);
/// let body = response.into_body().collect().await.unwrap();
/// assert_eq!(body.to_bytes(), "[]");
/// # Ok(())
/// # }
/// ```
pub struct UpstreamProxyService<T> {
    transport: T,
    not_ready: Option<BoxError>,
    config: Arc<Config>,
}

impl<T> UpstreamProxyService<T> {
    /// Creates a proxy to `base` without a credential or a mount, with neutral rules, and with
    /// [`ProblemJson`] as the renderer of rejections.
    pub fn new(transport: T, base: UpstreamBase) -> Self {
        Self {
            transport,
            not_ready: None,
            config: Arc::new(Config {
                base,
                mount: "".into(),
                credential: None,
                rules: ProxyRules::new(),
                timeouts: Timeouts::new(),
                cooldown: None,
                reject: Arc::new(ProblemJson),
            }),
        }
    }

    /// Returns a reference to the transport.
    pub fn get_ref(&self) -> &T {
        &self.transport
    }

    /// Returns a mutable reference to the transport.
    pub fn get_mut(&mut self) -> &mut T {
        &mut self.transport
    }

    /// Returns the transport.
    pub fn into_inner(self) -> T {
        self.transport
    }

    /// Sets the path prefix that the upstream's base path replaces, for example `/v1`. It must end where
    /// a segment ends; requests without it keep their whole path.
    #[must_use]
    pub fn mount(self, prefix: &str) -> Self {
        self.with(|config| config.mount = prefix.trim_end_matches('/').into())
    }

    /// Sets the `Authorization` of every request to the upstream, in place of the client's.
    ///
    /// Its secret part is masked in the bodies of 4xx responses, and headers and trailers that contain
    /// it are removed from every response. For that a 4xx response in gzip is decoded; one in another
    /// `Content-Encoding` is replaced by one of the same status with the code `upstream_refused`.
    ///
    /// To replace the credential later, keep a clone of the [`UpstreamCredential`].
    #[must_use]
    pub fn credential(self, authorization: impl Into<UpstreamCredential>) -> Self {
        self.with(|config| config.credential = Some(authorization.into()))
    }

    /// Sets which headers are forwarded and which responses are replaced.
    #[must_use]
    pub fn rules(self, rules: ProxyRules) -> Self {
        self.with(|config| config.rules = rules)
    }

    /// Sets the timeouts of requests to the upstream.
    #[must_use]
    pub fn timeouts(self, timeouts: Timeouts) -> Self {
        self.with(|config| config.timeouts = timeouts)
    }

    /// Rejects requests without sending them for a while after the upstream rejected the credential:
    /// after [the rules](ProxyRules::replace) have classified a response as
    /// [`UpstreamFault::Credentials`]. Without a cooldown every request is sent.
    #[must_use]
    pub fn credential_cooldown(self, cooldown: CredentialCooldown) -> Self {
        self.with(|config| config.cooldown = Some(cooldown))
    }

    /// Sets the renderer of rejections.
    #[must_use]
    pub fn reject(self, reject: impl Reject) -> Self {
        self.with(|config| config.reject = Arc::new(reject))
    }

    fn with(mut self, change: impl FnOnce(&mut Config)) -> Self {
        change(Arc::make_mut(&mut self.config));
        self
    }
}

impl<T, B, RB> Service<Request<B>> for UpstreamProxyService<T>
where
    T: Service<Request<RequestBody<B>>, Response = Response<RB>>,
    T::Error: Into<Box<dyn Error + Send + Sync>>,
    B: Body,
    RB: Body,
{
    type Response = Response<ResponseBody<RB>>;
    type Error = Infallible;
    type Future = ResponseFuture<T::Future, RB>;

    /// Waits for the transport. If the transport fails here, the next request is rejected with 502, as
    /// it was never sent.
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        if self.not_ready.is_none() {
            let ready = ready!(self.transport.poll_ready(cx));
            self.not_ready = ready.err().map(Into::into);
        }
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let config = Arc::clone(&self.config);
        if let Some(error) = self.not_ready.take() {
            let error = ConnectError::new(error);
            let secret = config.credential.as_ref().and_then(|credential| credential.get().1);
            let progress = RequestProgress::new();
            let rejected = RejectedRequest::from(&request);
            let response = config.transport_error(&error, &progress, secret.as_ref(), rejected);
            return ResponseFuture::ready(response, request.method().clone(), config);
        }
        let (mut head, body) = request.into_parts();
        let secret = match config.prepare_request(&mut head, &body) {
            Ok(secret) => secret,
            Err(rejection) => {
                let response = rejection.render(&*config.reject, &head);
                return ResponseFuture::ready(response, head.method, config);
            }
        };
        // They belong to the layers of this server and may hold secrets.
        let extensions = mem::take(&mut head.extensions);
        let decision = config.decide();
        if decision == Decision::Reject {
            tracing::debug!("credential was rejected recently: not sending the request");
            let rejected = RejectedRequest::forwarded(&head.method, &extensions);
            let response = config.fault(UpstreamFault::Credentials, rejected);
            return ResponseFuture::ready(response, head.method, config);
        }
        let (body, progress) = RequestBody::new(body, &config.rules.request);
        let forwarded = ForwardedRequest { method: head.method.clone(), extensions };
        let call = self.transport.call(Request::from_parts(head, body));
        ResponseFuture::calling(call, forwarded, progress, decision, config, secret)
    }
}

impl<T: Clone> Clone for UpstreamProxyService<T> {
    fn clone(&self) -> Self {
        Self {
            transport: self.transport.clone(),
            not_ready: None,
            config: Arc::clone(&self.config),
        }
    }
}

impl<T> fmt::Debug for UpstreamProxyService<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("UpstreamProxyService").field("config", &self.config).finish_non_exhaustive()
    }
}
