use std::{
    fmt,
    io::IoSlice,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Instant,
};

use http::response::Parts;

use super::{LedgerId, Units, UsageEvent};

/// The event of a request that is under way.
#[derive(Debug)]
pub(crate) struct Draft {
    pub(crate) event: UsageEvent,
    pub(crate) started: Instant,
    /// What passes of the request's body, if it has one.
    pub(crate) upload: Option<Arc<dyn Upload>>,
    /// Whether the client has left, where somebody tells.
    pub(crate) abandoned: Option<Abandoned>,
    /// Where the recorder's sink writes events.
    pub(crate) ledger: Option<LedgerId>,
    /// Completes the event of an answer with this head and this whole body.
    pub(crate) complete: fn(&mut Draft, &Units, &Parts, &[IoSlice<'_>]),
    /// Whether it was written down with the unit.
    pub(crate) is_written: bool,
}

/// What is known of a request's body so far; the recorder and the body share it.
pub(crate) trait Upload: fmt::Debug + Send + Sync {
    /// Notes it in the event.
    #[cfg(feature = "usage")]
    fn note(&self, event: &mut UsageEvent);
}

/// In a request's extensions: whether its client has left although its answer is read on. Whoever
/// reads it on puts it there (`DrainLayer`), the usage recorder reads it.
#[derive(Clone, Debug, Default)]
pub struct Abandoned(Arc<AtomicBool>);

impl Abandoned {
    /// Whether the client has left.
    pub fn get(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    /// The client has left.
    pub fn set(&self) {
        self.0.store(true, Ordering::Relaxed);
    }
}
