//! Serves one connection of a client.

use std::{net::IpAddr, pin::pin, time::Duration};

use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Version, header};
use http_body::Body;
use hyper::{body::Incoming, service::service_fn};
use hyper_util::{rt::TokioIo, server::conn::auto::Builder};
use tokio::{net::TcpStream, sync::watch};
use tower::{BoxError, Service, ServiceExt};

use crate::{
    activity::{Activity, CloseReason},
    client_body::{ClientBody, UnreadBody, share_body},
    client_socket::ClientSocket,
    connection_limit::ConnectionPermit,
    http1::ValidatedIo,
    min_rate::MinRateTimeout,
    server::{Draining, PeerAddr, StreamExecutor},
};

/// Idle timeout of a connection during a graceful shutdown.
const DRAIN_IDLE_TIMEOUT: Duration = Duration::from_secs(5);
/// Idle timeout of an HTTP/2 connection that is being evicted.
const EVICTION_TIMEOUT: Duration = Duration::from_secs(1);

/// An accepted connection.
pub(crate) struct Connection {
    pub(crate) socket: TcpStream,
    pub(crate) peer: IpAddr,
    pub(crate) permit: ConnectionPermit,
    pub(crate) timeouts: Timeouts,
    pub(crate) draining: Draining,
}

/// Timeouts of a connection.
#[derive(Clone, Copy)]
pub(crate) struct Timeouts {
    /// Maximum time that a client may stall a request body, or not read a response body.
    pub(crate) client: Duration,
    /// Maximum time between two requests.
    pub(crate) idle: Duration,
}

impl Connection {
    /// Serves the connection until it ends or a timeout expires.
    pub(crate) async fn serve<S, B>(
        self,
        builder: Builder<StreamExecutor>,
        service: S,
        mut shutdown: watch::Receiver<bool>,
    ) where
        S: Service<Request<ClientBody>, Response = Response<B>> + Clone + Send + 'static,
        S::Error: Into<BoxError>,
        S::Future: Send,
        B: Body + Send + 'static,
        B::Data: Send,
        B::Error: Into<BoxError>,
    {
        let Self { socket, peer, permit, timeouts, draining } = self;
        let peer = PeerAddr(peer);
        let activity = Activity::new(permit);
        let socket = ClientSocket::new(nodelay(socket), MinRateTimeout::new(timeouts.client));
        let reset_on_drop = socket.reset_on_drop();
        let socket = ValidatedIo::new(socket, activity.clone(), timeouts.idle);
        let rejected = socket.rejected_head();
        let requests = activity.clone();
        let service = service_fn(move |mut request: Request<Incoming>| {
            request.extensions_mut().insert(peer);
            if let Some(bad) = rejected.get() {
                request.extensions_mut().insert(bad);
            }
            if request.version() < Version::HTTP_11 {
                reset_on_drop.enable();
            }
            let in_flight = requests.begin_request();
            let activity = requests.clone();
            // Boxed, as hyper keeps the memory of this future for as long as the connection.
            let response = respond(service.clone(), request, timeouts.client, draining.clone());
            let response = Box::pin(response);
            async move {
                let response = response.await?;
                Ok::<_, S::Error>(response.map(|body| activity.body(body, in_flight)))
            }
        });
        let connection = builder.serve_connection(TokioIo::new(socket), service);
        let mut connection = pin!(connection);
        let mut idle_timeout = timeouts.idle;
        // Whether the server shuts down, and whether this connection is shutting down.
        let (mut is_shutdown, mut is_ending) = (false, false);
        loop {
            tokio::select! {
                biased;
                ended = connection.as_mut() => {
                    if let Err(error) = ended {
                        tracing::debug!(%error, "connection failed: closing it");
                    }
                    return;
                }
                _ = shutdown.wait_for(|shutdown| *shutdown), if !is_ending && !is_shutdown => {
                    is_shutdown = true;
                    idle_timeout = idle_timeout.min(DRAIN_IDLE_TIMEOUT);
                    continue;
                }
                // A client that has just connected, or is sending a head, gets its response.
                () = activity.no_head_pending(), if is_shutdown && !is_ending => {}
                reason = activity.timed_out(timeouts.client, idle_timeout) => match reason {
                    CloseReason::Idle if !is_ending && !is_shutdown => {
                        if !activity.is_http2() {
                            // `ValidatedIo` closes it, as it sees whether a request comes after all.
                            continue;
                        }
                        idle_timeout = idle_timeout.min(DRAIN_IDLE_TIMEOUT);
                    }
                    _ => {
                        tracing::debug!(?reason, "connection timed out: closing it");
                        return;
                    }
                },
                () = activity.evicted() => {
                    if !activity.is_evicted() || !activity.is_http2() {
                        continue;
                    }
                    idle_timeout = idle_timeout.min(EVICTION_TIMEOUT);
                }
            }
            connection.as_mut().graceful_shutdown();
            is_ending = true;
        }
    }
}

