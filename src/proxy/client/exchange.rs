//! An HTTP/1 connection, which the future of a request, then the body of its response poll along: it has no task.

use std::{
    future::{Future, poll_fn},
    mem,
    pin::{Pin, pin},
    sync::Arc,
    task::{Context, Poll, Waker, ready},
    time::{Duration, Instant},
};

use http::{Request, Response, Uri, header, uri::Parts};
use http_body::Body;
use hyper::{
    body::Incoming,
    client::conn::http1::{Builder, Connection, SendRequest},
};
use hyper_util::rt::TokioIo;
use tokio::task::AbortHandle;

use super::{
    OutgoingBody,
    connection::{Socket, TrackedIo, Traffic},
    pool::{Pool, Target},
};
use crate::proxy::error::BoxError;

/// Age after which a connection is not used again, so that changed addresses of the upstream are noticed.
const MAX_AGE: Duration = Duration::from_secs(3600);

/// A connection that carries one request at a time.
pub(super) struct Exchange<B>
where
    B: Body + 'static,
{
    sender: SendRequest<OutgoingBody<B>>,
    /// `None` once it has ended: what was not sent comes back as it is dropped.
    connection: Option<Connection<TokioIo<TrackedIo>, OutgoingBody<B>>>,
    traffic: Traffic,
    pub(super) target: Target,
    /// Whether requests are sent with a whole URL, as a proxy needs it.
    is_proxied: bool,
    pub(super) is_reused: bool,
    opened_at: Instant,
}

impl<B> Exchange<B>
where
    B: Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<BoxError>,
{
    pub(super) async fn open(socket: Box<dyn Socket>, target: Target) -> hyper::Result<Self> {
        let is_proxied = socket.connected().is_proxied();
        let io = TrackedIo::new(socket);
        let traffic = io.traffic();
        let mut builder = Builder::new();
        // Bounds the memory for what the upstream sends ahead of a slow reader.
        builder.max_buf_size(64 * 1024);
        let (sender, connection) = builder.handshake(TokioIo::new(io)).await?;
        let opened_at = Instant::now();
        let connection = Some(connection);
        Ok(Self { sender, connection, traffic, target, is_proxied, is_reused: false, opened_at })
    }

    /// Sends a request, and returns its response with the body still to come.
    pub(super) async fn send(
        &mut self,
        mut request: Request<OutgoingBody<B>>,
    ) -> Result<Response<Incoming>, NotSent<B>> {
        let uri = mem::take(request.uri_mut());
        request.headers_mut().entry(header::HOST).or_insert_with(|| self.target.host());
        *request.uri_mut() = if self.is_proxied { uri } else { origin_form(uri) };
        request.body_mut().guard = Some(self.traffic.begin_request());
        let mut response = pin!(self.sender.try_send_request(request));
        let mut ended = None;
        let sent = poll_fn(|cx| {
            if let Poll::Ready(end) = self.poll(cx) {
                ended = end.err();
            }
            response.as_mut().poll(cx)
        });
        sent.await.map_err(|mut failed| NotSent {
            request: failed
                .take_message()
                .filter(|_| self.is_reused)
                .map(|request| self.target.absolute(request)),
            was_stale: self.traffic.awaits_response(),
            error: ended.take().unwrap_or_else(|| failed.into_error()),
        })
    }

    /// Whether the body of the request may go on, although the response has come.
    pub(super) fn has_request_body(&self) -> bool {
        self.traffic.has_request_body()
    }

    /// Whether another request may be sent, once the last one has ended.
    pub(super) fn is_reusable(&mut self) -> bool {
        let is_open = self.poll(&mut Context::from_waker(Waker::noop())).is_pending();
        is_open && self.sender.is_ready() && self.opened_at.elapsed() < MAX_AGE
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<hyper::Result<()>> {
        let Some(connection) = &mut self.connection else { return Poll::Ready(Ok(())) };
        let ended = ready!(Pin::new(connection).poll(cx));
        self.connection = None;
        Poll::Ready(ended)
    }
}

/// Returns the path and query, as a server has it in the request line (RFC 9112, section 3.2.1).
fn origin_form(uri: Uri) -> Uri {
    let mut parts = Parts::default();
    parts.path_and_query = uri.into_parts().path_and_query;
    // A path alone is a URI, and so is the default.
    Uri::from_parts(parts).unwrap_or_default()
}

/// The connection of a response whose body has not ended.
pub(super) trait Source: Send {
    /// Moves bytes. Becomes ready when the connection has ended.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()>;

    /// Returns the connection to its pool, if another request may be sent.
    fn end(self: Box<Self>);
}

/// A request without a response.
pub(super) struct NotSent<B> {
    pub(super) error: hyper::Error,
    /// The request, if nothing of it was sent on a connection that was used before: a new one that fails would fail again.
    pub(super) request: Option<Request<OutgoingBody<B>>>,
    /// Whether the upstream had closed the connection before it saw the request.
    pub(super) was_stale: bool,
}

/// The task of a connection on which the request goes on after the head of its response: the server that called may wait
/// for the end of the request before it sends the head on, so that nothing would poll the body. It ends with this, unless
/// the request has ended.
pub(super) struct RequestTask {
    task: AbortHandle,
    traffic: Traffic,
}

impl RequestTask {
    #[expect(
        clippy::disallowed_methods,
        reason = "a task for a request that goes on after its response"
    )]
    pub(super) fn start<B>(mut exchange: Box<Exchange<B>>, pool: Arc<Pool<B>>) -> Self
    where
        B: Body + Send + 'static,
        B::Data: Send,
        B::Error: Into<BoxError>,
    {
        let traffic = exchange.traffic.clone();
        let task = tokio::spawn(async move {
            let is_open = poll_fn(|cx| match exchange.poll(cx) {
                Poll::Ready(_) => Poll::Ready(false),
                Poll::Pending if exchange.sender.is_ready() => Poll::Ready(true),
                Poll::Pending => Poll::Pending,
            });
            if is_open.await {
                Pool::put_back(&pool, exchange);
            }
        });
        Self { task: task.abort_handle(), traffic }
    }
}

impl Drop for RequestTask {
    fn drop(&mut self) {
        if self.traffic.has_request_body() {
            self.task.abort();
        }
    }
}

/// The connection, with its pool.
pub(super) struct Pooled<B>
where
    B: Body + 'static,
{
    pub(super) exchange: Box<Exchange<B>>,
    pub(super) pool: Arc<Pool<B>>,
}

impl<B> Source for Pooled<B>
where
    B: Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<BoxError>,
{
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.exchange.poll(cx).map(drop)
    }

    fn end(self: Box<Self>) {
        Pool::put_back(&self.pool, self.exchange);
    }
}
