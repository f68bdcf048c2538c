use std::future::Future;

use hyper::rt::Executor;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// Spawns a task for each HTTP/2 stream and can end them all: they outlive their connections.
#[derive(Clone, Default)]
pub(super) struct StreamExecutor {
    tasks: TaskTracker,
    shutdown: CancellationToken,
}

impl StreamExecutor {
    /// Cancels all streams and returns when their tasks have ended.
    pub(super) async fn shutdown(&self) {
        self.shutdown.cancel();
        self.tasks.close();
        self.tasks.wait().await;
    }
}

impl<F> Executor<F> for StreamExecutor
where
    F: Future + Send + 'static,
    F::Output: Send,
{
    fn execute(&self, stream: F) {
        let shutdown = self.shutdown.clone();
        self.tasks.spawn(async move { drop(shutdown.run_until_cancelled_owned(stream).await) });
    }
}
