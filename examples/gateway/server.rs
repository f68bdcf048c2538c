//! The server loop: HTTP/1 and HTTP/2 on one port, with the time limits that keep slow peers from
//! holding it, and an end that lets running answers finish.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Version, header};
use http_body::Body;
use hyper::{body::Incoming, service::service_fn};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    server::conn::auto::Builder,
};
use tokio::{
    net::{TcpListener, TcpStream},
    signal::unix::{Signal, SignalKind, signal},
    sync::{OwnedSemaphorePermit, Semaphore, watch},
    task::JoinSet,
};
use tower::{BoxError, Service, ServiceExt};

use crate::{
    client_body::{ClientBody, UnreadBody, share_body},
    executor::Streams,
    http1::Guarded,
    io::PatientSocket,
    patience::Patience,
    stalls::{Stalls, Tired, Watched},
    telemetry,
};

/// Within this time a request's head must be there.
pub(crate) const HEAD_LIMIT: Duration = Duration::from_secs(10);
/// The largest head.
pub(crate) const HEAD_BYTES: usize = 64 * 1024;
/// The largest target in it.
pub(crate) const TARGET_BYTES: usize = 8 * 1024;
/// The most header lines in it.
pub(crate) const HEADERS: usize = 100;

/// How long a connection may take to end once it was asked to and has no request.
const GOODBYE: Duration = Duration::from_secs(5);

/// In a request's extensions: the address at the other end of the connection.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PeerAddr(pub(crate) IpAddr);

/// Whether the process is about to end.
#[derive(Clone, Debug, Default)]
pub(crate) struct Draining(Arc<AtomicBool>);

