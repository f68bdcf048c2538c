//! Shuts down at a signal: a delay for load balancers, then time for the responses in flight.

use std::{
    future::{Future, IntoFuture},
    io,
    pin::pin,
    time::{Duration, Instant},
};

use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    time::sleep,
};
use tower_quota::server::Shutdown;

use crate::systemd::ServiceManager;

/// How long a shutdown takes.
#[derive(Clone, Copy)]
pub(crate) struct ShutdownTimes {
    /// Time for which connections are still accepted after the signal.
    pub(crate) delay: Duration,
    /// Maximum time for the responses in flight after that.
    pub(crate) grace: Duration,
}

/// Runs the server until SIGTERM or SIGINT, then lets it finish the responses in flight. Another signal ends the
/// current phase early: the delay, then the grace period.
///
/// Returns what is left of the grace period.
pub(crate) async fn serve(
    server: impl IntoFuture<Output = ()>,
    shutdown: &Shutdown,
    times: ShutdownTimes,
    manager: &ServiceManager,
) -> io::Result<Duration> {
    let ShutdownTimes { delay, grace } = times;
    let mut signals = Signals::catch()?;
    let mut server = pin!(server.into_future());
    let until_close = async {
        signals.next().await;
        shutdown.drain();
        manager.stopping(delay + grace).await;
        tracing::info!(?delay, "shutting down: /readyz fails, the listener closes after the delay");
        either(sleep(delay), signals.next()).await;
    };
    // The server goes on until it is closed.
    either(server.as_mut(), until_close).await;
    shutdown.close();
    let closed_at = Instant::now();
    let is_aborted = tokio::select! {
        () = server.as_mut() => false,
        () = sleep(grace) => {
            tracing::warn!("grace period over: aborting the responses in flight");
            true
        }
        () = signals.next() => true,
    };
    if is_aborted {
        shutdown.abort();
        // The end of each request is recorded before the store is closed.
        server.await;
    }
    Ok(grace.saturating_sub(closed_at.elapsed()))
}

async fn either(first: impl Future<Output = ()>, second: impl Future<Output = ()>) {
    tokio::select! {
        () = first => {}
        () = second => {}
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
