use std::{
    borrow::Cow,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU8, AtomicUsize, Ordering},
    },
};

use hyper_util::client::legacy::Client;

use super::{connector::Connector, resend::Sent};

pub(super) type Pool<B, C> = Client<Connector<C>, Sent<B>>;

/// Maximum number of requests on an HTTP/2 connection: upstreams commonly take 100 streams on one, and hyper
/// lets more of them wait. Their windows together fit into the connection's, so that one reader who does not
/// go on stops nobody else.
const MAX_STREAMS: usize = 64;
/// Maximum number of connections that are kept without a request.
pub(super) const MAX_IDLE: usize = 64;

/// What the upstream has spoken on the latest connection.
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

/// The connection pool in shards, each for as many requests as an HTTP/2 connection takes: a shard keeps one
/// HTTP/2 connection. They are made as they are needed; HTTP/1 needs the first only.
pub(super) struct PoolShards<B, C>(Arc<Shared<B, C>>);

struct Shared<B, C> {
    make: Box<dyn Fn() -> Pool<B, C> + Send + Sync>,
    protocol: UpstreamProtocol,
    first: PoolShard<B, C>,
    has_more: AtomicBool,
    more: Mutex<Vec<PoolShard<B, C>>>,
}

struct PoolShard<B, C> {
    pool: Pool<B, C>,
    in_flight: Arc<AtomicUsize>,
}

/// A request that counts in a shard.
#[derive(Debug)]
pub(super) struct InFlightGuard(Arc<AtomicUsize>);

impl<B, C: Clone> PoolShards<B, C> {
    pub(super) fn new(
        protocol: UpstreamProtocol,
        make: impl Fn() -> Pool<B, C> + Send + Sync + 'static,
    ) -> Self {
        let first = PoolShard::new(make());
        let (has_more, more) = (AtomicBool::new(false), Mutex::default());
        Self(Arc::new(Shared { make: Box::new(make), protocol, first, has_more, more }))
    }

    /// The pool for another request, in which it counts until the guard is dropped.
    pub(super) fn enter(&self) -> (Cow<'_, Pool<B, C>>, InFlightGuard) {
        let shared = &*self.0;
        let is_http1 = shared.protocol.is_http1();
        if is_http1 && shared.has_more.load(Ordering::Relaxed) {
            // They were made before that was known. Their connections end with their requests.
            shared.more().clear();
            shared.has_more.store(false, Ordering::Relaxed);
        }
        if is_http1 || shared.first.has_room() {
            return (Cow::Borrowed(&shared.first.pool), shared.first.enter());
        }
        let more = &mut *shared.more();
        while more.len() >= MAX_IDLE && more.last().is_some_and(PoolShard::is_unused) {
            more.pop();
        }
        let at = more.iter().position(PoolShard::has_room).unwrap_or_else(|| {
            more.push(PoolShard::new((shared.make)()));
            more.len() - 1
        });
        shared.has_more.store(true, Ordering::Relaxed);
        (Cow::Owned(more[at].pool.clone()), more[at].enter())
    }
}

impl<B, C> Shared<B, C> {
    fn more(&self) -> std::sync::MutexGuard<'_, Vec<PoolShard<B, C>>> {
        self.more.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<B, C> PoolShard<B, C> {
    fn new(pool: Pool<B, C>) -> Self {
        Self { pool, in_flight: Arc::default() }
    }

    fn has_room(&self) -> bool {
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

impl<B, C> Clone for PoolShards<B, C> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}
