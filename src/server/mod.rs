//! A server for HTTP/1 and HTTP/2 on one port that holds against slow, broken and hostile clients.
//!
//! [`serve`] runs any Tower service on a Tokio listener. hyper reads and writes the messages; what is here is what an
//! exposed hyper server needs besides.
//!
//! # Rules
//!
//! | what a client does | what happens |
//! |---|---|
//! | sends a head slowly, over HTTP/1 or as HTTP/2 frames | the connection ends 10 seconds after the first byte |
//! | sends or reads a body slowly | it ends after [`Limits::client_timeout`] with less than 1,024 bytes a second |
//! | sends nothing between requests | it is closed after [`Limits::idle_timeout`], unless a request crosses the end |
//! | opens many connections | one source has at most [half](Limits::connections) of them; at the limit the oldest unfinished head, then the longest idle connection gives way, and none with a request in flight |
//! | states the length of a body twice, or in a form that parsers read differently | [`RejectedHead`], then the connection ends |
//! | sends a head of more than 64 KiB, a target of more than 8 KiB, or more than 100 header lines | [`RejectedHead`] |
//! | sends a body that the service does not read | up to 256 KiB are read within a second, so that the connection can be used again; otherwise the response has `Connection: close` |
//! | leaves | the service's future and bodies are dropped, within half a second where nothing is read |
//!
//! A request has its peer's address as the extension [`PeerAddr`]. The bodies of responses to `HEAD`, 204 and 304 are
//! left out over both protocols.
//!
//! # Example
//!
//! ```no_run
//! use std::{convert::Infallible, time::Duration};
//! use bytes::Bytes;
//! use http::{Request, Response};
//! use http_body_util::Full;
//! use tokio::net::TcpListener;
//! use tower::service_fn;
//! use tower_quota::server::{self, Limits, RequestBody, Shutdown};
//!
//! # #[tokio::main]
//! # async fn main() -> std::io::Result<()> {
//! let service = service_fn(async |_: Request<RequestBody>| {
//!     Ok::<_, Infallible>(Response::new(Full::<Bytes>::from("hello\n")))
//! });
//! let listener = TcpListener::bind("127.0.0.1:8080").await?;
//! let shutdown = Shutdown::new();
//! let served = server::serve(listener, service, Limits::new()).shutdown(shutdown.clone());
//! let end = async {
//!     tokio::signal::ctrl_c().await?;
//!     shutdown.close();
//!     tokio::time::sleep(Duration::from_secs(10)).await;
//!     shutdown.abort();
//!     Ok(())
//! };
//! tokio::try_join!(async { Ok(served.await) }, end).map(drop)
//! # }
//! ```

mod activity;
mod body;
mod connection;
mod connection_limit;
mod http1;
mod http2;
mod limits;
mod shutdown;
mod socket;
mod streams;
mod timeout;

use std::{
    fmt,
    future::{Future, IntoFuture, poll_fn},
    io,
    net::{IpAddr, SocketAddr},
    pin::{Pin, pin},
    task::Poll,
    time::Duration,
};

use http::{Request, Response};
use http_body::Body;
use tokio::{
    net::{TcpListener, TcpStream},
    task::JoinSet,
    time::sleep,
};
use tower_service::Service;

pub use self::{body::RequestBody, http1::RejectedHead, limits::Limits, shutdown::Shutdown};
use self::{
    connection::{Connection, Protocols},
    connection_limit::{ConnectionLimit, PendingConnections},
    streams::StreamExecutor,
};
use crate::metrics::{GaugeGuard, names};

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Time for which nothing is accepted after a failure that is not of one connection.
const BACK_OFF: Duration = Duration::from_millis(200);

/// Extension of a request: the address at the other end of the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PeerAddr(SocketAddr);

impl PeerAddr {
    /// Returns the address as the socket has it.
    #[must_use]
    pub fn socket_addr(self) -> SocketAddr {
        self.0
    }

    /// Returns the IP address; an IPv4 address that is mapped to IPv6 as the former.
    #[must_use]
    pub fn ip(self) -> IpAddr {
        self.0.ip().to_canonical()
    }
}

/// Serves clients that connect to `listener`, within `limits`.
///
/// Each request is a call of the service, which is cloned for each connection, and for each further request that is
/// in flight over HTTP/2. There is one task for a connection, and one for a stream of HTTP/2. If the service fails, the
/// connection ends.
///
/// See the [module](self) for the rules and an example.
pub fn serve<S>(listener: TcpListener, service: S, limits: Limits) -> Serve<S> {
    let (shutdown, passes_rejected) = (Shutdown::new(), false);
    Serve { listener, service, limits, shutdown, passes_rejected }
}

