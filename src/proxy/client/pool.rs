//! Connections that wait for a request, and those that HTTP/2 requests share.

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicU8, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use http::{
    HeaderValue, Request, Uri,
    uri::{Authority, PathAndQuery, Scheme},
};
use http_body::Body;
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::{sync::Semaphore, time::sleep};

use super::{
    ClientError, OutgoingBody,
    connection::{Connector, Socket, TrackedIo},
    exchange::Exchange,
};
use crate::proxy::error::{BoxError, ConnectError};

/// Maximum number of requests on an HTTP/2 connection: upstreams commonly allow 100 streams, and hyper lets
/// further requests wait. Their windows together fit into the connection's, so that a stalled reader does
/// not stop the others.
const MAX_STREAMS: usize = 64;
/// Maximum number of idle connections.
const MAX_IDLE: usize = 64;
/// Interval at which idle connections are looked at: an upstream that has closed one must not wait for long.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// What a connection leads to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Target {
    scheme: Scheme,
    authority: Authority,
}

impl Target {
    /// Returns the target of a URL, or `None` if that is not absolute.
    pub(super) fn of(uri: &Uri) -> Option<Self> {
        Some(Self { scheme: uri.scheme()?.clone(), authority: uri.authority()?.clone() })
    }

    /// Returns the value of `Host` (RFC 9110, section 7.2).
    pub(super) fn host(&self) -> HeaderValue {
        let host = self.authority.host();
        let default = if self.scheme == Scheme::HTTPS { 443 } else { 80 };
        let value = match self.authority.port_u16().filter(|port| *port != default) {
            Some(port) => HeaderValue::try_from(format!("{host}:{port}")),
            None => HeaderValue::from_str(host),
        };
        // A host has no characters that a header has not.
        value.unwrap_or_else(|_| HeaderValue::from_static(""))
    }

    /// Returns the URL that the connector connects to.
    fn uri(self) -> Result<Uri, http::Error> {
        self.url(PathAndQuery::from_static("/"))
    }

    /// Returns the request with its whole URL, of which another connection may need more than the path.
    pub(super) fn absolute<B>(&self, mut request: Request<B>) -> Request<B> {
        let path = request.uri().path_and_query().cloned();
        let url = path.and_then(|path| self.clone().url(path).ok());
        if let Some(url) = url {
            *request.uri_mut() = url;
        }
        request
    }

    fn url(self, path: PathAndQuery) -> Result<Uri, http::Error> {
        Uri::builder().scheme(self.scheme).authority(self.authority).path_and_query(path).build()
    }
}

/// The connections of a client.
pub(super) struct Pool<B>
where
    B: Body + 'static,
{
    connector: Connector,
    idle_timeout: Duration,
    connections: Mutex<Connections<B>>,
    /// The protocol of the latest connection.
    protocol: AtomicU8,
    /// Of requests that might share a connection, one opens it and the others wait.
    opening: Semaphore,
    failures: Mutex<Failures>,
}

/// Failures to open a connection for which others have waited.
#[derive(Default)]
struct Failures {
    count: u64,
    last: Option<Arc<ConnectError>>,
}

const HTTP_1: u8 = 1;
const HTTP_2: u8 = 2;

struct Connections<B>
where
    B: Body + 'static,
{
    /// In the order in which they became idle.
    idle: Vec<(Instant, Box<Exchange<B>>)>,
    shared: Vec<Shared<B>>,
    is_looked_at: bool,
}

/// An HTTP/2 connection.
struct Shared<B> {
    target: Target,
    sender: http2::SendRequest<OutgoingBody<B>>,
    in_flight: Arc<AtomicUsize>,
    used_at: Instant,
}

/// A connection for a request.
pub(super) enum Lease<B>
where
    B: Body + 'static,
{
    Http1(Box<Exchange<B>>),
    Http2 { sender: http2::SendRequest<OutgoingBody<B>>, guard: StreamGuard, is_reused: bool },
}

/// Counts a request on its HTTP/2 connection until it is dropped.
#[derive(Debug)]
pub(super) struct StreamGuard(Arc<AtomicUsize>);

