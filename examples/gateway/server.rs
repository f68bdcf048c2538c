//! The server: HTTP/1 and HTTP/2 on one port, with timeouts against slow peers and a graceful shutdown.

use std::{
    future::Future,
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
use hyper::rt::Executor;
use hyper_util::{rt::TokioTimer, server::conn::auto::Builder};
use ipnet::IpNet;
use tokio::{
    net::{TcpListener, TcpStream},
    signal::unix::{Signal, SignalKind, signal},
    sync::watch,
    task::JoinSet,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tower::{BoxError, Service};

use crate::{
    client_body::ClientBody,
    connection::{Connection, Timeouts},
    connection_limit::{ConnectionLimit, PendingConnections},
    systemd::ServiceManager,
    telemetry,
};

/// Maximum time from the first byte of a request's head to its last.
pub(crate) const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
/// Maximum length of a request's head.
pub(crate) const MAX_HEAD_BYTES: usize = 64 * 1024;
/// Maximum length of a request's target.
pub(crate) const MAX_TARGET_BYTES: usize = 8 * 1024;
/// Maximum number of header lines of a request.
pub(crate) const MAX_HEADERS: usize = 100;

/// Extension of a request: the address at the other end of the connection.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PeerAddr(pub(crate) IpAddr);

/// Whether the process is shutting down. Clones share it.
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

/// Limits and timeouts of the server.
pub(crate) struct Limits {
    /// Maximum number of open connections.
    pub(crate) connections: usize,
    /// Networks whose connections are not limited by source.
    pub(crate) trusted_proxies: Vec<IpNet>,
    /// Maximum time that a client may stall a body.
    pub(crate) client_timeout: Duration,
    /// Maximum time between two requests of a connection.
    pub(crate) client_idle_timeout: Duration,
    /// Time for which connections are still accepted after the signal to shut down.
    pub(crate) shutdown_delay: Duration,
    /// Maximum time for the responses in flight after that.
    pub(crate) shutdown_grace: Duration,
}

/// Serves until SIGTERM or SIGINT, then finishes the responses in flight. Another signal ends the
/// current phase early: the delay, then the grace period.
///
/// Returns what is left of the grace period.
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
    let limit = ConnectionLimit::new(limits.connections, limits.trusted_proxies);
    let timeouts = Timeouts { client: limits.client_timeout, idle: limits.client_idle_timeout };
    let gauge = telemetry::OpenConnections::new();
    let mut tasks = JoinSet::new();
    let mut closing = Box::pin(async {
        signals.next().await;
        draining.begin();
        manager.stopping(limits.shutdown_delay + limits.shutdown_grace).await;
        delay_close(&mut signals, limits.shutdown_delay).await;
    });
    let mut pending = PendingConnections::new();
    let admit = |pending: &mut PendingConnections<TcpStream>, tasks: &mut JoinSet<()>| {
        while let Some((peer, socket, permit)) = pending.next(&limit) {
            let draining = draining.clone();
            let connection = Connection { socket, peer, permit, timeouts, draining };
            let served = connection.serve(builder.clone(), service.clone(), shutdown.clone());
            let open = gauge.enter();
            tasks.spawn(async move {
                served.await;
                drop(open);
            });
        }
    };
    loop {
        admit(&mut pending, &mut tasks);
        tokio::select! {
            Some(_) = tasks.join_next() => {}
            accepted = listener.accept() => match accepted {
                Ok((socket, peer)) => {
                    let peer = peer.ip().to_canonical();
                    if !pending.push(peer, socket) {
                        tracing::debug!(%peer, "too many pending connections: dropping one");
                    }
                }
                Err(error) => back_off(&error).await,
            },
            () = limit.changed(), if !pending.is_empty() => {}
            () = &mut closing => break,
        }
    }
    drop(closing);
    drop(listener);
    let drain_start = Instant::now();
    tracing::info!(connections = tasks.len(), "listener closed: finishing responses in flight");
    shut_down.send_replace(true);
    let drained = async {
        // Pending connections have been accepted, so they are served, too.
        while !tasks.is_empty() || !pending.is_empty() {
            admit(&mut pending, &mut tasks);
            tokio::select! {
                Some(_) = tasks.join_next() => {}
                () = limit.changed(), if !pending.is_empty() => {}
            }
        }
    };
    tokio::select! {
        () = drained => {}
        () = tokio::time::sleep(limits.shutdown_grace) => {
            tracing::warn!("grace period over: aborting the responses in flight");
        }
        () = signals.next() => {}
    }
    // Aborted here, so that the end of each request is recorded before the store is closed.
    tasks.shutdown().await;
    streams.shutdown().await;
    Ok(limits.shutdown_grace.saturating_sub(drain_start.elapsed()))
}

/// Spawns a task for each HTTP/2 stream and can end them all: they outlive their connections.
#[derive(Clone, Default)]
pub(crate) struct StreamExecutor {
    tasks: TaskTracker,
    shutdown: CancellationToken,
}

impl StreamExecutor {
    /// Cancels all streams and returns when their tasks have ended.
    pub(crate) async fn shutdown(&self) {
        self.shutdown.cancel();
        self.tasks.close();
        self.tasks.wait().await;
    }
}

impl<F> Executor<F> for StreamExecutor
where
    F: Future + Send + 'static,
    F::Output: Send,
{
    fn execute(&self, stream: F) {
        let shutdown = self.shutdown.clone();
        self.tasks.spawn(async move { drop(shutdown.run_until_cancelled_owned(stream).await) });
    }
}

/// The signals that shut down the process.
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

/// Returns when the listener must close: after `delay`, or at another signal.
async fn delay_close(signals: &mut Signals, delay: Duration) {
    tracing::info!(?delay, "shutting down: /readyz fails, the listener closes after the delay");
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
        // `ValidatedIo` has a timeout that does not run between requests.
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
        // Windows bound the memory for bodies that are not read yet, the buffer that for slow readers.
        .initial_stream_window_size(256 * 1024)
        .initial_connection_window_size(1024 * 1024)
        .max_send_buf_size(64 * 1024)
        .keep_alive_interval(Duration::from_secs(30))
        .keep_alive_timeout(Duration::from_secs(20));
    builder
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
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}
