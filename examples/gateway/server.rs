//! The server loop: HTTP/1 and HTTP/2 on one port, with the time limits that keep slow peers from
//! holding it, and an end that lets running answers finish.

use std::{
    io,
    net::IpAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use http::{Request, Response};
use http_body::Body;
use hyper_util::{rt::TokioTimer, server::conn::auto::Builder};
use ipnet::IpNet;
use tokio::{
    net::{TcpListener, TcpStream},
    signal::unix::{Signal, SignalKind, signal},
    sync::watch,
    task::JoinSet,
};
use tower::{BoxError, Service};

use crate::{
    client_body::ClientBody,
    connection::{Connection, Timeouts},
    connection_limit::{ConnectionLimit, PendingConnections},
    executor::StreamExecutor,
    systemd::ServiceManager,
    telemetry,
};

/// Within this time a request's head must be there.
pub(crate) const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
/// The largest head.
pub(crate) const MAX_HEAD_BYTES: usize = 64 * 1024;
/// The largest target in it.
pub(crate) const MAX_TARGET_BYTES: usize = 8 * 1024;
/// The most header lines in it.
pub(crate) const MAX_HEADERS: usize = 100;

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
pub(crate) struct Limits {
    /// Connections at once.
    pub(crate) connections: usize,
    /// Whose connections are not counted by their source.
    pub(crate) trusted_proxies: Vec<IpNet>,
    /// How long a client may keep the server waiting.
    pub(crate) client: Duration,
    /// How long a connection without a request is kept.
    pub(crate) client_idle: Duration,
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
    manager: &ServiceManager,
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
    let streams = StreamExecutor::default();
    let builder = builder(streams.clone());
    let (shut_down, shutdown) = watch::channel(false);
    let places = ConnectionLimit::new(limits.connections, limits.trusted_proxies);
    let timeouts = Timeouts { client: limits.client, idle: limits.client_idle };
    let open = telemetry::Connections::new();
    let mut tasks = JoinSet::new();
    let mut closing = Box::pin(async {
        signals.next().await;
        draining.begin();
        manager.stopping(limits.shutdown_delay + limits.shutdown).await;
        delay_close(&mut signals, limits.shutdown_delay).await;
    });
    let mut newcomers = PendingConnections::new();
    let admit = |newcomers: &mut PendingConnections<TcpStream>, tasks: &mut JoinSet<()>| {
        while let Some((peer, socket, place)) = newcomers.next(&places) {
            let draining = draining.clone();
            let connection = Connection { socket, peer, place, timeouts, draining };
            let served = connection.serve(builder.clone(), service.clone(), shutdown.clone());
            let open = open.enter();
            tasks.spawn(async move {
                served.await;
                drop(open);
            });
        }
    };
    loop {
        admit(&mut newcomers, &mut tasks);
        tokio::select! {
            Some(_) = tasks.join_next() => {}
            accepted = listener.accept() => match accepted {
                Ok((socket, peer)) => {
                    let peer = peer.ip().to_canonical();
                    if !newcomers.push(peer, socket) {
                        tracing::debug!(%peer, "connection refused: too many wait for a place");
                    }
                }
                Err(error) => wait_after(&error).await,
            },
            () = places.changed(), if !newcomers.are_none() => {}
            () = &mut closing => break,
        }
    }
    drop(closing);
    drop(listener);
    let begun = Instant::now();
    tracing::info!(connections = tasks.len(), "listener closed: answers that run may finish");
    shut_down.send_replace(true);
    let ended = async {
        // Those that were accepted and have no place yet are served, too.
        while !tasks.is_empty() || !newcomers.are_none() {
            admit(&mut newcomers, &mut tasks);
            tokio::select! {
                Some(_) = tasks.join_next() => {}
                () = places.changed(), if !newcomers.are_none() => {}
            }
        }
    };
    tokio::select! {
        () = ended => {}
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

/// Returns when the listener is to be closed: after `delay`, or at a further signal.
async fn delay_close(signals: &mut Signals, delay: Duration) {
    tracing::info!(?delay, "shutting down: /readyz says so, then the listener closes");
    tokio::select! {
        () = tokio::time::sleep(delay) => {}
        () = signals.next() => {}
    }
}

fn builder(streams: StreamExecutor) -> Builder<StreamExecutor> {
    let mut builder = Builder::new(streams);
    builder
        .http1()
        .timer(TokioTimer::new())
        // `ValidatedIo` has one that does not run between requests.
        .header_read_timeout(None)
        .max_headers(MAX_HEADERS)
        .max_buf_size(MAX_HEAD_BYTES);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_header_list_size(MAX_HEAD_BYTES as u32)
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
