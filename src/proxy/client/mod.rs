mod connection;
mod exchange;
mod pool;

use std::{
    error::Error,
    fmt,
    future::Future,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use http::{Request, Response, Uri, request::Parts};
use http_body::{Body, Frame, SizeHint};
use hyper::{
    body::Incoming,
    rt::{Read, Write},
};
use hyper_rustls::HttpsConnectorBuilder;
use hyper_util::client::legacy::connect::{Connection, HttpConnector};
use tower_service::Service;

use super::{body::ReadsConnection, error::BoxError};
use connection::{Connector, RequestBodyGuard};
use exchange::{NotSent, Pooled, RequestTask, Source};
use pool::{Lease, Pool, StreamGuard, Target};

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
/// Clones share the pool. The future of a request and the body of its response move the bytes of an HTTP/1 connection
/// themselves, without a task, so nothing is sent or received unless they are polled.
///
/// A request whose connection turns out to be closed before anything was sent moves to another connection. A request
/// on a connection that the upstream had closed since its last response is retried once, if its method is safe
/// (RFC 9110, section 9.2.1) and it has no body. Nothing else is retried.
pub struct UpstreamClient<B>(Arc<Pool<B>>)
where
    B: Body + 'static;

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
    let connector = Connector::new(connector, options.connect_timeout);
    UpstreamClient(Arc::new(Pool::new(connector, options.pool_idle_timeout)))
}

impl<B> Service<Request<B>> for UpstreamClient<B>
where
    B: Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<BoxError>,
{
    type Response = Response<UpstreamBody>;
    type Error = ClientError;
    type Future = UpstreamCall;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), ClientError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> UpstreamCall {
        UpstreamCall(Box::pin(call(self.0.clone(), request)))
    }
}

/// The response future of an [`UpstreamClient`].
pub struct UpstreamCall(
    Pin<Box<dyn Future<Output = Result<Response<UpstreamBody>, ClientError>> + Send>>,
);

impl Future for UpstreamCall {
    type Output = Result<Response<UpstreamBody>, ClientError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.0.as_mut().poll(cx)
    }
}

/// Sends a request on a connection that is open, and returns its response.
async fn call<B>(
    pool: Arc<Pool<B>>,
    request: Request<B>,
) -> Result<Response<UpstreamBody>, ClientError>
where
    B: Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<BoxError>,
{
    let target =
        Target::of(request.uri()).ok_or_else(|| ClientError::new("the URL is not absolute"))?;
    let (mut request, mut retry) = OutgoingBody::first_attempt(request);
    // It is returned if the second attempt fails, too, as the upstream may have seen the first.
    let mut first_error = None;
    loop {
        let lease = match pool.lease(&target).await {
            Ok(lease) => lease,
            Err(error) => return Err(first_error.unwrap_or(error)),
        };
        let NotSent { error, request: unsent, was_stale } = match lease {
            Lease::Http1(mut exchange) => match exchange.send(request).await {
                Ok(response) if exchange.has_request_body() => {
                    let task = RequestTask::start(exchange, pool);
                    return Ok(response.map(|body| UpstreamBody::of_task(body, task)));
                }
                Ok(response) => {
                    let source = Box::new(Pooled { exchange, pool });
                    let mut response = response.map(|body| UpstreamBody::of_http1(body, source));
                    // Most of known length come in one piece, after which nothing yields, and need no extension for that.
                    if response.body().size_hint().exact().is_none() {
                        response.extensions_mut().insert(ReadsConnection);
                    }
                    return Ok(response);
                }
                Err(failed) => failed,
            },
            Lease::Http2 { mut sender, guard, is_reused } => {
                match sender.try_send_request(request).await {
                    Ok(response) => {
                        return Ok(response.map(|body| UpstreamBody::of_http2(body, guard)));
                    }
                    Err(mut failed) => {
                        let request = failed.take_message().filter(|_| is_reused);
                        NotSent { error: failed.into_error(), request, was_stale: false }
                    }
                }
            }
        };
        let error = ClientError::new(error);
        request = match unsent {
            Some(unsent) => unsent,
            None => match retry.take().filter(|_| was_stale) {
                Some(head) => {
                    tracing::debug!("pooled connection was closed: retrying the request");
                    first_error = Some(error);
                    head.into_request()
                }
                None => return Err(first_error.unwrap_or(error)),
            },
        };
    }
}

