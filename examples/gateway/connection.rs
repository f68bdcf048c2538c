//! One connection of a client, from its first byte to its end.

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
    executor::StreamExecutor,
    http1::ValidatedIo,
    min_rate::MinRateTimeout,
    server::{Draining, PeerAddr},
};

/// How long a connection may take to end once it was asked to and has no request.
const DRAIN_IDLE_TIMEOUT: Duration = Duration::from_secs(5);
/// The same where another connection waits for its place.
const EVICTION_TIMEOUT: Duration = Duration::from_secs(1);

/// A connection that has a place.
pub(crate) struct Connection {
    pub(crate) socket: TcpStream,
    pub(crate) peer: IpAddr,
    pub(crate) place: ConnectionPermit,
    pub(crate) timeouts: Timeouts,
    pub(crate) draining: Draining,
}

/// How long the server waits for a client.
#[derive(Clone, Copy)]
pub(crate) struct Timeouts {
    /// For more of a body, and for a reader.
    pub(crate) client: Duration,
    /// For another request.
    pub(crate) idle: Duration,
}

impl Connection {
    /// Serves it to its end, or until its client has kept the server waiting for too long.
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
        let Self { socket, peer, place, timeouts, draining } = self;
        let peer = PeerAddr(peer);
        let activity = Activity::new(place);
        let socket = ClientSocket::new(nodelay(socket), MinRateTimeout::new(timeouts.client));
        let closing = socket.closing();
        let socket = ValidatedIo::new(socket, activity.clone(), timeouts.idle);
        let refused = socket.refused();
        let requests = activity.clone();
        let service = service_fn(move |mut request: Request<Incoming>| {
            request.extensions_mut().insert(peer);
            if let Some(bad) = refused.get() {
                request.extensions_mut().insert(bad);
            }
            if request.version() < Version::HTTP_11 {
                closing.reset_if_broken();
            }
            let running = requests.begin();
            let activity = requests.clone();
            // hyper keeps the room of this future as long as the connection, so it is boxed.
            let response = respond(service.clone(), request, timeouts.client, draining.clone());
            let response = Box::pin(response);
            async move {
                let response = response.await?;
                Ok::<_, S::Error>(response.map(|body| activity.body(body, running)))
            }
        });
        let connection = builder.serve_connection(TokioIo::new(socket), service);
        let mut connection = pin!(connection);
        let (mut idle_timeout, mut is_shutdown, mut is_ending) = (timeouts.idle, false, false);
        loop {
            tokio::select! {
                biased;
                ended = connection.as_mut() => {
                    if let Err(error) = ended {
                        tracing::debug!(%error, "connection ended");
                    }
                    return;
                }
                // Nobody is told twice; the sender lives as long as the server.
                _ = shutdown.wait_for(|ending| *ending), if !is_ending && !is_shutdown => {
                    is_shutdown = true;
                    idle_timeout = idle_timeout.min(DRAIN_IDLE_TIMEOUT);
                    continue;
                }
                // A client that has just come, or sends a head, gets its response.
                () = activity.awaits_no_head(), if is_shutdown && !is_ending => {}
                reason = activity.closes(timeouts.client, idle_timeout) => match reason {
                    CloseReason::Idle if !is_ending && !is_shutdown => {
                        if !activity.is_http2() {
                            // The socket closes itself, as it sees whether a request comes after all.
                            continue;
                        }
                        idle_timeout = idle_timeout.min(DRAIN_IDLE_TIMEOUT);
                    }
                    _ => {
                        tracing::debug!(?reason, "connection cut");
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
        tracing::debug!(%error, "no TCP_NODELAY");
    }
    socket
}

/// The response to one request as it goes out: without a body where there may be none, and with a
/// request's body that is over, or a word that the connection ends.
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
    let can_go_on = match unread {
        Some(unread) if keeps_alive => finish(unread, version, response.status()).await,
        _ => true,
    };
    // Clients that keep connections are to have left when the listener closes.
    if keeps_alive && version < Version::HTTP_2 && (!can_go_on || draining.get()) {
        // Without it hyper adds `keep-alive` to what an HTTP/1.0 client gets.
        *response.version_mut() = version;
        response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    Ok(fit_body(&method, response))
}

/// Sees to it that nothing of the request's body is left; `false` if that would take too long.
async fn finish(unread: UnreadBody, version: Version, status: StatusCode) -> bool {
    // Over HTTP/2 a response may well stream while the request does.
    let streams_both_ways =
        version == Version::HTTP_2 && status.is_success() && unread.has_reader();
    streams_both_ways || unread.finish().await
}

/// Whether the client means to go on with the connection (RFC 9112, section 9.3).
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
    options.any(|given| given.trim().eq_ignore_ascii_case(option))
}

/// Takes the body out of a response that may have none (RFC 9110, section 6.4.1), whoever made it; its
/// length stays known. Over HTTP/1 hyper would leave it out by itself, over HTTP/2 it would send it.
fn fit_body<B: Body>(method: &Method, response: Response<B>) -> Response<Option<B>> {
    let is_head = *method == Method::HEAD;
    let status = response.status();
    if !is_head && !matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED) {
        return response.map(Some);
    }
    let length = response.body().size_hint().exact();
    let mut response = response.map(|_| None);
    // None may be the upstream's response to HEAD, too.
    if is_head && let Some(length @ 1..) = length {
        let headers = response.headers_mut();
        headers.entry(header::CONTENT_LENGTH).or_insert_with(|| HeaderValue::from(length));
    }
    response
}
