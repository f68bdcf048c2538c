use std::{
    fmt,
    future::Future,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{runtime::Handle, task::JoinSet, time::timeout};
use tower_layer::Layer;

use super::Drain;

/// How much of an answer is read that nobody waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct DrainLimits {
    /// For how long. 60 s by default.
    pub time: Duration,
    /// How many bytes. 4 MiB by default.
    pub bytes: u64,
    /// How many answers at once. 100 by default.
    pub at_once: usize,
}

impl DrainLimits {
    /// The defaults.
    pub fn new() -> Self {
        Self { time: Duration::from_secs(60), bytes: 4 << 20, at_once: 100 }
    }

    /// Reads on for so long.
    #[must_use]
    pub fn time(self, time: Duration) -> Self {
        Self { time, ..self }
    }

    /// Reads so many bytes.
    #[must_use]
    pub fn bytes(self, bytes: u64) -> Self {
        Self { bytes, ..self }
    }

    /// Reads so many answers at once.
    #[must_use]
    pub fn at_once(self, at_once: usize) -> Self {
        Self { at_once, ..self }
    }
}

impl Default for DrainLimits {
    fn default() -> Self {
        Self::new()
    }
}

/// Reads answers on to their end when their clients have left. See the [module](super) for its
/// rules.
#[derive(Clone)]
pub struct DrainLayer(Option<Arc<Drains>>);

/// The answers that are read on.
pub(super) struct Drains {
    pub(super) limits: DrainLimits,
    /// None once the layer has finished.
    tasks: Mutex<Option<JoinSet<()>>>,
}

impl DrainLayer {
    /// Reads on within these limits. Must be used within a Tokio runtime.
    pub fn new(limits: DrainLimits) -> Self {
        Self(Some(Arc::new(Drains { limits, tasks: Mutex::new(Some(JoinSet::new())) })))
    }

    /// A layer that does nothing.
    pub fn off() -> Self {
        Self(None)
    }

    /// Waits for the answers that are read on, for so long, and gives up the rest. No others are
    /// read on from then on.
    pub async fn finish(&self, limit: Duration) {
        let Some(drains) = &self.0 else { return };
        let Some(mut tasks) = drains.lock().take() else { return };
        let all = async { while tasks.join_next().await.is_some() {} };
        if timeout(limit, all).await.is_err() {
            tasks.shutdown().await;
        }
    }
}

impl Drains {
    fn lock(&self) -> MutexGuard<'_, Option<JoinSet<()>>> {
        self.tasks.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Has `rest` go on for a while, unless there are too many of them.
    pub(super) fn go_on(&self, rest: impl Future<Output = ()> + Send + 'static) {
        let Ok(runtime) = Handle::try_current() else { return };
        let mut tasks = self.lock();
        let Some(tasks) = tasks.as_mut() else { return };
        while tasks.try_join_next().is_some() {}
        if tasks.len() < self.limits.at_once {
            let limited = timeout(self.limits.time, rest);
            tasks.spawn_on(async move { drop(limited.await) }, &runtime);
        }
    }
}

impl<S> Layer<S> for DrainLayer {
    type Service = Drain<S>;

    fn layer(&self, inner: S) -> Drain<S> {
        Drain { inner, drains: self.0.clone() }
    }
}

impl fmt::Debug for DrainLayer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let limits = self.0.as_ref().map(|drains| drains.limits);
        f.debug_struct("DrainLayer").field("limits", &limits).finish_non_exhaustive()
    }
}