/// A server that runs as a future: see [`serve`].
#[must_use = "a server runs when it is awaited"]
pub struct Serve<S> {
    listener: TcpListener,
    service: S,
    limits: Limits,
    shutdown: Shutdown,
    passes_rejected: bool,
}

impl<S> Serve<S> {
    /// Sets the handle with which the server is ended. Without it, the server ends when its future is dropped.
    pub fn shutdown(self, shutdown: Shutdown) -> Self {
        Self { shutdown, ..self }
    }

    /// Calls the service also for requests whose head is rejected, with the reason as the extension [`RejectedHead`],
    /// so that it can make the response. Over HTTP/1 it gets `GET /` in place of the head. By default, the response has
    /// the [status](RejectedHead::status) of the reason and no body.
    pub fn pass_rejected_heads(self) -> Self {
        Self { passes_rejected: true, ..self }
    }
}

impl<S> fmt::Debug for Serve<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Serve")
            .field("listener", &self.listener)
            .field("limits", &self.limits)
            .finish_non_exhaustive()
    }
}

impl<S, B> IntoFuture for Serve<S>
where
    S: Service<Request<RequestBody>, Response = Response<B>> + Clone + Send + 'static,
    S::Error: Into<BoxError>,
    S::Future: Send + 'static,
    B: Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<BoxError>,
{
    type Output = ();
    type IntoFuture = Pin<Box<dyn Future<Output = ()> + Send>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.run())
    }
}

impl<S, B> Serve<S>
where
    S: Service<Request<RequestBody>, Response = Response<B>> + Clone + Send + 'static,
    S::Error: Into<BoxError>,
    S::Future: Send + 'static,
    B: Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<BoxError>,
{
    async fn run(self) {
        let Self { listener, service, limits, shutdown, passes_rejected } = self;
        let limit = ConnectionLimit::new(limits.connections, limits.proxies.clone());
        let streams = StreamExecutor::default();
        let protocols = Protocols::new(streams.clone());
        let open = names::CONNECTIONS.gauge(&[]);
        let mut tasks = JoinSet::new();
        let mut pending = PendingConnections::new();
        let mut accepting = Some(listener);
        let (mut closed, mut aborted) = (pin!(shutdown.closed()), pin!(shutdown.aborted()));
        loop {
            while let Some((peer, socket, permit)) = pending.next(&limit) {
                let connection = Connection {
                    socket,
                    peer,
                    permit,
                    limits: limits.clone(),
                    shutdown: shutdown.clone(),
                    passes_rejected,
                    _open: GaugeGuard::new(&open),
                };
                tasks.spawn(connection.serve(protocols.clone(), service.clone()));
            }
            if accepting.is_none() && tasks.is_empty() && pending.is_empty() {
                break;
            }
            let mut changed = pin!(limit.changed());
            let event = poll_fn(|cx| {
                if let Poll::Ready(Some(_)) = tasks.poll_join_next(cx) {
                    return Poll::Ready(Event::Changed);
                }
                if aborted.as_mut().poll(cx).is_ready() {
                    return Poll::Ready(Event::Aborted);
                }
                if let Some(listener) = &accepting {
                    if closed.as_mut().poll(cx).is_ready() {
                        return Poll::Ready(Event::Closed);
                    }
                    if let Poll::Ready(accepted) = listener.poll_accept(cx) {
                        return Poll::Ready(Event::Accepted(accepted));
                    }
                }
                match pending.is_empty() {
                    true => Poll::Pending,
                    false => changed.as_mut().poll(cx).map(|()| Event::Changed),
                }
            });
            match event.await {
                Event::Changed => {}
                Event::Accepted(Ok((socket, peer))) => {
                    if !pending.push(PeerAddr(peer), socket) {
                        tracing::debug!(%peer, "too many pending connections: dropping one");
                    }
                }
                Event::Accepted(Err(error)) => back_off(&error).await,
                Event::Closed => {
                    accepting = None;
                    let connections = tasks.len();
                    tracing::info!(connections, "listener closed: finishing responses in flight");
                }
                Event::Aborted => break,
            }
        }
        tasks.shutdown().await;
        streams.shutdown().await;
    }
}

enum Event {
    Accepted(io::Result<(TcpStream, SocketAddr)>),
    /// A connection has ended, or a pending one may be admitted.
    Changed,
    Closed,
    Aborted,
}

/// Waits before the next `accept`, unless the error concerns one connection only: retrying at once
/// without file descriptors would only burn CPU.
async fn back_off(error: &io::Error) {
    let is_of_peer = matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionRefused
    );
    if !is_of_peer {
        tracing::error!(%error, "accept failed: accepting no connections for 200 ms");
        sleep(BACK_OFF).await;
    }
}