/// The response body of an [`UpstreamClient`].
pub struct UpstreamBody {
    inner: Incoming,
    carrier: Carrier,
}

/// What moves the bytes of a body.
enum Carrier {
    /// The connection, until the body has ended. A mutex that is never locked makes it `Sync`.
    Http1(Option<Mutex<Box<dyn Source>>>),
    /// A task, as the request goes on.
    Task { _task: RequestTask },
    /// The task of the connection.
    Http2 { _guard: StreamGuard },
}

impl UpstreamBody {
    fn of_http1(inner: Incoming, source: Box<dyn Source>) -> Self {
        let mut body = Self { inner, carrier: Carrier::Http1(Some(Mutex::new(source))) };
        body.end_if_over();
        body
    }

    fn of_task(inner: Incoming, task: RequestTask) -> Self {
        Self { inner, carrier: Carrier::Task { _task: task } }
    }

    fn of_http2(inner: Incoming, guard: StreamGuard) -> Self {
        Self { inner, carrier: Carrier::Http2 { _guard: guard } }
    }

    /// Gives the connection back once nothing follows.
    fn end_if_over(&mut self) {
        if self.inner.is_end_stream() {
            self.end();
        }
    }

    fn end(&mut self) {
        if let Carrier::Http1(source) = &mut self.carrier
            && let Some(source) = source.take()
        {
            source.into_inner().unwrap_or_else(PoisonError::into_inner).end();
        }
    }

    fn poll_inner(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let frame = Pin::new(&mut self.inner).poll_frame(cx);
        let Carrier::Http1(Some(source)) = &mut self.carrier else { return frame };
        if frame.is_ready() {
            return frame;
        }
        // What it has read is there afterwards, also at its end.
        let _ = source.get_mut().unwrap_or_else(PoisonError::into_inner).poll(cx);
        Pin::new(&mut self.inner).poll_frame(cx)
    }
}

impl Body for UpstreamBody {
    type Data = Bytes;
    type Error = ClientError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, ClientError>>> {
        let this = &mut *self;
        let frame = ready!(this.poll_inner(cx));
        match &frame {
            None => {
                // hyper takes a reset with NO_ERROR for the end of the body.
                if matches!(this.carrier, Carrier::Http2 { .. }) && !this.inner.is_end_stream() {
                    return Poll::Ready(Some(Err(ClientError::new(EndedEarly))));
                }
                this.end();
            }
            Some(Ok(_)) => this.end_if_over(),
            Some(Err(_)) => {}
        }
        Poll::Ready(frame.map(|frame| frame.map_err(ClientError::new)))
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

/// A request's body, which is `None` in a retry.
struct OutgoingBody<B> {
    // Boxed, as each connection has room for 32 requests, which hyper allocates at once.
    body: Option<Pin<Box<B>>>,
    /// Notes the end for the connection.
    guard: Option<RequestBodyGuard>,
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
        (Request::from_parts(head, Self { body: Some(Box::pin(body)), guard: None }), retry)
    }
}

impl RetryableHead {
    fn into_request<B>(self) -> Request<OutgoingBody<B>> {
        Request::from_parts(self.0, OutgoingBody { body: None, guard: None })
    }
}

impl<B: Body> Body for OutgoingBody<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        match &mut self.body {
            Some(body) => body.as_mut().poll_frame(cx),
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

impl ClientError {
    fn new(source: impl Into<BoxError>) -> Self {
        Self(source.into())
    }
}

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

impl<B: Body> Clone for UpstreamClient<B> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<B: Body> fmt::Debug for UpstreamClient<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("UpstreamClient")
    }
}

impl fmt::Debug for UpstreamBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("UpstreamBody").field("inner", &self.inner).finish_non_exhaustive()
    }
}

impl fmt::Debug for UpstreamCall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("UpstreamCall")
    }
}
