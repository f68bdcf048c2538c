//! Progress and cancellation of long-running work.

use std::{
    ops::ControlFlow,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use crate::store::sync::{Mutex, lock};

/// Progress of a copy, an import or a migration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Progress {
    /// Current step.
    pub step: ProgressStep,
    /// Amount of work done in this step.
    pub done: u64,
    /// Total amount of work in this step, if known.
    pub total: Option<u64>,
}

/// Step of a copy, an import or a migration, in the order in which they are done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ProgressStep {
    /// Importing keys. `done` and `total` are numbers of keys.
    Import,
    /// Copying the pages of the database. `done` and `total` are bytes.
    Copy,
    /// Applying the journal to the copy.
    Checkpoint,
    /// Checking the copy for damage.
    Check,
    /// Writing the rows to PostgreSQL. `done` and `total` are numbers of rows.
    Move,
    /// Comparing the rows in PostgreSQL with those that were read.
    Compare,
    /// Syncing the copy to disk.
    Sync,
    /// Renaming the complete copy, or committing the import or the migration. This is reported once, as the last
    /// opportunity to stop.
    Publish,
}

/// Observes the progress of long-running work and can stop it. It is implemented by closures, and
/// by `()`, which ignores the progress.
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
    /// Called with the current progress, possibly every few microseconds. It runs on the thread
    /// that does the work and must not block it.
    ///
    /// If it returns [`ControlFlow::Break`], the work is stopped and undone.
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

/// Observer of a copy or an import. Clones share it, because SQLite owns its progress handlers.
#[derive(Clone)]
pub(crate) struct Observer(Arc<Shared>);

struct Shared {
    on_progress: Mutex<Box<dyn OnProgress + Send>>,
    is_stopped: AtomicBool,
}

impl Observer {
    pub(crate) fn new(on_progress: impl OnProgress + Send + 'static) -> Self {
        let on_progress: Box<dyn OnProgress + Send> = Box::new(on_progress);
        let is_stopped = AtomicBool::new(false);
        Self(Arc::new(Shared { on_progress: Mutex::new(on_progress), is_stopped }))
    }

    /// Reports a step of unknown length, and returns whether to continue.
    pub(crate) fn report(&self, step: ProgressStep) -> bool {
        self.report_part(step, 0, None)
    }

    /// Reports the progress within a step, and returns whether to continue.
    pub(crate) fn report_part(&self, step: ProgressStep, done: u64, total: Option<u64>) -> bool {
        let progress = Progress { step, done, total };
        if !self.is_stopped() && lock(&self.0.on_progress).on_progress(&progress).is_break() {
            self.0.is_stopped.store(true, Ordering::Relaxed);
        }
        !self.is_stopped()
    }

    /// Whether the observer has stopped the work.
    pub(crate) fn is_stopped(&self) -> bool {
        self.0.is_stopped.load(Ordering::Relaxed)
    }
}
