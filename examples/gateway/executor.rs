//! The tasks in which hyper answers HTTP/2 streams.

use std::future::Future;

use hyper::rt::Executor;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// Runs the streams' tasks, which outlive their connections, and can end them.
#[derive(Clone, Default)]
pub(crate) struct StreamExecutor {
    tasks: TaskTracker,
    end: CancellationToken,
}

impl StreamExecutor {
    /// Drops what is still answered, and returns when all of it is dropped.
    pub(crate) async fn shutdown(&self) {
        self.end.cancel();
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
        let end = self.end.clone();
        self.tasks.spawn(async move { drop(end.run_until_cancelled_owned(stream).await) });
    }
}
