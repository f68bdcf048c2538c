use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::SystemTime,
};

use super::{
    PostgresOptions, clock::DatabaseClock, leases::Trips, ledger::PostgresLedger, session::Node,
};
use crate::{
    clock::{Clock, Day},
    key::DefaultLimits,
    store::{
        Demand,
        engine::{Engine, queue::Queue},
        key_cache::KeyCache,
        sync::{Mutex, lock},
    },
};

/// State shared by callers, the writer and the listener.
pub(super) struct Core {
    pub(super) engine: Arc<Engine>,
    pub(super) queue: Arc<Queue<PostgresLedger>>,
    pub(super) default_limits: DefaultLimits,
    pub(super) keys: KeyCache,
    /// Whether changes of keys and leases are heard of. What was cached before is not used otherwise.
    is_listening: AtomicBool,
    /// Number that changes when notifications of leases may have been missed.
    pub(super) hearing: AtomicU64,
    /// The node, with the number of the writer's current connection.
    node: Mutex<Node>,
    pub(super) trips: Trips,
    pub(super) clock: Arc<DatabaseClock>,
    /// Whether another clock than the database's decides the day.
    has_own_clock: bool,
}

impl Core {
    pub(super) fn new(
        options: &PostgresOptions,
        engine: Engine,
        node: Node,
        trips: Trips,
        clock: Arc<DatabaseClock>,
    ) -> Self {
        Self {
            hearing: AtomicU64::new(0),
            node: Mutex::new(node),
            trips,
            clock,
            has_own_clock: options.clock.is_some(),
            queue: Arc::new(engine.queue()),
            engine: Arc::new(engine),
            default_limits: options.default_limits,
            keys: KeyCache::default(),
            is_listening: AtomicBool::new(false),
        }
    }

    /// Returns whether another clock than the database's decides the day.
    pub(super) fn has_own_clock(&self) -> bool {
        self.has_own_clock
    }

    /// Returns the time of a demand by the clock that decides the day.
    pub(super) fn time_of(&self, demand: &Demand) -> SystemTime {
        if self.has_own_clock { demand.at } else { self.clock.now() }
    }

    pub(super) fn node(&self) -> Node {
        *lock(&self.node)
    }

    pub(super) fn set_node(&self, node: Node) {
        *lock(&self.node) = node;
    }

    /// Returns the current time.
    pub(super) fn now(&self) -> SystemTime {
        self.engine.clock.now()
    }

    /// Returns the current day.
    pub(super) fn today(&self) -> Day {
        self.engine.today()
    }

    pub(super) fn is_listening(&self) -> bool {
        self.is_listening.load(Ordering::Acquire)
    }

    /// Notes whether changes of keys are heard of from now on. Those before may have been missed.
    pub(super) fn set_listening(&self, is_listening: bool) {
        self.is_listening.store(is_listening, Ordering::Release);
        self.keys.forget();
        self.miss_news();
    }

    /// Notes that notifications of leases may have been missed: what is known of other nodes is not used any more.
    pub(super) fn miss_news(&self) {
        self.hearing.fetch_add(1, Ordering::AcqRel);
    }
}
