use std::{num::NonZeroU32, sync::Arc};

use dashmap::{DashMap, Entry};

use crate::key::KeyId;

/// Counts the requests of each subject that are under way.
#[derive(Debug)]
pub(super) struct InFlight {
    most: NonZeroU32,
    counts: DashMap<KeyId, u32>,
}

/// One request's place. Given back when it is dropped: with the future, or at the body's end.
#[derive(Debug)]
pub(super) struct Slot {
    in_flight: Arc<InFlight>,
    id: KeyId,
}

impl InFlight {
    pub(super) fn new(most: NonZeroU32) -> Self {
        Self { most, counts: DashMap::new() }
    }

    /// A place for one more request, if there is one.
    pub(super) fn enter(self: &Arc<Self>, id: &KeyId) -> Option<Slot> {
        let mut count = self.counts.entry(id.clone()).or_default();
        if *count >= self.most.get() {
            return None;
        }
        *count += 1;
        Some(Slot { in_flight: self.clone(), id: id.clone() })
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        if let Entry::Occupied(mut count) = self.in_flight.counts.entry(self.id.clone()) {
            *count.get_mut() -= 1;
            if *count.get() == 0 {
                count.remove();
            }
        }
    }
}