impl Draining {
    pub(crate) fn get(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    fn begin(&self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// What the server allows its clients.
#[derive(Clone, Copy)]
pub(crate) struct Limits {
    /// Connections at once.
    pub(crate) connections: usize,
    /// How long a client may keep the server waiting.
    pub(crate) client: Duration,
    /// How long connections are still accepted once the process is to end.
    pub(crate) shutdown_delay: Duration,
    /// How long running answers may take after that.
    pub(crate) shutdown: Duration,
}

/// Serves until SIGTERM or SIGINT, then lets running answers finish. A further signal cuts short what
/// is waited for: the delay, then the answers.
/// Returns what is left of the time for it.
pub(crate) async fn serve<S, B>(
    listener: TcpListener,
    service: S,
    draining: Draining,
    limits: Limits,
) -> io::Result<Duration>
where
    S: Service<Request<ClientBody>, Response = Response<B>> + Clone + Send + 'static,
    S::Error: Into<BoxError>,
    S::Future: Send,
    B: Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<BoxError>,
{
    let mut signals = Signals::catch()?;
    let streams = Streams::default();
    let builder = builder(streams.clone());
    let (shut_down, shutdown) = watch::channel(false);
    let places = Arc::new(Semaphore::new(limits.connections));
    let open = telemetry::Connections::new();
    let mut tasks = JoinSet::new();
    let mut closing = Box::pin(closing(&mut signals, &draining, limits.shutdown_delay));
    loop {
        tokio::select! {
            Some(_) = tasks.join_next() => {}
            accepted = accept(&listener, &places) => match accepted {
                Ok((socket, peer, place)) => {
                    let (builder, service) = (builder.clone(), service.clone());
                    let (limit, shutdown) = (limits.client, shutdown.clone());
                    let open = open.enter();
                    tasks.spawn(async move {
                        serve_connection(builder, socket, peer, service, limit, shutdown).await;
                        drop((place, open));
                    });
                }
                Err(error) => wait_after(&error).await,
            },
            () = &mut closing => break,
        }
    }
    drop(closing);
    drop(listener);
    let begun = Instant::now();
    tracing::info!(connections = tasks.len(), "listener closed: answers that run may finish");
    shut_down.send_replace(true);
    tokio::select! {
        () = ended(&mut tasks) => {}
        () = tokio::time::sleep(limits.shutdown) => {
            tracing::warn!("some answers did not finish in time");
        }
        () = signals.next() => {}
    }
    // What is left is cut here, so that its end is recorded before the store is closed.
    tasks.shutdown().await;
    streams.shutdown().await;
    Ok(limits.shutdown.saturating_sub(begun.elapsed()))
}

/// The signals that end the process.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn catch() -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

/// Returns when the listener is to be closed: `delay` after a signal, or at the second one.
async fn closing(signals: &mut Signals, draining: &Draining, delay: Duration) {
    signals.next().await;
    draining.begin();
    tracing::info!(?delay, "shutting down: /readyz says so, then the listener closes");
    tokio::select! {
        () = tokio::time::sleep(delay) => {}
        () = signals.next() => {}
    }
}

/// Waits for the end of all of them.
async fn ended(tasks: &mut JoinSet<()>) {
    while tasks.join_next().await.is_some() {}
}

/// The next connection, once there is a place for it. Others wait in the system's queue.
async fn accept(
    listener: &TcpListener,
    places: &Arc<Semaphore>,
) -> io::Result<(TcpStream, SocketAddr, OwnedSemaphorePermit)> {
    let place = places.clone().acquire_owned().await.map_err(io::Error::other)?;
    let (socket, peer) = listener.accept().await?;
    Ok((socket, peer, place))
}

fn builder(streams: Streams) -> Builder<Streams> {
    let mut builder = Builder::new(streams);
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_LIMIT)
        .max_headers(HEADERS)
        .max_buf_size(HEAD_BYTES);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_header_list_size(HEAD_BYTES as u32)
        .max_concurrent_streams(256)
        .max_local_error_reset_streams(64)
        .max_pending_accept_reset_streams(20)
        // What a client sends ahead, and what is kept for one that does not read, is kept in memory.
        .initial_stream_window_size(256 * 1024)
        .initial_connection_window_size(1024 * 1024)
        .max_send_buf_size(64 * 1024)
        .keep_alive_interval(Duration::from_secs(30))
        .keep_alive_timeout(Duration::from_secs(20));
    builder
}

fn nodelay(socket: TcpStream) -> TcpStream {
    if let Err(error) = socket.set_nodelay(true) {
        tracing::debug!(%error, "no TCP_NODELAY");
    }
    socket
}

/// Serves a connection to its end, or until its client has kept it waiting for too long.
async fn serve_connection<S, B>(
    builder: Builder<Streams>,
    socket: TcpStream,
    peer: SocketAddr,
    service: S,
    limit: Duration,
    mut shutdown: watch::Receiver<bool>,
) where
    S: Service<Request<ClientBody>, Response = Response<B>> + Clone + Send + 'static,
    S::Error: Into<BoxError>,
    S::Future: Send,
    B: Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<BoxError>,
{
    let peer = PeerAddr(peer.ip().to_canonical());
    let socket = PatientSocket::new(nodelay(socket), Patience::new(limit));
    let closing = socket.closing();
    let socket = Guarded::new(socket);
    let refused = socket.refused();
    let stalls = Stalls::default();
    let watched = stalls.clone();
    let service = service_fn(move |mut request: Request<Incoming>| {
        request.extensions_mut().insert(peer);
        if let Some(bad) = refused.get() {
            request.extensions_mut().insert(bad);
        }
        if request.version() < Version::HTTP_11 {
            closing.reset_if_broken();
        }
        let running = stalls.begin();
        // HTTP/1 is read in order, so a reader that does not go on stalls the socket.
        let stalls = (request.version() == Version::HTTP_2).then(|| stalls.clone());
        // hyper keeps the room of this future as long as the connection, so it is boxed.
        let response = Box::pin(respond(service.clone(), request, limit));
        async move {
            let watch = |body| match &stalls {
                Some(stalls) => stalls.watch(body, running),
                None => Watched::unwatched(body, running),
            };
            response.await.map(|response| response.map(watch))
        }
    });
    let connection = builder.serve_connection(TokioIo::new(socket), service);
    let mut connection = pin!(connection);
    let mut is_ending = false;
    loop {
        tokio::select! {
            ended = connection.as_mut() => {
                if let Err(error) = ended {
                    tracing::debug!(%error, "connection ended");
                }
                return;
            }
            // Nobody is told twice; the sender lives as long as the server.
            _ = shutdown.wait_for(|ending| *ending), if !is_ending => {}
            tired = watched.wait(limit, if is_ending { limit.min(GOODBYE) } else { limit }) => match tired {
                Tired::Idle if !is_ending => {}
                _ => {
                    tracing::debug!(?tired, "connection cut");
                    return;
                }
            }
        }
        connection.as_mut().graceful_shutdown();
        is_ending = true;
    }
}

/// The response to one request as it goes out: without a body where there may be none, and with a
/// request's body that is over, or a word that the connection ends.
async fn respond<S, B>(
    service: S,
    request: Request<Incoming>,
    client_timeout: Duration,
) -> Result<Response<Option<B>>, S::Error>
where
    S: Service<Request<ClientBody>, Response = Response<B>>,
    B: Body,
{
    let (method, version) = (request.method().clone(), request.version());
    let keeps_alive = keeps_alive(version, request.headers());
    let (request, unread) = share_body(request, client_timeout);
    let mut response = service.oneshot(request).await?;
    if let Some(unread) = unread
        && keeps_alive
        && !says_close(response.headers())
        && !finish(unread, version, response.status()).await
        && version < Version::HTTP_2
    {
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

/// Out of file descriptors: trying again at once would only burn CPU.
async fn wait_after(error: &io::Error) {
    let of_one_peer = matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionRefused
    );
    if !of_one_peer {
        tracing::error!(%error, "no connection can be accepted");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}
