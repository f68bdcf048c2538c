use std::{io::IoSlice, time::Instant};

use http::response::Parts;

use super::{LedgerId, Units, UsageEvent};

/// The event of a request that is under way.
#[derive(Debug)]
pub(crate) struct Draft {
    pub(crate) event: UsageEvent,
    pub(crate) started: Instant,
    /// Where the recorder's sink writes events.
    pub(crate) ledger: Option<LedgerId>,
    /// Completes the event of an answer with this head and this whole body.
    pub(crate) complete: fn(&mut Draft, &Units, &Parts, &[IoSlice<'_>]),
    /// Whether it was written down with the unit.
    pub(crate) is_written: bool,
}
