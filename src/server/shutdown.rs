use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

/// Ends a [server](super::Serve::shutdown) in three steps, each of which may be left out. Clones share it.
///
/// 1. [`drain`](Self::drain): connections are still accepted, so that a load balancer has time to learn of it from
///    a health check. Responses over HTTP/1 have `Connection: close`.
/// 2. [`close`](Self::close): the listener is closed, and each connection once its requests have ended.
/// 3. [`abort`](Self::abort): what is left ends at once. All bodies and futures of the service are dropped before
///    the server's future is ready.
#[derive(Clone, Debug, Default)]
pub struct Shutdown(Arc<Steps>);

#[derive(Debug, Default)]
struct Steps {
    is_draining: AtomicBool,
    closed: CancellationToken,
    aborted: CancellationToken,
}

impl Shutdown {
    /// Creates a handle of a server that is to be started.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Makes clients leave.
    pub fn drain(&self) {
        self.0.is_draining.store(true, Ordering::Relaxed);
    }

    /// Returns whether the server is shutting down, so that a health check can say so.
    #[must_use]
    pub fn is_draining(&self) -> bool {
        self.0.is_draining.load(Ordering::Relaxed)
    }

    /// Closes the listener, and the connections as their requests end.
    pub fn close(&self) {
        self.drain();
        self.0.closed.cancel();
    }

    /// Ends everything that is left.
    pub fn abort(&self) {
        self.close();
        self.0.aborted.cancel();
    }

    pub(super) fn is_closed(&self) -> bool {
        self.0.closed.is_cancelled()
    }

    pub(super) fn closed(&self) -> WaitForCancellationFutureOwned {
        self.0.closed.clone().cancelled_owned()
    }

    pub(super) fn aborted(&self) -> WaitForCancellationFutureOwned {
        self.0.aborted.clone().cancelled_owned()
    }
}
