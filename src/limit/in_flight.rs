use std::{num::NonZeroU32, sync::Arc};

use dashmap::{DashMap, Entry};

use crate::key::KeyId;

/// Limits how many requests of each subject are in flight.
#[derive(Debug)]
pub(crate) struct InFlight {
    max: NonZeroU32,
    counts: DashMap<KeyId, u32>,
}

/// Counts one request as in flight until it is dropped.
#[derive(Debug)]
pub(crate) struct InFlightGuard {
    in_flight: Arc<InFlight>,
    id: KeyId,
}

impl InFlight {
    pub(crate) fn new(max: NonZeroU32) -> Self {
        Self { max, counts: DashMap::new() }
    }

    /// Counts one more request of the subject, or returns `None` if the maximum is in flight.
    pub(crate) fn enter(self: &Arc<Self>, id: &KeyId) -> Option<InFlightGuard> {
        let mut count = self.counts.entry(id.clone()).or_default();
        if *count >= self.max.get() {
            return None;
        }
        *count += 1;
        Some(InFlightGuard { in_flight: self.clone(), id: id.clone() })
    }
}

impl Drop for InFlightGuard {
    fn drop(&mut self) {
        if let Entry::Occupied(mut count) = self.in_flight.counts.entry(self.id.clone()) {
            *count.get_mut() -= 1;
            if *count.get() == 0 {
                count.remove();
            }
        }
    }
}
