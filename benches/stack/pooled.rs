//! hyper-util's composable pool (`client::pool::cache`) as the transport of `UpstreamProxyService`: HTTP/1 over TCP, for
//! comparison with the crate's own client.

use std::{
    future::{Future, poll_fn},
    pin::Pin,
    task::{Context, Poll, ready},
};

use http::{Request, Response, Uri, uri::Authority};
use http_body::{Body, Frame, SizeHint};
use hyper::{
    body::{Bytes, Incoming},
    client::conn::http1::{self, SendRequest},
};
use hyper_util::{
    client::pool::cache,
    rt::{TokioExecutor, TokioIo},
};
use tokio::net::TcpStream;
use tower::{BoxError, Service, service_fn};

/// Creates the transport. All requests go to one upstream: the pool has no keys, and `pool::map`, which cannot be
/// cloned, would need a lock around it.
pub(crate) fn pooled_client<B>() -> impl Service<
    Request<B>,
    Response = Response<impl Body<Data = Bytes, Error = hyper::Error> + Send + 'static>,
    Error = BoxError,
    Future: Send,
> + Clone
+ Send
+ 'static
where
    B: Body<Data: Send, Error: Into<BoxError>> + Send + 'static,
{
    let connect = service_fn(|authority| Box::pin(connect::<B>(authority)));
    let pool = cache::builder().executor(TokioExecutor::new()).build(connect);
    service_fn(move |mut request: Request<B>| {
        let mut pool = pool.clone();
        async move {
            let mut target = std::mem::take(request.uri_mut()).into_parts();
            target.scheme = None;
            let authority = target.authority.take().ok_or("the URL is not absolute")?;
            *request.uri_mut() = Uri::from_parts(target)?;
            // The pool does not know which of its connections are closed.
            let mut connection = loop {
                poll_fn(|cx| pool.poll_ready(cx)).await?;
                let mut connection = pool.call(authority.clone()).await?;
                if poll_fn(|cx| connection.poll_ready(cx)).await.is_ok() {
                    break connection;
                }
            };
            let response = connection.call(request).await?;
            Ok::<_, BoxError>(response.map(|inner| {
                let connection = (!inner.is_end_stream()).then_some(connection);
                PooledBody { inner, connection }
            }))
        }
    })
}

#[expect(clippy::disallowed_methods, reason = "one task per connection, as the pool expects it")]
async fn connect<B>(authority: Authority) -> Result<Connection<B>, BoxError>
where
    B: Body<Data: Send, Error: Into<BoxError>> + Send + 'static,
{
    let socket = TcpStream::connect(authority.as_str()).await?;
    socket.set_nodelay(true)?;
    let (sender, connection) = http1::handshake(TokioIo::new(socket)).await?;
    tokio::spawn(connection);
    Ok(Connection(sender))
}

/// A connection, as the pool keeps it.
struct Connection<B>(SendRequest<B>);

impl<B: Body + Send + 'static> Service<Request<B>> for Connection<B> {
    type Response = Response<Incoming>;
    type Error = hyper::Error;
    type Future = Pin<Box<dyn Future<Output = hyper::Result<Response<Incoming>>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<hyper::Result<()>> {
        self.0.poll_ready(cx)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        Box::pin(self.0.send_request(request))
    }
}

/// A response's body. It holds the connection until it has ended: the pool takes one back whenever it is dropped, and a
/// request that got it during the body would wait for that.
struct PooledBody<C> {
    inner: Incoming,
    connection: Option<C>,
}

impl<C: Unpin> Body for PooledBody<C> {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<hyper::Result<Frame<Bytes>>>> {
        let frame = ready!(Pin::new(&mut self.inner).poll_frame(cx));
        if frame.is_none() || self.inner.is_end_stream() {
            self.connection = None;
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}
