use std::{
    io::IoSlice,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU64, Ordering},
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
    pub(crate) upload: Option<Arc<Upload>>,
    /// Where the recorder's sink writes events.
    pub(crate) ledger: Option<LedgerId>,
    /// Completes the event of an answer with this head and this whole body.
    pub(crate) complete: fn(&mut Draft, &Units, &Parts, &[IoSlice<'_>]),
    /// Whether it was written down with the unit.
    pub(crate) is_written: bool,
}

/// What is known of a request's body so far; the recorder and the body share it.
#[derive(Debug, Default)]
pub(crate) struct Upload {
    bytes: AtomicU64,
    model: OnceLock<String>,
}

#[cfg(feature = "usage")]
impl Upload {
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    pub(crate) fn add_bytes(&self, count: usize) {
        self.bytes.fetch_add(count as u64, Ordering::Relaxed);
    }

    /// The model that the request names.
    pub(crate) fn model(&self) -> Option<String> {
        self.model.get().cloned()
    }

    /// Notes the model; the first one stays.
    pub(crate) fn name_model(&self, model: String) {
        let _ = self.model.set(model);
    }
}
