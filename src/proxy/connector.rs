use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use http::Uri;
use hyper::rt;
use hyper_util::{client::legacy::connect::Connection, rt::TokioIo};
use tower_service::Service;

use super::{
    connection::Watched,
    error::{BoxError, ConnectError},
    shards::UpstreamProtocol,
};

/// A connector, limited to the end of what it does: with TLS, of the handshake.
#[derive(Clone)]
pub(super) struct Connector<C> {
    inner: C,
    limit: Duration,
    protocol: UpstreamProtocol,
}

impl<C> Connector<C> {
    /// Tells `protocol` what each connection speaks.
    pub(super) fn new(inner: C, limit: Duration, protocol: UpstreamProtocol) -> Self {
        Self { inner, limit, protocol }
    }
}

impl<C, S> Service<Uri> for Connector<C>
where
    C: Service<Uri, Response = S, Error: Into<BoxError>, Future: Send + 'static>,
    S: rt::Read + rt::Write + Connection + Unpin + Send + 'static,
{
    type Response = TokioIo<Watched<S>>;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, BoxError>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.inner.poll_ready(cx).map_err(Into::into)
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let connected = tokio::time::timeout(self.limit, self.inner.call(uri));
        let protocol = self.protocol.clone();
        Box::pin(async move {
            let socket = connected.await.map_err(ConnectError::new)?.map_err(Into::into)?;
            protocol.set(socket.connected().is_negotiated_h2());
            Ok(TokioIo::new(Watched::new(socket)))
        })
    }
}
