use std::{
    error::Error,
    fmt,
    future::Future,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use http::{Request, Response, Uri, Version};
use http_body::{Body, Frame, SizeHint};
use hyper::{
    body::Incoming,
    rt::{Read, Write},
};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::{
    client::legacy::{
        self, Client,
        connect::{Connection, HttpConnector},
    },
    rt::{TokioExecutor, TokioTimer},
};
use pin_project_lite::pin_project;
use tower_service::Service;

use super::{
    connection::was_stale,
    connector::Connector,
    error::BoxError,
    exchange::Exchange,
    resend::{Again, Sent},
    shards::{InFlightGuard, MAX_IDLE, Pool, PoolShards, UpstreamProtocol},
};

/// How the ready transport connects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ClientOptions {
    /// The limit for name resolution, TCP and TLS together. 5 s by default.
    pub connect_timeout: Duration,
    /// How long an unused connection is kept, at most 64 of them. 60 s by default.
    pub pool_idle_timeout: Duration,
}

impl Default for ClientOptions {
    fn default() -> Self {
        Self { connect_timeout: Duration::from_secs(5), pool_idle_timeout: Duration::from_secs(60) }
    }
}

impl ClientOptions {
    /// Sets the limit for name resolution, TCP and TLS together.
    #[must_use]
    pub fn connect_timeout(self, connect_timeout: Duration) -> Self {
        Self { connect_timeout, ..self }
    }

    /// Sets how long an unused connection is kept.
    #[must_use]
    pub fn pool_idle_timeout(self, pool_idle_timeout: Duration) -> Self {
        Self { pool_idle_timeout, ..self }
    }
}

/// A pooling HTTP client over any connector: HTTP/1.1 and, where the connection agreed on it, HTTP/2.
///
/// A clone shares the pool. A request that met a connection closed before anything was sent is
/// moved to another one. One that was sent over a connection that the upstream had closed since its
/// last answer is sent again, once, if its method is safe (RFC 9110, section 9.2.1) and it has no body. Apart from that
/// nothing is retried.
pub struct UpstreamClient<B, C = HttpsConnector<HttpConnector>>(PoolShards<B, C>);

/// Makes the transport for an [`UpstreamProxyService`](super::UpstreamProxyService): rustls with
/// ring and Mozilla's root certificates; `http` addresses work too. Must be used within a Tokio
/// runtime.
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

/// The same over a connector of your own: other certificates, a Unix socket, a tunnel. Must be used
/// within a Tokio runtime.
pub fn upstream_client_over<B, C, S>(connector: C, options: ClientOptions) -> UpstreamClient<B, C>
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
        // What the upstream sends ahead of a slow reader is kept in memory.
        .http1_max_buf_size(64 * 1024)
        .http2_initial_stream_window_size(256 * 1024)
        .http2_initial_connection_window_size(32 * 1024 * 1024)
        .http2_keep_alive_interval(Duration::from_secs(30));
    let protocol = UpstreamProtocol::default();
    let connector = Connector::new(connector, options.connect_timeout, protocol.clone());
    UpstreamClient(PoolShards::new(protocol, move || builder.build(connector.clone())))
}

impl<B, C, S> Service<Request<B>> for UpstreamClient<B, C>
where
    B: Body + Send + Unpin + 'static,
    B::Data: Send,
    B::Error: Into<BoxError>,
    C: Service<Uri, Response = S, Error: Into<BoxError>, Future: Send + 'static>,
    C: Clone + Send + Sync + 'static,
    S: Read + Write + Connection + Unpin + Send + 'static,
{
    type Response = Response<UpstreamBody>;
    type Error = ClientError;
    type Future = UpstreamCall<B, C>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), ClientError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> UpstreamCall<B, C> {
        let (mut request, again) = Sent::first(request);
        let exchange = Exchange::of(&mut request);
        let (pool, in_flight) = self.0.enter();
        let call = pool.request(request);
        let again = again.map(|again| Box::new((again, pool.into_owned())));
        UpstreamCall { exchange, call, again, failed: None, in_flight: Some(in_flight) }
    }
}

/// The future of an [`UpstreamClient`]'s answer.
pub struct UpstreamCall<B, C = HttpsConnector<HttpConnector>> {
    /// Is dropped before the call, which may give the connection to another one.
    exchange: Option<Box<Exchange>>,
    call: legacy::ResponseFuture,
    again: Option<Box<(Again, Pool<B, C>)>>,
    /// Why the first attempt failed. It stays the reason if the second fails, too: the upstream may
    /// have seen the first.
    failed: Option<legacy::Error>,
    in_flight: Option<InFlightGuard>,
}

/// Nothing in it is ever pinned.
impl<B, C> Unpin for UpstreamCall<B, C> {}

impl<B, C, S> Future for UpstreamCall<B, C>
where
    B: Body + Send + Unpin + 'static,
    B::Data: Send,
    B::Error: Into<BoxError>,
    C: Service<Uri, Response = S, Error: Into<BoxError>, Future: Send + 'static>,
    C: Clone + Send + Sync + 'static,
    S: Read + Write + Connection + Unpin + Send + 'static,
{
    type Output = Result<Response<UpstreamBody>, ClientError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        loop {
            let error = match ready!(Pin::new(&mut self.call).poll(cx)) {
                Ok(response) => {
                    let exchange = self.exchange.take().map(Exchange::answered);
                    let is_http2 = response.version() == Version::HTTP_2;
                    let in_flight = self.in_flight.take();
                    let body = |inner| UpstreamBody { exchange, is_http2, inner, in_flight };
                    return Poll::Ready(Ok(response.map(body)));
                }
                Err(error) => error,
            };
            match self.again.take() {
                Some(resend) if was_stale(&error) => {
                    let (again, pool) = *resend;
                    tracing::debug!("the connection was stale, the request is sent again");
                    self.call = pool.request(again.request());
                    self.failed = Some(error);
                }
                _ => {
                    let error = self.failed.take().unwrap_or(error);
                    return Poll::Ready(Err(ClientError(error.into())));
                }
            }
        }
    }
}

pin_project! {
    /// The body of an [`UpstreamClient`]'s answer.
    pub struct UpstreamBody {
        exchange: Option<Box<Exchange>>,
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
        // hyper takes a reset with NO_ERROR for the end, wherever it comes.
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

/// What went wrong in an [`UpstreamClient`]; the reason is the source.
#[derive(Debug)]
pub struct ClientError(BoxError);

/// The upstream has given up its answer before the end of it.
#[derive(Debug)]
struct EndedEarly;

impl fmt::Display for EndedEarly {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the answer was reset before its end")
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

impl<B, C: Clone> Clone for UpstreamClient<B, C> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<B, C> fmt::Debug for UpstreamClient<B, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("UpstreamClient")
    }
}

impl fmt::Debug for UpstreamBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("UpstreamBody").field("inner", &self.inner).finish_non_exhaustive()
    }
}

impl<B, C> fmt::Debug for UpstreamCall<B, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("UpstreamCall")
    }
}
