mod connection;
mod pool;

use std::{
    error::Error,
    fmt,
    future::Future,
    pin::Pin,
    sync::{Arc, Weak},
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use http::{Request, Response, Uri, Version, request::Parts};
use http_body::{Body, Frame, SizeHint};
use hyper::{
    body::Incoming,
    rt::{Read, Write},
};
use hyper_rustls::HttpsConnectorBuilder;
use hyper_util::{
    client::legacy::{
        self, Client,
        connect::{Connection, HttpConnector},
    },
    rt::{TokioExecutor, TokioTimer},
};
use pin_project_lite::pin_project;
use tower_service::Service;

use super::error::BoxError;
use connection::{AbortGuard, Connector, was_stale};
use pool::{InFlightGuard, MAX_IDLE, Pool, PoolShards, UpstreamProtocol};

/// Options of an [`UpstreamClient`]'s connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ClientOptions {
    /// Timeout for name resolution, TCP and TLS together, 5 s by default.
    pub connect_timeout: Duration,
    /// Maximum time for which an idle connection is kept, 60 s by default. At most 64 are kept.
    pub pool_idle_timeout: Duration,
}

impl Default for ClientOptions {
    fn default() -> Self {
        Self { connect_timeout: Duration::from_secs(5), pool_idle_timeout: Duration::from_secs(60) }
    }
}

impl ClientOptions {
    /// Creates the default options.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets the timeout for name resolution, TCP and TLS together.
    #[must_use]
    pub fn connect_timeout(self, connect_timeout: Duration) -> Self {
        Self { connect_timeout, ..self }
    }

    /// Sets the maximum time for which an idle connection is kept.
    #[must_use]
    pub fn pool_idle_timeout(self, pool_idle_timeout: Duration) -> Self {
        Self { pool_idle_timeout, ..self }
    }
}

/// A pooling HTTP client over any connector, for HTTP/1.1 and, where ALPN has negotiated it, HTTP/2.
///
/// Clones share the pool. A request whose connection turns out to be closed before anything was sent
/// moves to another connection. A request on a connection that the upstream had closed since its last
/// response is retried once, if its method is safe (RFC 9110, section 9.2.1) and it has no body. Nothing
/// else is retried.
pub struct UpstreamClient<B>(PoolShards<B>);

/// Creates the transport for an [`UpstreamProxyService`](super::UpstreamProxyService): rustls with ring
/// and Mozilla's root certificates; `http` URLs work, too. It must be used within a Tokio runtime.
///
/// # Errors
///
/// Fails if rustls cannot be set up.
pub fn upstream_client<B>(options: ClientOptions) -> Result<UpstreamClient<B>, ClientError>
where
    B: Body + Send,
    B::Data: Send,
{
    let mut http = HttpConnector::new();
    http.enforce_http(false);
    http.set_nodelay(true);
    let https = HttpsConnectorBuilder::new()
        .with_provider_and_webpki_roots(rustls::crypto::ring::default_provider())
        .map_err(|error| ClientError(error.into()))?
        .https_or_http()
        .enable_all_versions()
        .wrap_connector(http);
    Ok(upstream_client_over(https, options))
}

/// Creates a client over another connector: other certificates, a Unix socket, a tunnel. It must be used
/// within a Tokio runtime.
pub fn upstream_client_over<B, C, S>(connector: C, options: ClientOptions) -> UpstreamClient<B>
where
    B: Body + Send,
    B::Data: Send,
    C: Service<Uri, Response = S, Error: Into<BoxError>, Future: Send + 'static>,
    C: Clone + Send + Sync + 'static,
    S: Read + Write + Connection + Unpin + Send + 'static,
{
    let mut builder = Client::builder(TokioExecutor::new());
    builder
        .timer(TokioTimer::new())
        .pool_timer(TokioTimer::new())
        .pool_idle_timeout(options.pool_idle_timeout)
        .pool_max_idle_per_host(MAX_IDLE)
        // Bounds the memory for what the upstream sends ahead of a slow reader.
        .http1_max_buf_size(64 * 1024)
        .http2_initial_stream_window_size(256 * 1024)
        .http2_initial_connection_window_size(32 * 1024 * 1024)
        .http2_keep_alive_interval(Duration::from_secs(30));
    let protocol = UpstreamProtocol::default();
    let connector = Connector::new(connector, options.connect_timeout, protocol.clone());
    UpstreamClient(PoolShards::new(protocol, move || builder.build(connector.clone())))
}

impl<B> Service<Request<B>> for UpstreamClient<B>
where
    B: Body + Send + Unpin + 'static,
    B::Data: Send,
    B::Error: Into<BoxError>,
{
    type Response = Response<UpstreamBody>;
    type Error = ClientError;
    type Future = UpstreamCall<B>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), ClientError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> UpstreamCall<B> {
        let (mut request, retry) = OutgoingBody::first_attempt(request);
        let abort = AbortGuard::new(&mut request);
        let (pool, in_flight) = self.0.enter();
        let call = pool.request(request);
        let retry = retry.map(|head| Box::new((head, pool.into_owned())));
        UpstreamCall { abort, call, retry, first_error: None, in_flight: Some(in_flight) }
    }
}

