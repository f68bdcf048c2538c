use std::{sync::Arc, time::SystemTime};

use super::{SqliteOptions, ledger::SqliteLedger};
use crate::{
    clock::Day,
    key::DefaultLimits,
    store::{
        engine::{Engine, queue::Queue},
        key_cache::KeyCache,
    },
};

/// State shared by callers and the writer.
pub(super) struct Core {
    pub(super) engine: Arc<Engine>,
    pub(super) queue: Arc<Queue<SqliteLedger>>,
    pub(super) default_limits: DefaultLimits,
    pub(super) keys: KeyCache,
}

impl Core {
    pub(super) fn new(options: &SqliteOptions, engine: Engine) -> Self {
        Self {
            queue: Arc::new(engine.queue()),
            engine: Arc::new(engine),
            default_limits: options.default_limits,
            keys: KeyCache::default(),
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
}
