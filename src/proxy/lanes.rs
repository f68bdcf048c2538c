use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use hyper_util::client::legacy::Client;

use super::{connector::Connector, resend::Sent};

pub(super) type Pool<B, C> = Client<Connector<C>, Sent<B>>;

/// How many requests share a pool, and so an HTTP/2 connection: upstreams commonly take 100 streams
/// on one, and hyper lets more of them wait. Their windows together fit into the connection's, so that
/// one reader who does not go on stops nobody else.
const STREAMS: usize = 64;
/// How many pools there are. Beyond, they share what there is.
const LANES: usize = 32;

/// Pools that are filled one after another.
pub(super) struct Lanes<B, C>(Arc<[Lane<B, C>]>);

struct Lane<B, C> {
    pool: Pool<B, C>,
    running: Arc<AtomicUsize>,
}

/// A request that runs in a lane.
#[derive(Debug)]
pub(super) struct Running(Arc<AtomicUsize>);

impl<B, C> Lanes<B, C> {
    pub(super) fn new(pool: impl Fn() -> Pool<B, C>) -> Self {
        let lane = |_| Lane { pool: pool(), running: Arc::default() };
        Self((0..LANES).map(lane).collect())
    }

    /// The pool for another request, in which it counts until the end of [`Running`].
    pub(super) fn enter(&self) -> (&Pool<B, C>, Running) {
        let lanes = &self.0;
        let running = |lane: &&Lane<B, C>| lane.running.load(Ordering::Relaxed);
        let free = lanes.iter().find(|lane| running(lane) < STREAMS);
        let lane = free.or_else(|| lanes.iter().min_by_key(running)).unwrap_or(&lanes[0]);
        lane.running.fetch_add(1, Ordering::Relaxed);
        (&lane.pool, Running(lane.running.clone()))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl<B, C> Clone for Lanes<B, C> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}
