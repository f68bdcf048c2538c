use std::{
    fmt,
    future::Future,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{runtime::Handle, task::JoinSet, time::timeout};
use tower_layer::Layer;

use super::Drain;

/// Limits of reading responses whose clients have left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct DrainLimits {
    /// Maximum time per response. 60 s by default.
    pub max_time: Duration,
    /// Maximum number of bytes per response. 4 MiB by default.
    pub max_bytes: u64,
    /// Maximum number of responses at the same time. 100 by default.
    pub max_responses: usize,
}

impl DrainLimits {
    /// Creates the default limits.
    pub fn new() -> Self {
        Self { max_time: Duration::from_secs(60), max_bytes: 4 << 20, max_responses: 100 }
    }

    /// Sets the maximum time per response.
    #[must_use]
    pub fn max_time(self, max_time: Duration) -> Self {
        Self { max_time, ..self }
    }

    /// Sets the maximum number of bytes per response.
    #[must_use]
    pub fn max_bytes(self, max_bytes: u64) -> Self {
        Self { max_bytes, ..self }
    }

    /// Sets the maximum number of responses at the same time.
    #[must_use]
    pub fn max_responses(self, max_responses: usize) -> Self {
        Self { max_responses, ..self }
    }
}

impl Default for DrainLimits {
    fn default() -> Self {
        Self::new()
    }
}

/// Layer that applies [`Drain`]: responses are read to their end when their clients have left, for the usage
/// that an upstream reports last.
///
/// # Rules
///
/// - The layer stands outside of the usage recorder. When a response, or its future, is dropped before
///   its end, a task reads the rest within [`DrainLimits`]. Beyond those, and if too many responses are being
///   drained already, it is dropped as without the layer.
/// - The layer calls [`RequestContext::set_abandoned`](crate::request::RequestContext::set_abandoned),
///   so the event says nevertheless that the client left.
/// - Clones share the limits. While the layer is off, nothing is boxed or counted.
///
/// # Example
///
/// ```
/// use std::{convert::Infallible, time::Duration};
/// use bytes::Bytes;
/// use http::{Request, Response};
/// use http_body_util::Full;
/// use tower::{Layer, ServiceExt, service_fn};
/// use tower_quota::usage::{DrainLayer, DrainLimits};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Infallible> {
/// let drain = DrainLayer::new(DrainLimits::new().max_time(Duration::from_secs(10)));
/// let service = drain.layer(service_fn(|_: Request<Full<Bytes>>| async {
///     Ok::<_, Infallible>(Response::new(Full::<Bytes>::from("read to its end nevertheless")))
/// }));
/// drop(service.oneshot(Request::new(Full::default())).await?);
/// drain.finish(Duration::from_secs(1)).await;
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct DrainLayer {
    tasks: Option<Arc<DrainTasks>>,
}

/// Tasks that read responses whose clients have left.
pub(super) struct DrainTasks {
    pub(super) limits: DrainLimits,
    /// `None` once the layer has finished.
    tasks: Mutex<Option<JoinSet<()>>>,
}

impl DrainLayer {
    /// Creates a layer with these limits. Its services must be used within a Tokio runtime.
    pub fn new(limits: DrainLimits) -> Self {
        let tasks = DrainTasks { limits, tasks: Mutex::new(Some(JoinSet::new())) };
        Self { tasks: Some(Arc::new(tasks)) }
    }

    /// Creates a layer that does nothing.
    pub fn off() -> Self {
        Self { tasks: None }
    }

    /// Waits until all responses are drained, but no longer than `limit`, and drops the others. No more
    /// responses are drained from then on.
    pub async fn finish(&self, limit: Duration) {
        let Some(shared) = &self.tasks else { return };
        let Some(mut tasks) = shared.lock().take() else { return };
        let all = async { while tasks.join_next().await.is_some() {} };
        if timeout(limit, all).await.is_err() {
            tasks.shutdown().await;
        }
    }
}

impl DrainTasks {
    fn lock(&self) -> MutexGuard<'_, Option<JoinSet<()>>> {
        self.tasks.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Spawns a task that drains a response, unless there are too many.
    pub(super) fn spawn(&self, drain: impl Future<Output = ()> + Send + 'static) {
        let Ok(runtime) = Handle::try_current() else { return };
        let mut tasks = self.lock();
        let Some(tasks) = tasks.as_mut() else { return };
        while tasks.try_join_next().is_some() {}
        if tasks.len() < self.limits.max_responses {
            let limited = timeout(self.limits.max_time, drain);
            tasks.spawn_on(async move { drop(limited.await) }, &runtime);
        }
    }
}

impl<S> Layer<S> for DrainLayer {
    type Service = Drain<S>;

    fn layer(&self, inner: S) -> Drain<S> {
        Drain { inner, tasks: self.tasks.clone() }
    }
}

impl fmt::Debug for DrainLayer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let limits = self.tasks.as_ref().map(|tasks| tasks.limits);
        f.debug_struct("DrainLayer").field("limits", &limits).finish_non_exhaustive()
    }
}
