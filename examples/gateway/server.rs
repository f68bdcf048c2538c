//! The server loop: HTTP/1 and HTTP/2 on one port, with the time limits that keep slow peers from
//! holding it, and an end that lets running answers finish.

use std::{
    fmt,
    future::Future,
    io,
    net::{IpAddr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use http::{Request, Response};
use http_body::Body;
use hyper::{body::Incoming, service::service_fn};
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::{
        conn::auto::Builder,
        graceful::{GracefulConnection, GracefulShutdown},
    },
};
use tokio::{
    net::{TcpListener, TcpStream},
    signal::unix::{SignalKind, signal},
    task::JoinSet,
};
use tower::{BoxError, Service, ServiceExt};

use crate::{http1::Guarded, io::PatientSocket};

/// Within this time a request's head must be there.
const HEAD_LIMIT: Duration = Duration::from_secs(10);
/// The largest head.
pub(crate) const HEAD_BYTES: usize = 64 * 1024;
/// The largest target in it.
pub(crate) const TARGET_BYTES: usize = 8 * 1024;
/// The most header lines in it.
pub(crate) const HEADERS: usize = 100;

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

/// How long the server waits.
pub(crate) struct Patience {
    /// For a peer to take what is sent to it.
    pub(crate) write: Duration,
    /// For running answers once the process is to end.
    pub(crate) shutdown: Duration,
}

/// Serves until SIGTERM or SIGINT, then lets running answers finish. A second signal ends that.
pub(crate) async fn serve<S, B>(
    listener: TcpListener,
    service: S,
    draining: Draining,
    patience: Patience,
) -> io::Result<()>
where
    S: Service<Request<Incoming>, Response = Response<B>> + Clone + Send + 'static,
    S::Error: Into<BoxError>,
    S::Future: Send,
    B: Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<BoxError>,
{
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let builder = builder();
    let connections = GracefulShutdown::new();
    let mut tasks = JoinSet::new();
    loop {
        tokio::select! {
            Some(_) = tasks.join_next() => {}
            accepted = listener.accept() => match accepted {
                Ok((socket, peer)) => {
                    let socket = PatientSocket::new(nodelay(socket), HEAD_LIMIT, patience.write);
                    let connection = connection(&builder, socket, peer, service.clone());
                    tasks.spawn(finish(connections.watch(connection)));
                }
                Err(error) => wait_after(&error).await,
            },
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
        }
    }
    drop(listener);
    draining.begin();
    tracing::info!(connections = connections.count(), "shutting down");
    tokio::select! {
        () = connections.shutdown() => {}
        () = tokio::time::sleep(patience.shutdown) => {
            tracing::warn!("some answers did not finish in time");
        }
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    // What is left is cut here, so that its end is recorded before the store is closed.
    tasks.shutdown().await;
    Ok(())
}

fn builder() -> Builder<TokioExecutor> {
    let mut builder = Builder::new(TokioExecutor::new());
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

fn connection<S, B>(
    builder: &Builder<TokioExecutor>,
    socket: PatientSocket,
    peer: SocketAddr,
    service: S,
) -> impl GracefulConnection<Error: fmt::Display> + Send + 'static
where
    S: Service<Request<Incoming>, Response = Response<B>> + Clone + Send + 'static,
    S::Error: Into<BoxError>,
    S::Future: Send,
    B: Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<BoxError>,
{
    let peer = PeerAddr(peer.ip().to_canonical());
    let socket = Guarded::new(socket);
    let refused = socket.refused();
    let service = service_fn(move |mut request: Request<Incoming>| {
        request.extensions_mut().insert(peer);
        if let Some(bad) = refused.get() {
            request.extensions_mut().insert(bad);
        }
        service.clone().oneshot(request)
    });
    builder.serve_connection(TokioIo::new(socket), service).into_owned()
}

async fn finish(connection: impl Future<Output = Result<(), impl fmt::Display>>) {
    if let Err(error) = connection.await {
        tracing::debug!(%error, "connection ended");
    }
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
