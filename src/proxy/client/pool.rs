use std::{
    borrow::Cow,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU8, AtomicUsize, Ordering},
    },
};

use hyper_util::client::legacy::Client;

use super::{OutgoingBody, connection::Connector};

pub(super) type Pool<B> = Client<Connector, OutgoingBody<B>>;

/// Maximum number of requests on an HTTP/2 connection: upstreams commonly allow 100 streams, and hyper lets
/// further requests wait. Their windows together fit into the connection's, so that a stalled reader does
/// not stop the others.
const MAX_STREAMS: usize = 64;
/// Maximum number of idle connections.
pub(super) const MAX_IDLE: usize = 64;

/// The protocol of the latest connection to the upstream.
#[derive(Clone, Debug, Default)]
pub(super) struct UpstreamProtocol(Arc<AtomicU8>);

impl UpstreamProtocol {
    const HTTP_1: u8 = 1;
    const HTTP_2: u8 = 2;

    pub(super) fn set(&self, is_http2: bool) {
        self.0.store(if is_http2 { Self::HTTP_2 } else { Self::HTTP_1 }, Ordering::Relaxed);
    }

    fn is_http1(&self) -> bool {
        self.0.load(Ordering::Relaxed) == Self::HTTP_1
    }
}

/// The connection pool in shards of at most [`MAX_STREAMS`] requests, as a hyper client keeps one HTTP/2
/// connection. Shards are created on demand; HTTP/1 needs the first only.
pub(super) struct PoolShards<B>(Arc<Shared<B>>);

struct Shared<B> {
    new_pool: Box<dyn Fn() -> Pool<B> + Send + Sync>,
    protocol: UpstreamProtocol,
    first: PoolShard<B>,
    has_more: AtomicBool,
    more: Mutex<Vec<PoolShard<B>>>,
}

struct PoolShard<B> {
    pool: Pool<B>,
    in_flight: Arc<AtomicUsize>,
}

/// Counts a request in its shard until it is dropped.
#[derive(Debug)]
pub(super) struct InFlightGuard(Arc<AtomicUsize>);

impl<B> PoolShards<B> {
    pub(super) fn new(
        protocol: UpstreamProtocol,
        new_pool: impl Fn() -> Pool<B> + Send + Sync + 'static,
    ) -> Self {
        let first = PoolShard::new(new_pool());
        let (has_more, more) = (AtomicBool::new(false), Mutex::default());
        Self(Arc::new(Shared { new_pool: Box::new(new_pool), protocol, first, has_more, more }))
    }

    /// Returns the pool for another request, and the guard that counts it there.
    pub(super) fn enter(&self) -> (Cow<'_, Pool<B>>, InFlightGuard) {
        let shared = &*self.0;
        let is_http1 = shared.protocol.is_http1();
        if is_http1 && shared.has_more.load(Ordering::Relaxed) {
            // They were created before the protocol was known. Their connections close after their requests.
            shared.more().clear();
            shared.has_more.store(false, Ordering::Relaxed);
        }
        if is_http1 || shared.first.has_capacity() {
            return (Cow::Borrowed(&shared.first.pool), shared.first.enter());
        }
        let more = &mut *shared.more();
        while more.len() >= MAX_IDLE && more.last().is_some_and(PoolShard::is_unused) {
            more.pop();
        }
        let index = more.iter().position(PoolShard::has_capacity).unwrap_or_else(|| {
            more.push(PoolShard::new((shared.new_pool)()));
            more.len() - 1
        });
        shared.has_more.store(true, Ordering::Relaxed);
        (Cow::Owned(more[index].pool.clone()), more[index].enter())
    }
}

impl<B> Shared<B> {
    fn more(&self) -> MutexGuard<'_, Vec<PoolShard<B>>> {
        self.more.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<B> PoolShard<B> {
    fn new(pool: Pool<B>) -> Self {
        Self { pool, in_flight: Arc::default() }
    }

    fn has_capacity(&self) -> bool {
        self.in_flight.load(Ordering::Relaxed) < MAX_STREAMS
    }

    fn is_unused(&self) -> bool {
        self.in_flight.load(Ordering::Relaxed) == 0
    }

    fn enter(&self) -> InFlightGuard {
        self.in_flight.fetch_add(1, Ordering::Relaxed);
        InFlightGuard(self.in_flight.clone())
    }
}

impl Drop for InFlightGuard {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl<B> Clone for PoolShards<B> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}