impl Drop for StreamGuard {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl<B> Pool<B>
where
    B: Body + 'static,
{
    pub(super) fn new(connector: Connector, idle_timeout: Duration) -> Self {
        let connections = Connections { idle: Vec::new(), shared: Vec::new(), is_looked_at: false };
        Self {
            connector,
            idle_timeout,
            connections: Mutex::new(connections),
            protocol: AtomicU8::new(0),
            opening: Semaphore::new(1),
            failures: Mutex::default(),
        }
    }

    fn connections(&self) -> MutexGuard<'_, Connections<B>> {
        self.connections.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn failures(&self) -> MutexGuard<'_, Failures> {
        self.failures.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<B> Pool<B>
where
    B: Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<BoxError>,
{
    /// Returns an idle or a new connection to `target`.
    pub(super) async fn lease(self: &Arc<Self>, target: &Target) -> Result<Lease<B>, ClientError> {
        if let Some(lease) = self.reuse(target) {
            return Ok(lease);
        }
        let failures = self.failures().count;
        let permit = match self.protocol.load(Ordering::Relaxed) {
            HTTP_1 => None,
            _ => Some(self.opening.acquire().await.map_err(ClientError::new)?),
        };
        if permit.is_some() {
            if let Some(lease) = self.reuse(target) {
                return Ok(lease);
            }
            let Failures { count, last } = &*self.failures();
            // Otherwise each that has waited would try by itself, for as long.
            if *count > failures
                && let Some(error) = last
            {
                return Err(ClientError::new(ConnectError::new(error.clone())));
            }
        }
        let uri = target.clone().uri().map_err(ClientError::new)?;
        let socket = match self.connector.connect(uri).await {
            Ok(socket) => socket,
            Err(error) if permit.is_some() => return Err(self.failed(error)),
            Err(error) => return Err(ClientError::new(error)),
        };
        let is_http2 = socket.connected().is_negotiated_h2();
        self.protocol.store(if is_http2 { HTTP_2 } else { HTTP_1 }, Ordering::Relaxed);
        if is_http2 {
            return self.share(socket, target).await;
        }
        drop(permit);
        let exchange = Exchange::open(socket, target.clone()).await.map_err(ClientError::new)?;
        Ok(Lease::Http1(Box::new(exchange)))
    }

    /// Notes a failure for those that have waited.
    fn failed(&self, error: ConnectError) -> ClientError {
        let error = Arc::new(error);
        let mut failures = self.failures();
        failures.count += 1;
        failures.last = Some(error.clone());
        ClientError::new(ConnectError::new(error))
    }

    fn reuse(&self, target: &Target) -> Option<Lease<B>> {
        loop {
            let mut connections = self.connections();
            if let Some(lease) = connections.join(target, true) {
                return Some(lease);
            }
            let mut idle = connections.idle.iter();
            let position = idle.rposition(|(_, exchange)| exchange.target == *target)?;
            let (_, mut exchange) = connections.idle.remove(position);
            drop(connections);
            if exchange.is_reusable() {
                exchange.is_reused = true;
                return Some(Lease::Http1(exchange));
            }
        }
    }

    /// Opens an HTTP/2 connection, which is driven by a task, as its requests share it.
    #[expect(clippy::disallowed_methods, reason = "one task for each HTTP/2 connection")]
    async fn share(
        self: &Arc<Self>,
        socket: Box<dyn Socket>,
        target: &Target,
    ) -> Result<Lease<B>, ClientError> {
        let mut builder = http2::Builder::new(TokioExecutor::new());
        builder
            .timer(TokioTimer::new())
            .initial_stream_window_size(256 * 1024)
            .initial_connection_window_size(32 * 1024 * 1024)
            .keep_alive_interval(Duration::from_secs(30));
        let io = TokioIo::new(TrackedIo::new(socket));
        let (sender, connection) = builder.handshake(io).await.map_err(ClientError::new)?;
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "HTTP/2 connection to the upstream failed");
            }
        });
        let shared = Shared {
            target: target.clone(),
            sender,
            in_flight: Arc::default(),
            used_at: Instant::now(),
        };
        let mut connections = self.connections();
        connections.shared.push(shared);
        self.look_after(&mut connections);
        let lease = connections.join(target, false);
        lease.ok_or_else(|| ClientError::new("the upstream has closed a new connection"))
    }

    /// Keeps a connection whose request has ended, if another one may be sent.
    pub(super) fn put_back(self: &Arc<Self>, mut exchange: Box<Exchange<B>>) {
        if !exchange.is_reusable() {
            return;
        }
        let mut connections = self.connections();
        let oldest = (connections.idle.len() >= MAX_IDLE).then(|| connections.idle.remove(0));
        connections.idle.push((Instant::now(), exchange));
        self.look_after(&mut connections);
        drop(connections);
        drop(oldest);
    }

    /// Starts the task that ends idle connections, unless it runs. It ends with the last connection.
    #[expect(clippy::disallowed_methods, reason = "one task for each client")]
    fn look_after(self: &Arc<Self>, connections: &mut Connections<B>) {
        if std::mem::replace(&mut connections.is_looked_at, true) {
            return;
        }
        let pool = Arc::downgrade(self);
        tokio::spawn(async move {
            loop {
                sleep(LOOK_INTERVAL).await;
                let Some(pool) = Weak::upgrade(&pool) else { return };
                if !pool.look() {
                    return;
                }
            }
        });
    }

    /// Ends connections that were idle for too long, or that the upstream has closed. Returns whether any is left.
    fn look(&self) -> bool {
        let connections = &mut *self.connections();
        let timeout = self.idle_timeout;
        connections
            .idle
            .retain_mut(|(since, exchange)| since.elapsed() < timeout && exchange.is_reusable());
        connections.shared.retain_mut(|shared| {
            if shared.in_flight.load(Ordering::Relaxed) > 0 {
                shared.used_at = Instant::now();
            }
            !shared.sender.is_closed() && shared.used_at.elapsed() < timeout
        });
        connections.is_looked_at = !connections.idle.is_empty() || !connections.shared.is_empty();
        connections.is_looked_at
    }
}

impl<B> Connections<B>
where
    B: Body + 'static,
{
    /// Returns an HTTP/2 connection with room for another request.
    fn join(&mut self, target: &Target, is_reused: bool) -> Option<Lease<B>> {
        let has_room = |shared: &&mut Shared<B>| {
            shared.target == *target
                && !shared.sender.is_closed()
                && shared.in_flight.load(Ordering::Relaxed) < MAX_STREAMS
        };
        let shared = self.shared.iter_mut().find(has_room)?;
        shared.used_at = Instant::now();
        shared.in_flight.fetch_add(1, Ordering::Relaxed);
        let guard = StreamGuard(shared.in_flight.clone());
        Some(Lease::Http2 { sender: shared.sender.clone(), guard, is_reused })
    }
}