/// The response future of an [`UpstreamClient`].
pub struct UpstreamCall<B> {
    /// Must be dropped before the call, which may return the connection to the pool.
    abort: Option<Box<AbortGuard>>,
    call: legacy::ResponseFuture,
    retry: Option<Box<(RetryableHead, Pool<B>)>>,
    /// The error of the first attempt. It is returned if the second fails, too, as the upstream may have
    /// seen the first.
    first_error: Option<legacy::Error>,
    in_flight: Option<InFlightGuard>,
}

/// No field is structurally pinned.
impl<B> Unpin for UpstreamCall<B> {}

impl<B> Future for UpstreamCall<B>
where
    B: Body + Send + Unpin + 'static,
    B::Data: Send,
    B::Error: Into<BoxError>,
{
    type Output = Result<Response<UpstreamBody>, ClientError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        loop {
            let error = match ready!(Pin::new(&mut self.call).poll(cx)) {
                Ok(response) => {
                    let abort = self.abort.take().map(AbortGuard::response_started);
                    let is_http2 = response.version() == Version::HTTP_2;
                    let in_flight = self.in_flight.take();
                    let body = |inner| UpstreamBody { abort, is_http2, inner, in_flight };
                    return Poll::Ready(Ok(response.map(body)));
                }
                Err(error) => error,
            };
            match self.retry.take() {
                Some(retry) if was_stale(&error) => {
                    let (head, pool) = *retry;
                    tracing::debug!("pooled connection was closed: retrying the request");
                    self.call = pool.request(head.into_request());
                    self.first_error = Some(error);
                }
                _ => {
                    let error = self.first_error.take().unwrap_or(error);
                    return Poll::Ready(Err(ClientError(error.into())));
                }
            }
        }
    }
}

pin_project! {
    /// The response body of an [`UpstreamClient`].
    pub struct UpstreamBody {
        abort: Option<Box<AbortGuard>>,
        is_http2: bool,
        #[pin]
        inner: Incoming,
        in_flight: Option<InFlightGuard>,
    }
}

impl Body for UpstreamBody {
    type Data = Bytes;
    type Error = ClientError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, ClientError>>> {
        let mut this = self.project();
        let frame = ready!(this.inner.as_mut().poll_frame(cx));
        // hyper takes a reset with NO_ERROR for the end of the body.
        if frame.is_none() && *this.is_http2 && !this.inner.is_end_stream() {
            return Poll::Ready(Some(Err(ClientError(EndedEarly.into()))));
        }
        Poll::Ready(frame.map(|frame| frame.map_err(|error| ClientError(error.into()))))
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

pin_project! {
    /// A request's body, which is `None` in a retry.
    struct OutgoingBody<B> {
        #[pin]
        body: Option<B>,
        alive: Option<Arc<()>>,
    }
}

/// The head of a request that may be retried.
///
/// The upstream may have seen the first attempt, so only requests with a safe method (RFC 9110, section
/// 9.2.1) and without a body are retried. Idempotent requests are not: they could take effect later
/// than the client expects.
struct RetryableHead(Parts);

impl<B> OutgoingBody<B> {
    /// Returns the request for the first attempt, and its head if it may be retried.
    fn first_attempt(request: Request<B>) -> (Request<Self>, Option<RetryableHead>)
    where
        B: Body,
    {
        let is_retryable = request.method().is_safe() && request.body().is_end_stream();
        let (head, body) = request.into_parts();
        let retry = is_retryable.then(|| RetryableHead(head.clone()));
        (Request::from_parts(head, Self { body: Some(body), alive: None }), retry)
    }

    /// Returns a reference that is dead once the body is dropped.
    fn alive(&mut self) -> Weak<()> {
        Arc::downgrade(self.alive.get_or_insert_default())
    }
}

impl RetryableHead {
    fn into_request<B>(self) -> Request<OutgoingBody<B>> {
        Request::from_parts(self.0, OutgoingBody { body: None, alive: None })
    }
}

impl<B: Body> Body for OutgoingBody<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        match self.project().body.as_pin_mut() {
            Some(body) => body.poll_frame(cx),
            None => Poll::Ready(None),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.body.as_ref().map_or_else(|| SizeHint::with_exact(0), Body::size_hint)
    }
}

/// The error of an [`UpstreamClient`]; the reason is its source.
#[derive(Debug)]
pub struct ClientError(BoxError);

/// The upstream reset the response before its end.
#[derive(Debug)]
struct EndedEarly;

impl fmt::Display for EndedEarly {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the response was reset before its end")
    }
}

impl Error for EndedEarly {}

impl fmt::Display for ClientError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the upstream client failed")
    }
}

impl Error for ClientError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        Some(&*self.0)
    }
}

impl<B> Clone for UpstreamClient<B> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<B> fmt::Debug for UpstreamClient<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("UpstreamClient")
    }
}

impl fmt::Debug for UpstreamBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("UpstreamBody").field("inner", &self.inner).finish_non_exhaustive()
    }
}

impl<B> fmt::Debug for UpstreamCall<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("UpstreamCall")
    }
}
