//! How far long work has come, and stopping it.

use std::{
    ops::ControlFlow,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use crate::store::sync::{Mutex, lock};

/// How far a copy or an import has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Progress {
    /// What is being done.
    pub step: ProgressStep,
    /// How much of the step is done.
    pub done: u64,
    /// How much there is to do; `None` where that is not known.
    pub total: Option<u64>,
}

/// The steps of long work, in their order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ProgressStep {
    /// Keys are imported. `done` and `total` are keys.
    Import,
    /// The database's pages are copied. `done` and `total` are bytes.
    Copy,
    /// The journal is applied to the copy.
    Checkpoint,
    /// The copy is checked for damage.
    Check,
    /// The copy is written through to the disk.
    Sync,
    /// The copy is complete and is given its name, or the import is committed. This is reported once
    /// and is the last chance to stop: what comes then is done to its end.
    Publish,
}

/// Observes long work, and may stop it: `()` does neither, a closure does both.
///
/// ```
/// use std::ops::ControlFlow;
///
/// use tower_quota::store::sqlite::{IfExists, Progress, SqliteOptions, SqliteStore, backup};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let directory = tempfile::tempdir()?;
/// # let (path, copy) = (directory.path().join("quota.db"), directory.path().join("copy.db"));
/// # SqliteStore::open(SqliteOptions::new(&path))?.close().await?;
/// let options = SqliteOptions::new(path);
/// backup(&options, &copy, IfExists::Fail, |progress: &Progress| {
///     println!("{:?}: {} of {:?}", progress.step, progress.done, progress.total);
///     ControlFlow::Continue(())
/// })?;
/// # Ok(())
/// # }
/// ```
pub trait OnProgress {
    /// Takes note of the progress. This is called often, at times every few microseconds, on the
    /// thread that does the work, which must not be held up.
    ///
    /// [`ControlFlow::Break`] stops the work: it fails, and everything is as it was before.
    fn on_progress(&mut self, progress: &Progress) -> ControlFlow<()>;
}

impl OnProgress for () {
    fn on_progress(&mut self, _: &Progress) -> ControlFlow<()> {
        ControlFlow::Continue(())
    }
}

impl<F> OnProgress for F
where
    F: FnMut(&Progress) -> ControlFlow<()>,
{
    fn on_progress(&mut self, progress: &Progress) -> ControlFlow<()> {
        self(progress)
    }
}

/// The observer of one piece of work. Clones share it, because SQLite owns what it calls.
#[derive(Clone)]
pub(super) struct Observer(Arc<Shared>);

struct Shared {
    on_progress: Mutex<Box<dyn OnProgress + Send>>,
    is_stopped: AtomicBool,
}

impl Observer {
    pub(super) fn new(on_progress: impl OnProgress + Send + 'static) -> Self {
        let on_progress: Box<dyn OnProgress + Send> = Box::new(on_progress);
        let is_stopped = AtomicBool::new(false);
        Self(Arc::new(Shared { on_progress: Mutex::new(on_progress), is_stopped }))
    }

    /// Reports a step of which nobody knows how long it takes, and returns whether to go on.
    pub(super) fn report(&self, step: ProgressStep) -> bool {
        self.report_part(step, 0, None)
    }

    /// Reports how far a step has come, and returns whether to go on.
    pub(super) fn report_part(&self, step: ProgressStep, done: u64, total: Option<u64>) -> bool {
        let progress = Progress { step, done, total };
        if !self.is_stopped() && lock(&self.0.on_progress).on_progress(&progress).is_break() {
            self.0.is_stopped.store(true, Ordering::Relaxed);
        }
        !self.is_stopped()
    }

    /// Whether the observer has stopped the work.
    pub(super) fn is_stopped(&self) -> bool {
        self.0.is_stopped.load(Ordering::Relaxed)
    }
}
