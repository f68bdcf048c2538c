use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::SystemTime,
};

use super::{PostgresOptions, ledger::PostgresLedger};
use crate::{
    clock::Day,
    key::Limit,
    store::{
        engine::{Engine, queue::Queue},
        key_cache::KeyCache,
    },
};

/// State shared by callers, the writer and the listener.
pub(super) struct Core {
    pub(super) engine: Arc<Engine>,
    pub(super) queue: Arc<Queue<PostgresLedger>>,
    pub(super) default_daily_limit: Limit,
    pub(super) keys: KeyCache,
    /// Whether changes of keys are heard of. What was cached before is not used otherwise.
    is_listening: AtomicBool,
}

impl Core {
    pub(super) fn new(options: &PostgresOptions, engine: Engine) -> Self {
        Self {
            queue: Arc::new(engine.queue()),
            engine: Arc::new(engine),
            default_daily_limit: options.default_daily_limit,
            keys: KeyCache::default(),
            is_listening: AtomicBool::new(false),
        }
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
    }
}
