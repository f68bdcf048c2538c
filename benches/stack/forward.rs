//! The innermost service of every variant: hyper's client only.

use std::{
    net::SocketAddr,
    task::{Context, Poll},
    time::Duration,
};

use http::{
    HeaderValue, Request, Response, Uri, Version,
    header::{AUTHORIZATION, HOST},
    uri::{Authority, InvalidUri, Scheme},
};
use hyper::body::{Body, Incoming};
use hyper_util::{
    client::legacy::{self, Client, connect::HttpConnector},
    rt::{TokioExecutor, TokioTimer},
};
use tower::{BoxError, Service};

/// The sponsor's credential, which replaces the holder's.
pub(crate) const CREDENTIAL: &str = "Bearer sk-sponsor-0123456789abcdef";

/// Forwards requests to one upstream.
pub(crate) struct Forward<B> {
    client: Client<HttpConnector, B>,
    authority: Authority,
    host: HeaderValue,
}

impl<B> Forward<B>
where
    B: Body<Data: Send> + Send,
{
    pub(crate) fn new(upstream: SocketAddr) -> Result<Self, InvalidUri> {
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(Duration::from_secs(600))
            .build(connector);
        let authority: Authority = upstream.to_string().parse()?;
        let host = HeaderValue::from_str(authority.as_str()).expect("an address is visible ASCII");
        Ok(Self { client, authority, host })
    }
}

impl<B> Clone for Forward<B> {
    fn clone(&self) -> Self {
        let Self { client, authority, host } = self;
        Self { client: client.clone(), authority: authority.clone(), host: host.clone() }
    }
}

impl<B> Service<Request<B>> for Forward<B>
where
    B: Body<Data: Send, Error: Into<BoxError>> + Send + Unpin + 'static,
{
    type Response = Response<Incoming>;
    type Error = legacy::Error;
    type Future = legacy::ResponseFuture;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), legacy::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, mut request: Request<B>) -> legacy::ResponseFuture {
        let mut target = std::mem::take(request.uri_mut()).into_parts();
        target.scheme = Some(Scheme::HTTP);
        target.authority = Some(self.authority.clone());
        *request.uri_mut() = Uri::from_parts(target).unwrap_or_default();
        *request.version_mut() = Version::HTTP_11;
        request.headers_mut().insert(HOST, self.host.clone());
        request.headers_mut().insert(AUTHORIZATION, HeaderValue::from_static(CREDENTIAL));
        self.client.request(request)
    }
}
