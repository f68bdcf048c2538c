use std::{fmt, net::IpAddr, sync::Arc, time::Duration};

/// Maximum time from the first byte of a request's head to its last.
pub(super) const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
/// Maximum length of a request's head.
pub(super) const MAX_HEAD_BYTES: usize = 64 * 1024;
/// Maximum length of a request's target.
pub(super) const MAX_TARGET_BYTES: usize = 8 * 1024;
/// Maximum number of header lines of a request.
pub(super) const MAX_HEADERS: usize = 100;

/// Limits and timeouts of a [server](super::serve).
///
/// ```
/// use std::time::Duration;
/// use tower_quota::server::Limits;
///
/// let limits = Limits::new()
///     .connections(10_000)
///     .client_timeout(Duration::from_secs(30))
///     .proxies(|peer| peer.is_loopback());
/// ```
#[derive(Clone)]
#[must_use]
pub struct Limits {
    pub(super) connections: usize,
    pub(super) client_timeout: Duration,
    pub(super) idle_timeout: Duration,
    pub(super) proxies: Proxies,
}

/// Decides which peers stand for many clients.
pub(super) type Proxies = Arc<dyn Fn(IpAddr) -> bool + Send + Sync>;

impl Limits {
    /// Creates the limits that hold unless they are set.
    pub fn new() -> Self {
        Self {
            connections: 4096,
            client_timeout: Duration::from_secs(30),
            idle_timeout: Duration::from_secs(75),
            proxies: Arc::new(|_| false),
        }
    }

    /// Sets the maximum number of open connections; the default is 4,096. One source, an IPv4 address or an IPv6 /64,
    /// has at most half of them.
    pub fn connections(self, connections: usize) -> Self {
        Self { connections, ..self }
    }

    /// Sets for how long a client may stall a body that it sends or receives; the default is 30 seconds. Bytes that
    /// it moves earn it more time, at one second for 1,024 of them.
    pub fn client_timeout(self, client_timeout: Duration) -> Self {
        Self { client_timeout, ..self }
    }

    /// Sets the maximum time between two requests of a connection; the default is 75 seconds. That of a load balancer
    /// in front should be shorter.
    pub fn idle_timeout(self, idle_timeout: Duration) -> Self {
        Self { idle_timeout, ..self }
    }

    /// Sets which peers are proxies: they stand for many clients, and may have all connections.
    pub fn proxies(self, is_proxy: impl Fn(IpAddr) -> bool + Send + Sync + 'static) -> Self {
        Self { proxies: Arc::new(is_proxy), ..self }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Limits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Limits")
            .field("connections", &self.connections)
            .field("client_timeout", &self.client_timeout)
            .field("idle_timeout", &self.idle_timeout)
            .finish_non_exhaustive()
    }
}