fn nodelay(socket: TcpStream) -> TcpStream {
    if let Err(error) = socket.set_nodelay(true) {
        tracing::debug!(%error, "setting TCP_NODELAY failed: small writes may be delayed");
    }
    socket
}

/// Returns the response to one request: without a body where HTTP allows none, and with
/// `Connection: close` if the request's body cannot be read to its end in time.
async fn respond<S, B>(
    service: S,
    request: Request<Incoming>,
    client_timeout: Duration,
    draining: Draining,
) -> Result<Response<Option<B>>, S::Error>
where
    S: Service<Request<ClientBody>, Response = Response<B>>,
    B: Body,
{
    let (method, version) = (request.method().clone(), request.version());
    let keeps_alive = keeps_alive(version, request.headers());
    let (request, unread) = share_body(request, client_timeout);
    let mut response = service.oneshot(request).await?;
    let keeps_alive = keeps_alive && !says_close(response.headers());
    let is_reusable = match unread {
        Some(unread) if keeps_alive => finish(unread, version, response.status()).await,
        _ => true,
    };
    // While draining, so that clients with persistent connections leave before the listener closes.
    if keeps_alive && version < Version::HTTP_2 && (!is_reusable || draining.get()) {
        // Otherwise hyper adds `keep-alive` to a response for HTTP/1.0.
        *response.version_mut() = version;
        response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    Ok(fit_body(&method, response))
}

/// Reads the rest of the request's body, and returns `false` if that would take too long.
async fn finish(unread: UnreadBody, version: Version, status: StatusCode) -> bool {
    // Over HTTP/2 a response may stream while the request does.
    let streams_both_ways =
        version == Version::HTTP_2 && status.is_success() && unread.has_reader();
    streams_both_ways || unread.finish().await
}

/// Returns whether the client wants the connection to persist (RFC 9112, section 9.3).
fn keeps_alive(version: Version, headers: &HeaderMap) -> bool {
    match version {
        Version::HTTP_2 => true,
        Version::HTTP_11 => !says_close(headers),
        _ => connection_says(headers, "keep-alive"),
    }
}

fn says_close(headers: &HeaderMap) -> bool {
    connection_says(headers, "close")
}

fn connection_says(headers: &HeaderMap, option: &str) -> bool {
    let lines = headers.get_all(header::CONNECTION).iter();
    let mut options = lines.filter_map(|line| line.to_str().ok()).flat_map(|line| line.split(','));
    options.any(|other| other.trim().eq_ignore_ascii_case(option))
}

/// Removes the body of a response that must not have one (RFC 9110, section 6.4.1), but keeps its length.
/// hyper does that for HTTP/1 but not for HTTP/2.
fn fit_body<B: Body>(method: &Method, response: Response<B>) -> Response<Option<B>> {
    let is_head = *method == Method::HEAD;
    let status = response.status();
    if !is_head && !matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED) {
        return response.map(Some);
    }
    let length = response.body().size_hint().exact();
    let mut response = response.map(|_| None);
    // An empty body may be that of the upstream's response to HEAD, whose length is unknown.
    if is_head && let Some(length @ 1..) = length {
        let headers = response.headers_mut();
        headers.entry(header::CONTENT_LENGTH).or_insert_with(|| HeaderValue::from(length));
    }
    response
}
