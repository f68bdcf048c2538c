use std::{
    convert::Infallible,
    error::Error,
    fmt,
    sync::Arc,
    task::{Context, Poll, ready},
};

use http::{Request, Response};
use http_body::Body;
use tower_service::Service;

use super::{
    ProxyBody, ProxyRules, RequestBody, ResponseFuture, Timeouts, UpstreamBase, UpstreamCredential,
    cooldown::{CredentialCooldown, Turn},
    error::BoxError,
    error::ConnectError,
    shared::Shared,
    upload::Upload,
};
use crate::error::{ProblemJson, Reject, UpstreamFault};

/// Forwards each request to the upstream over a transport and streams the answer back.
///
/// The transport is any `Service<Request<RequestBody<B>>>` that takes absolute addresses, for
/// example `UpstreamClient`. It is called once for each request. The service never fails: what
/// goes wrong becomes an answer, rendered by `R`, with an [`UpstreamFault`] and a
/// [`Rejected`](crate::error::Rejected) in its extensions.
///
/// [`UpstreamFault`]: crate::error::UpstreamFault
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
pub struct UpstreamProxyService<T, R = ProblemJson> {
    transport: T,
    not_ready: Option<BoxError>,
    shared: Arc<Shared<R>>,
}

impl<T> UpstreamProxyService<T> {
    /// A proxy to `base`: no credential, nothing stripped from paths, neutral rules, answers of
    /// its own as [`ProblemJson`].
    pub fn new(transport: T, base: UpstreamBase) -> Self {
        Self {
            transport,
            not_ready: None,
            shared: Arc::new(Shared {
                base,
                mount: "".into(),
                credential: None,
                rules: ProxyRules::new(),
                timeouts: Timeouts::new(),
                cooldown: None,
                reject: ProblemJson,
            }),
        }
    }
}

impl<T, R: Clone> UpstreamProxyService<T, R> {
    /// The path prefix that the upstream's base path stands for, for example `/v1`. It is taken
    /// off requests that have it, where a segment ends; others keep their whole path.
    #[must_use]
    pub fn mount(self, prefix: &str) -> Self {
        self.with(|shared| shared.mount = prefix.trim_end_matches('/').into())
    }

    /// The `Authorization` that every request to the upstream gets, in place of the client's.
    ///
    /// Its secret part is masked in 4xx answers that pass through, and a header or trailer that holds
    /// it is dropped from every answer. To be searched, a 4xx answer in gzip is decoded; one in any other
    /// `Content-Encoding` is replaced by one of the same status with code `upstream_refused`.
    ///
    /// To be able to replace it later, keep a clone of the [`UpstreamCredential`].
    #[must_use]
    pub fn credential(self, authorization: impl Into<UpstreamCredential>) -> Self {
        self.with(|shared| shared.credential = Some(authorization.into()))
    }

    /// Which headers travel and which answers are replaced.
    #[must_use]
    pub fn rules(self, rules: ProxyRules) -> Self {
        self.with(|shared| shared.rules = rules)
    }

    /// How long the upstream may keep silent.
    #[must_use]
    pub fn timeouts(self, timeouts: Timeouts) -> Self {
        self.with(|shared| shared.timeouts = timeouts)
    }

    /// Answers itself, without asking the upstream, while this remembers that the upstream refuses
    /// the credential: that [the rules](ProxyRules::replace) have judged an answer to be
    /// [`UpstreamFault::Credentials`]. Without it every request is sent.
    #[must_use]
    pub fn credential_cooldown(self, cooldown: CredentialCooldown) -> Self {
        self.with(|shared| shared.cooldown = Some(cooldown))
    }

    /// How the proxy's own answers look.
    #[must_use]
    pub fn reject<R2>(self, reject: R2) -> UpstreamProxyService<T, R2> {
        let shared = Arc::unwrap_or_clone(self.shared);
        UpstreamProxyService {
            transport: self.transport,
            not_ready: None,
            shared: Arc::new(Shared {
                base: shared.base,
                mount: shared.mount,
                credential: shared.credential,
                rules: shared.rules,
                timeouts: shared.timeouts,
                cooldown: shared.cooldown,
                reject,
            }),
        }
    }

    fn with(mut self, change: impl FnOnce(&mut Shared<R>)) -> Self {
        change(Arc::make_mut(&mut self.shared));
        self
    }
}

impl<T, R, B, RB> Service<Request<B>> for UpstreamProxyService<T, R>
where
    T: Service<Request<RequestBody<B>>, Response = Response<RB>>,
    T::Error: Into<Box<dyn Error + Send + Sync>>,
    B: Body,
    RB: Body,
    R: Reject,
{
    type Response = Response<ProxyBody<RB>>;
    type Error = Infallible;
    type Future = ResponseFuture<T::Future, RB, R>;

    /// Waits for the transport. If the transport fails here, the next request is answered with
    /// 502, as it was never sent.
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        if self.not_ready.is_none() {
            let ready = ready!(self.transport.poll_ready(cx));
            self.not_ready = ready.err().map(Into::into);
        }
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let shared = Arc::clone(&self.shared);
        if let Some(error) = self.not_ready.take() {
            let error = ConnectError::new(error);
            let secret = shared.credential.as_ref().and_then(|credential| credential.get().1);
            let answer = shared.failure(&error, &Upload::new(), secret.as_ref());
            return ResponseFuture::answered(answer, request.method().clone(), shared);
        }
        let (mut head, body) = request.into_parts();
        let secret = match shared.prepare(&mut head, &body) {
            Ok(secret) => secret,
            Err(rejection) => {
                let answer = shared.refusal(*rejection);
                return ResponseFuture::answered(answer, head.method, shared);
            }
        };
        let turn = shared.turn();
        if turn == Turn::Refused {
            tracing::debug!("the upstream is not asked: it has just refused the credential");
            let answer = shared.fault(UpstreamFault::Credentials);
            return ResponseFuture::answered(answer, head.method, shared);
        }
        let (body, upload) = RequestBody::new(body, &shared.rules.request);
        let method = head.method.clone();
        let call = self.transport.call(Request::from_parts(head, body));
        ResponseFuture::calling(call, method, upload, turn, shared, secret)
    }
}

impl<T: Clone, R> Clone for UpstreamProxyService<T, R> {
    fn clone(&self) -> Self {
        Self {
            transport: self.transport.clone(),
            not_ready: None,
            shared: Arc::clone(&self.shared),
        }
    }
}

impl<T, R> fmt::Debug for UpstreamProxyService<T, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("UpstreamProxyService").field("shared", &self.shared).finish_non_exhaustive()
    }
}
