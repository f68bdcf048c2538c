//! A transport over hyper-util's pool and rustls.

use std::{
    error::Error,
    fmt,
    future::Future,
    io,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http::{Request, Response, Uri};
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::{
    client::legacy::{self, connect::HttpConnector},
    rt::{TokioExecutor, TokioTimer},
};
use pin_project_lite::pin_project;
use tower_service::Service;

use super::error::BoxError;

/// How an [`UpstreamClient`] connects.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct ClientOptions {
    /// Time for DNS, TCP and TLS together. 5 s by default.
    pub connect_timeout: Duration,
    /// How long an idle connection is kept. 60 s by default.
    pub pool_idle_timeout: Duration,
}

impl Default for ClientOptions {
    fn default() -> Self {
        Self { connect_timeout: Duration::from_secs(5), pool_idle_timeout: Duration::from_secs(60) }
    }
}

/// A pool of HTTP/1.1 and HTTP/2 connections, in clear or with TLS as the URI says. Clones share it.
pub struct UpstreamClient<B> {
    pool: legacy::Client<ConnectTimeout<HttpsConnector<HttpConnector>>, B>,
}

pin_project! {
    /// The body of an upstream's answer.
    #[derive(Debug)]
    pub struct UpstreamBody {
        #[pin]
        inner: Incoming,
    }
}

/// The upstream could not be reached, or the connection failed.
pub struct ClientError(Box<dyn Error + Send + Sync>);

impl<B> UpstreamClient<B>
where
    B: Body<Data: Send> + Send + 'static + Unpin,
    B::Error: Into<BoxError>,
{
    /// A client that trusts the Mozilla root certificates.
    pub fn new(options: ClientOptions) -> Result<Self, ClientError> {
        let mut tcp = HttpConnector::new();
        tcp.enforce_http(false);
        tcp.set_nodelay(true);
        let provider = rustls::crypto::ring::default_provider();
        let tls = HttpsConnectorBuilder::new()
            .with_provider_and_webpki_roots(provider)
            .map_err(|error| ClientError(error.into()))?
            .https_or_http()
            .enable_all_versions()
            .wrap_connector(tcp);
        let connector = ConnectTimeout { inner: tls, limit: options.connect_timeout };
        let pool = legacy::Client::builder(TokioExecutor::new())
            .pool_idle_timeout(options.pool_idle_timeout)
            .pool_timer(TokioTimer::new())
            .timer(TokioTimer::new())
            .build(connector);
        Ok(Self { pool })
    }
}

impl<B> Service<Request<B>> for UpstreamClient<B>
where
    B: Body<Data: Send> + Send + 'static + Unpin,
    B::Error: Into<BoxError>,
{
    type Response = Response<UpstreamBody>;
    type Error = ClientError;
    type Future = ClientFuture;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), ClientError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> ClientFuture {
        ClientFuture { inner: self.pool.request(request) }
    }
}

pin_project! {
    /// Response future of [`UpstreamClient`].
    pub struct ClientFuture {
        #[pin]
        inner: legacy::ResponseFuture,
    }
}

impl Future for ClientFuture {
    type Output = Result<Response<UpstreamBody>, ClientError>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.project().inner.poll(cx).map(|answer| match answer {
            Ok(response) => Ok(response.map(|inner| UpstreamBody { inner })),
            Err(error) => Err(ClientError(error.into())),
        })
    }
}

impl Body for UpstreamBody {
    type Data = Bytes;
    type Error = ClientError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, ClientError>>> {
        let frame = self.project().inner.poll_frame(cx);
        frame.map(|frame| frame.map(|frame| frame.map_err(|error| ClientError(error.into()))))
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

/// Limits the time that a connector takes, TLS included.
#[derive(Clone, Debug)]
struct ConnectTimeout<C> {
    inner: C,
    limit: Duration,
}

impl<C> Service<Uri> for ConnectTimeout<C>
where
    C: Service<Uri>,
    C::Error: Into<BoxError>,
    C::Future: Send + 'static,
{
    type Response = C::Response;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<C::Response, BoxError>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.inner.poll_ready(cx).map_err(Into::into)
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let connecting = tokio::time::timeout(self.limit, self.inner.call(uri));
        Box::pin(async move {
            match connecting.await {
                Ok(connected) => connected.map_err(Into::into),
                Err(_) => Err(io::Error::from(io::ErrorKind::TimedOut).into()),
            }
        })
    }
}

impl<B> Clone for UpstreamClient<B> {
    fn clone(&self) -> Self {
        Self { pool: self.pool.clone() }
    }
}

impl<B> fmt::Debug for UpstreamClient<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("UpstreamClient")
    }
}

impl fmt::Debug for ClientFuture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ClientFuture")
    }
}

impl fmt::Debug for ClientError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ClientError({:?})", self.0)
    }
}

impl fmt::Display for ClientError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl Error for ClientError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        Some(&*self.0)
    }
}
